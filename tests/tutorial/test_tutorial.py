"""Microsoft's own script runs on the emulator as it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator import settings

HERE = Path(__file__).parent


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    """A folder with the script and its helper, and nothing else."""
    folder = tmp_path / "tutorial"
    folder.mkdir()
    for name in ("tutorial.py", "download-dataset.py"):
        shutil.copy(HERE / name, folder)
    return folder


def test_the_script_names_the_workspace_of_the_emulator() -> None:
    """Its placeholders are filled with the emulator's names, whatever those become."""
    script = (HERE / "tutorial.py").read_text(encoding="utf-8")

    assert f'subscription_id="{settings.SUBSCRIPTION_ID}"' in script
    assert f'resource_group_name="{settings.RESOURCE_GROUP}"' in script
    assert f'workspace_name="{settings.WORKSPACE_NAME}"' in script


def test_the_tutorial_runs_top_to_bottom(
    tutorial: Path, tmp_path: Path, start_emulator: Callable[..., Any]
) -> None:
    """A reply is shown, the model registered, the endpoint deleted, and nothing is billed."""
    state = tmp_path / "emulator"
    done = run_tutorial(tutorial, state)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Phi-3-mini-4k-instruct-ultrachat-bs8-cosine-ds2-lora-save_limit-1-seqlen-1" in (
        done.stdout
    )
    assert shown_reply(done.stdout)

    left = start_emulator(catalog="2024")
    assert ["Phi-3-mini-4k-instruct-ultrachat-200k"] == _names("models")
    assert [] == _names("online_endpoints")
    assert {"compute", "deployment", "endpoint"} <= {
        meter["kind"] for meter in left.ledger()["meters"]
    }
    assert [] == left.open_meters()


def run_tutorial(folder: Path, state: Path) -> subprocess.CompletedProcess[str]:
    """Run the script as a person would, in its own folder, on an emulator of its own."""
    emulator = [sys.executable, "-m", "azureml_emulator", "exec", "--state", str(state)]
    choices = ["--jobs", "scripted", "--catalog", "2024"]
    # The script starts its helper with `python`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [*emulator, *choices, "--", "python", "tutorial.py"],
        cwd=folder,
        check=False,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=180,
    )


def shown_reply(output: str) -> str:
    """Return what the script prints of the endpoint's answer."""
    _, _, rest = output.partition("raw response:")
    return rest.strip()


def _names(operations: str) -> list[str]:
    """Return the names of what the workspace holds, as the SDK lists it."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    client = MLClient(
        DefaultAzureCredential(),
        settings.SUBSCRIPTION_ID,
        settings.RESOURCE_GROUP,
        settings.WORKSPACE_NAME,
    )
    return [entity.name for entity in getattr(client, operations).list()]
