"""What several tests of the life cycle use: time that can be turned, and a model to deploy."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.component import TrainingSpec, get_component
from lifecycle.compute import ComputeSpec, SizeInfo
from lifecycle.dataset import DatasetSpec, download_data
from lifecycle.endpoint import EndpointRef, EndpointSpec, plan_endpoint
from lifecycle.evaluation import EvaluationSpec
from lifecycle.job import JobResult, JobSpec, stream_job, submit_job
from lifecycle.model import ModelSpec, select_model
from lifecycle.preflight import Plan, check
from lifecycle.registration import RegisteredModel


class TurnedClock:
    """A clock on which time passes only by sleeping, and which may take Azure's along."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.on_sleep: Callable[[float], None] = lambda seconds: None

    def monotonic(self) -> float:
        return sum(self.slept)

    def now(self) -> datetime:
        return datetime(2026, 11, 21, 12, 0, tzinfo=UTC) + timedelta(seconds=sum(self.slept))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.on_sleep(seconds)


@pytest.fixture
def clock() -> TurnedClock:
    """A clock of this test's own."""
    return TurnedClock()


@pytest.fixture
def slow_emulator(start_emulator: Callable[..., Any], clock: TurnedClock) -> Any:
    """An emulator in which everything takes as long as in Azure, by this test's clock."""
    emulator = start_emulator(latency="manual")
    clock.on_sleep = emulator.advance
    return emulator


@pytest.fixture
def slow_workspace(slow_emulator: Any) -> WorkspaceRef:
    """The workspace of that emulator."""
    from azureml_emulator import settings

    return WorkspaceRef(
        subscription_id=settings.SUBSCRIPTION_ID,
        resource_group=settings.RESOURCE_GROUP,
        name=settings.WORKSPACE_NAME,
    )


@pytest.fixture
def endpoint_spec() -> EndpointSpec:
    """An endpoint of one instance, and defaults."""
    return EndpointSpec(instance_type="Standard_NC24ads_A100_v4")


@pytest.fixture
def endpoint(endpoint_spec: EndpointSpec, clock: TurnedClock) -> EndpointRef:
    """The endpoint of a run's first attempt."""
    return plan_endpoint(endpoint_spec, "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24", 1, clock.now())


@pytest.fixture
def model(workspace: WorkspaceRef, tmp_path: Path) -> RegisteredModel:
    """A model that is registered in the workspace."""
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Model

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors:\n  transformers: {}\n", encoding="utf-8")
    made = ml_client(workspace).models.create_or_update(
        Model(
            name="phi-ultrachat",
            version="1",
            type=AssetTypes.MLFLOW_MODEL,
            path=str(folder),
        )
    )
    return RegisteredModel(name=made.name, version=made.version, id=made.id)


@pytest.fixture
def make_plan(tmp_path: Path) -> Callable[[WorkspaceRef], Plan]:
    """Plan a small job on serverless compute, from what the workspace's registry says."""

    def make(ref: WorkspaceRef) -> Plan:
        source = tmp_path / "conversations"
        source.mkdir(exist_ok=True)
        turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
        for split in ("train_sft", "test_sft", "test_gen"):
            (source / f"{split}.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 20)
        size = SizeInfo(
            name="Standard_NC24ads_A100_v4", gpus=1, vcpus=24, memory_gb=220, low_priority=True
        )
        dataset = DatasetSpec(
            path=str(source), percentage=100, short_name="chats", model_suffix="chats"
        )
        training = TrainingSpec()
        return check(
            select_model(ref, ModelSpec(name="Phi-4-mini-instruct")),
            get_component(ref, training),
            {size.name.lower(): size},
            None,
            download_data(dataset, tmp_path / "data"),
            compute=ComputeSpec(name=None, size=size.name),
            dataset=dataset,
            training=training,
            endpoint=EndpointSpec(instance_type=size.name),
            evaluation=EvaluationSpec(),
        )

    return make


@pytest.fixture
def completed_job(workspace: WorkspaceRef, make_plan: Callable[[WorkspaceRef], Plan]) -> JobResult:
    """A job that has completed."""
    run = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"
    job = submit_job(workspace, make_plan(workspace), TrainingSpec(), run)
    return stream_job(workspace, job, JobSpec(), lambda line: None)
