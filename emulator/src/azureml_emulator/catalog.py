"""The catalogue: what the region sells and the registry holds.

``catalogs/today.yaml`` and ``catalogs/2024.yaml`` are read like any file that a user names. The
shape, by example::

    location: eastus2
    sizes:                       # compute.list_sizes(), prices for the ledger
      - {name: Standard_NC24ads_A100_v4, family: standardNCADSA100v4Family, gpus: 1, vcpus: 24,
         memory_gb: 220, usd_per_hour: 3.673, low_priority: true}
    quotas:                      # cores; a family without a row has none
      {standardNCADSA100v4Family: 96, TotalLowPriorityCores: 96}
    models:
      - {name: Phi-3-mini-4k-instruct, version: "1", type: mlflow_model, tags: {…},
         properties: {…}, system_metadata: {…}, archived: false, created: 2024-04-23,
         description: …, weights: tiny}         # needed: name, version, type
    components: [components/chat_completion_pipeline.json]

A model's ``weights`` are what really backs it (see :mod:`.weights`), the tiny stand-in if it does
not say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from . import weights
from .settings import PROVIDER, SUBSCRIPTION_ID

_SECTIONS = {"location", "sizes", "quotas", "models", "components"}
_NEEDED = {
    "sizes": {"name", "family", "gpus", "vcpus", "memory_gb", "usd_per_hour"},
    "models": {"name", "version", "type"},
}


@dataclass(frozen=True)
class Catalog:
    """A catalogue, read.

    Args:
        location: The region's name.
        sizes: VM sizes as the file gives them, by lower-case name.
        quotas: Cores by family.
        models: The registry's models as the file gives them, oldest version first.
        components: The registry's components: name, version, type, inputs, outputs, jobs.
    """

    location: str
    sizes: dict[str, dict[str, Any]]
    quotas: dict[str, int]
    models: list[dict[str, Any]]
    components: list[dict[str, Any]]

    @classmethod
    def load(cls, choice: str) -> Catalog:
        """Read ``today``, ``2024`` or a file.

        Raises:
            ValueError: There is no such catalogue, or it lacks a section or a needed field.
        """
        bundled: Traversable = resources.files(__package__) / "catalogs"
        source: Traversable | Path = bundled / f"{choice}.yaml"
        if not source.is_file():
            source = Path(choice)
            if not source.is_file():
                raise ValueError(f"--catalog: {choice} is neither today, 2024 nor a file")
        try:
            table = yaml.safe_load(source.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"--catalog: {source} is not YAML: {error}") from error
        if not isinstance(table, dict) or set(table) != _SECTIONS:
            raise ValueError(f"--catalog: {source} must have just the sections {sorted(_SECTIONS)}")
        for section, needed in _NEEDED.items():
            for number, row in enumerate(table[section]):
                if missing := sorted(needed - set(row)):
                    raise ValueError(f"--catalog: {source}: {section}[{number}] lacks {missing}")
        folder = source.parent if isinstance(source, Path) else bundled
        components = [json.loads((folder / path).read_text()) for path in table["components"]]
        sizes = {size["name"].lower(): size for size in table["sizes"]}
        return cls(table["location"], sizes, table["quotas"], table["models"], components)

    def backed_by(self, folders: Mapping[str, Path]) -> Catalog:
        """Return the catalogue with *folders* of Hugging Face's format behind models, by name.

        A model that the registry has keeps all that is said of it. Any other becomes a new one,
        version 1, which every GPU size can train and serve.

        Raises:
            weights.WeightsError: A folder is no chat model.
        """
        models = [dict(model) for model in self.models]
        for name, folder in folders.items():
            weights.check(folder)
            named = [model for model in models if model["name"].lower() == name.lower()]
            if not named:
                named = [self._local_model(name)]
                models += named
            for model in named:
                model["weights"] = str(folder)
        return replace(self, models=models)

    def _local_model(self, name: str) -> dict[str, Any]:
        sizes = [size["name"] for size in self.sizes.values() if size["gpus"]]
        return {
            "name": name,
            "version": "1",
            "type": "mlflow_model",
            "description": "A model of your own, which Azure's registry does not have.",
            "system_metadata": {
                "supportedComputes": {"inferenceComputes": sizes, "finetuneComputes": sizes}
            },
        }

    @property
    def location_id(self) -> str:
        """The ARM id of the region in the workspace's subscription."""
        return f"/subscriptions/{SUBSCRIPTION_ID}{PROVIDER}/locations/{self.location}"

    def weights(self, name: str, version: str) -> str | None:
        """Return what backs a model of the registry, as :mod:`.weights` knows it."""
        for model in self.models:
            if (model["name"].lower(), model["version"]) == (name.lower(), version):
                return str(model.get("weights", weights.TINY))
        return None

    def price(self, size: str) -> float:
        """Return the dedicated price of one *size* in USD per hour; 0 for one not listed."""
        return float(self.sizes.get(size.lower(), {}).get("usd_per_hour", 0.0))
