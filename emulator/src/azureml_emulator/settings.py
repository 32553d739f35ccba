"""What an emulator is started with, and the names of the one workspace it holds."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TENANT_ID = "00000000-0000-4000-8000-0000000000aa"
SUBSCRIPTION_ID = "00000000-0000-4000-8000-000000000001"
RESOURCE_GROUP = "emulator"
WORKSPACE_NAME = "emulator"
REGISTRY_NAME = "azureml"
REGISTRY_SUBSCRIPTION_ID = "00000000-0000-4000-8000-0000000000ee"
REGISTRY_RESOURCE_GROUP = "azureml-registry"
CLOUD_NAME = "AzureMLEmulator"

PROVIDER = "/providers/Microsoft.MachineLearningServices"
WORKSPACE_ID = (
    f"/subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{RESOURCE_GROUP}"
    f"{PROVIDER}/workspaces/{WORKSPACE_NAME}"
)
REGISTRY_ID = (
    f"/subscriptions/{REGISTRY_SUBSCRIPTION_ID}/resourceGroups/{REGISTRY_RESOURCE_GROUP}"
    f"{PROVIDER}/registries/{REGISTRY_NAME}"
)


def default_cache() -> Path:
    """Return where weights that were converted once are kept: for the user, not for a state.

    ``AZUREML_EMULATOR_CACHE``, or else a folder in the platform's place for such things.
    """
    if chosen := os.environ.get("AZUREML_EMULATOR_CACHE"):
        return Path(chosen).absolute()
    home = Path.home()
    platform = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or platform) / "azureml-emulator"


@dataclass(frozen=True)
class Settings:
    """How this emulator behaves.

    Args:
        state: The folder that keeps everything; made if it is not there.
        port: TCP port on 127.0.0.1, or 0 for any free one.
        jobs: ``train`` trains and replies for real; ``scripted`` plays a script of states and log
            lines instead.
        latency: ``instant``, ``realistic``, ``manual``, or the path of a YAML file of seconds.
        catalog: ``today``, ``2024``, or the path of a YAML file.
        weights: Folders with a Hugging Face model, by the name of the registry's model that they
            back.
        cache: Where weights that were converted once are kept.
    """

    state: Path
    port: int = 0
    jobs: str = "train"
    latency: str = "instant"
    catalog: str = "today"
    weights: Mapping[str, Path] = field(default_factory=dict)
    cache: Path = field(default_factory=default_cache)

    @property
    def database(self) -> Path:
        """The SQLite file with every resource, event, meter and request."""
        return self.state / "emulator.sqlite"

    @property
    def blobs(self) -> Path:
        """The folder with the storage account's containers."""
        return self.state / "blobs"

    @property
    def steps(self) -> Path:
        """The folder with what running steps write."""
        return self.state / "steps"

    @property
    def deployments(self) -> Path:
        """The folder with what the deployments' containers write."""
        return self.state / "deployments"

    @property
    def tls(self) -> Path:
        """The folder with the certificate authority and the server's certificate."""
        return self.state / "tls"

    @property
    def client_env(self) -> Path:
        """Shell ``export`` lines for a client; holds the identity secret, so mode 0600."""
        return self.state / "client.env"

    @property
    def config_json(self) -> Path:
        """What ``MLClient.from_config`` reads."""
        return self.state / "config.json"
