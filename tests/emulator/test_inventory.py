"""The inventory: which jobs and models there are, for whoever judges a run from outside."""

from __future__ import annotations

from pathlib import Path

from lifecycle.clients import WorkspaceRef, ml_client
from tests.conftest import RunningEmulator


def test_an_emulator_with_no_memory_has_none(emulator: RunningEmulator) -> None:
    """Nothing was made."""
    assert {"jobs": [], "models": []} == emulator.inventory()


def test_a_registered_model_is_there(
    emulator: RunningEmulator, workspace: WorkspaceRef, tmp_path: Path
) -> None:
    """With its version, and no job where it is not a job's."""
    from azure.ai.ml.entities import Model

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    ml_client(workspace).models.create_or_update(
        Model(path=str(tmp_path / "model"), name="m", version="3", tags={"a": "b"})
    )

    assert [{"name": "m", "version": "3", "job": None, "tags": {"a": "b"}}] == (
        emulator.inventory()["models"]
    )
