"""The commands that the pages show can be typed."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator.environment import client_environment
from azureml_emulator.pytest_plugin import RunningEmulator
from prefect import get_client

from deployments.definitions import ALL, SWEEP

PAGES = [Path("README.md"), *sorted(Path("docs").rglob("*.md"))]
COMMANDS = sorted(
    {
        command
        for page in PAGES
        for command in re.findall(
            r"python -m (deployments\.[^`#|\n]+)", page.read_text(encoding="utf-8")
        )
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_a_page_shows_is_there(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the commands of ours that set up and serve; what they read is in the checkout."""
    module, *words = command.split()
    with pytest.raises(SystemExit):
        importlib.import_module(module).main(["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))

    assert set() == {word for word in words if word.startswith("--")} - known
    assert [] == [
        word
        for word in words
        if re.match("(profiles|deployments)/", word) and not Path(word).exists()
    ]


@pytest.fixture
def server(prefect_server: str) -> Iterator[Any]:
    """A Prefect server, on which nothing of the product is left afterwards."""
    with get_client(sync_client=True) as client:
        yield client
        for name in ALL:
            client.delete_deployment(client.read_deployment_by_name(name).id)
        for automation in client.read_automations():
            if automation.name.startswith("finetune: "):
                client.delete_automation(automation.id)


@pytest.mark.long
def test_the_step_by_step_leads_to_a_run(server: Any, emulator: RunningEmulator) -> None:
    """The block as it is written, in this checkout; the worker it starts runs what is scheduled."""
    page = Path("docs/deployments.md").read_text(encoding="utf-8")
    block = page.partition("## Step by step")[2].split("```")[1]
    *steps, worker = [line for line in block.splitlines() if line and "export" not in line]
    environ = client_environment(emulator.server, os.environ) | {
        name: value for name, value in os.environ.items() if name.startswith("PREFECT_")
    }
    environ.pop("FINETUNE_HOME", None)

    def type_in(line: str) -> None:
        typed = line.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        said = subprocess.run(
            ["bash", "-c", typed],
            env=environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == said.returncode, f"{line}\n{said.stdout}\n{said.stderr}"

    for line in steps:
        type_in(line)
    run = server.create_flow_run_from_deployment(server.read_deployment_by_name(SWEEP).id)
    type_in(f"{worker} --run-once")

    state = server.read_flow_run(run.id).state
    assert ("COMPLETED", "Completed") == (state.type.value, state.name), state
