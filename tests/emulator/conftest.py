"""What the emulator's own tests share: a small catalogue, raw requests, and the real SDK."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from azureml_emulator import settings as names

from lifecycle.component import TrainingSpec
from tests.conftest import RunningEmulator
from tests.emulator.training import asking

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

CATALOG = """\
location: eastus2
sizes:
  - {name: Standard_DS3_v2, family: standardDSv2Family, gpus: 0, vcpus: 4, memory_gb: 14,
     usd_per_hour: 0.3, low_priority: true}
  - {name: Standard_NC24ads_A100_v4, family: standardNCADSA100v4Family, gpus: 1, vcpus: 24,
     memory_gb: 220, usd_per_hour: 3.673, low_priority: true}
  - {name: Standard_ND40rs_v2, family: standardNDSv2Family, gpus: 8, vcpus: 40, memory_gb: 672,
     usd_per_hour: 22.032, low_priority: true}
quotas: {standardDSv2Family: 24, standardNCADSA100v4Family: 96}
models:
  - {name: tiny, version: "1", type: mlflow_model, tags: {}, properties: {}, system_metadata: {},
     archived: false, description: For tests.}
components: []
"""


class Wire:
    """Requests as the SDK would send them, one at a time, with a valid token of ours."""

    def __init__(self, emulator: RunningEmulator) -> None:
        self._emulator = emulator
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(emulator.server.emulator.certificates.bundle)

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: dict[str, str | None] | None = None,
    ) -> requests.Response:
        """Send one request; *path* is below the workspace unless it is a whole path or URL."""
        if not path.startswith(("/", "https:")):
            path = f"{names.WORKSPACE_ID}/{path}"
        url = path if path.startswith("https:") else f"{self._emulator.url}{path}"
        if "?" not in url:
            url += "?api-version=2022-02-01-preview"
        emulator = self._emulator.server.emulator
        token = emulator.tokens.issue(self._emulator.url, now=emulator.clock.now())
        sent = {"Authorization": f"Bearer {token}"} | (headers or {})
        return self._session.request(method, url, json=body, data=data, headers=sent)


@pytest.fixture
def catalog(tmp_path: Path) -> str:
    """The path of a small catalogue, with what these tests name and no more."""
    file = tmp_path / "catalog.yaml"
    file.write_text(CATALOG, encoding="utf-8")
    return str(file)


@pytest.fixture
def serving(start_emulator: Callable[..., RunningEmulator], catalog: str) -> RunningEmulator:
    """An emulator with the small catalogue, instant."""
    return start_emulator(catalog=catalog)


@pytest.fixture
def wire(serving: RunningEmulator) -> Wire:
    """Raw requests to ``serving``."""
    return Wire(serving)


@pytest.fixture
def timed(start_emulator: Callable[..., RunningEmulator], catalog: str) -> RunningEmulator:
    """An emulator with the small catalogue, where time stands still until it is advanced."""
    return start_emulator(catalog=catalog, latency="manual")


@pytest.fixture
def timed_wire(timed: RunningEmulator) -> Wire:
    """Raw requests to ``timed``."""
    return Wire(timed)


@pytest.fixture
def client(serving: RunningEmulator) -> MLClient:
    """The SDK's own client of ``serving``, by the environment alone."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(
        DefaultAzureCredential(),
        names.SUBSCRIPTION_ID,
        names.RESOURCE_GROUP,
        names.WORKSPACE_NAME,
        enable_telemetry=False,
    )


@dataclass(frozen=True)
class TrainedModel:
    """The stand-in after a job on the demo's data, trained as ``make run MODEL=tiny`` trains it.

    Args:
        job: The folder of the job, with a folder for each step.
    """

    job: Path

    @property
    def weights(self) -> Path:
        """The Hugging Face folder."""
        return self.job / "finetune" / "pytorch_model_folder"

    @property
    def mlflow(self) -> Path:
        """The MLflow model."""
        return self.job / "convert" / "mlflow_model_folder"


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> TrainedModel:
    """Train once for the session, also where several processes share it; for reading only."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    job, demo = shared / "trained-model", Path("demo/ultrachat").resolve()
    with (shared / "trained-model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (job / "trained").exists():
            files = {
                "train_file_path": demo / "train_sft.jsonl",
                "validation_file_path": demo / "test_sft.jsonl",
            }
            profile = yaml.safe_load(Path("profiles/tiny.yaml").read_text(encoding="utf-8"))
            training = TrainingSpec.model_validate(profile["training"])
            asking.train(job, files, **training.defaults | training.overrides)
            (job / "trained").touch()
    return TrainedModel(job)
