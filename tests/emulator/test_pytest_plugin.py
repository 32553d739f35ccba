"""The pytest plugin: what the README shows to others works, in a pytest of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import RunningEmulator

PLUGIN = "azureml_emulator.pytest_plugin"
EMULATOR = Path(__file__).parents[2] / "emulator"


def test_the_readmes_tests_pass_where_the_plugin_is_installed(tmp_path: Path) -> None:
    """Two tests as a reader would copy them, in an empty folder, by the environment alone."""
    readme = (EMULATOR / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## In pytest")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "test_readme.py").write_text(block)
    path = os.pathsep.join([str(_installed(tmp_path / "site")), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def _installed(folder: Path) -> Path:
    """Write what an installation of the package tells pytest, and return the folder to look in."""
    project = tomllib.loads((EMULATOR / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (entry,) = project["entry-points"]["pytest11"].items()
    told = folder / "azureml_emulator-0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: azureml-emulator\nVersion: 0\n")
    (told / "entry_points.txt").write_text(f"[pytest11]\n{' = '.join(entry)}\n")
    return folder


def test_the_plugin_goes_by_its_modules_name() -> None:
    """Under that name it is loaded once, also where -p or a conftest asks for it."""
    project = tomllib.loads((EMULATOR / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {PLUGIN: PLUGIN} == project["entry-points"]["pytest11"]


def test_the_plugin_costs_nothing_where_it_is_not_used() -> None:
    """It is loaded in every session of pytest: no server, no web framework with it."""
    code = f"import sys, {PLUGIN}; print([m for m in ('uvicorn', 'starlette') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]\n" == done.stdout


def test_time_by_hand_and_a_restart(start_azureml_emulator: Callable[..., RunningEmulator]) -> None:
    """A latency table is given as it is; what waits is listed, outlives a restart, is released."""
    table: dict[str, Any] = {"*": "immediate", "endpoint": "manual"}
    first = start_azureml_emulator(latency=table)
    kept = first.server.emulator
    kept.schedule("endpoint.nothing", "/chat-1", after=kept.latency.seconds("endpoint.create"))
    waiting = first.timeline()
    first.server.stop()
    again = start_azureml_emulator(latency=table)
    again.server.emulator.appliers["endpoint.nothing"] = lambda within, event: None

    assert [{"kind": "endpoint.nothing", "resource": "/chat-1", "due": None}] == waiting
    assert waiting == again.timeline()
    assert [{"kind": "endpoint.nothing", "resource": "/chat-1"}] == again.release("endpoint")
    assert [] == again.timeline()
