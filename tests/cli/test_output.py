"""What cannot be shown or written never hides what may still be billing, nor how a verb ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cli import run
from cli.main import main

LOCAL = ("--config", "profiles/local.yaml")
QUICK = (
    "compute.idle_seconds_before_scale_down=1",
    "evaluation.baseline=false",
    "evaluation.conversations=1",
)
# Azure does not take it, and will not.
NOT_DELETABLE = {
    "match": {"method": "DELETE", "path": "/onlineEndpoints/"},
    "effect": {"status": 409, "error": {"code": "ScopeLocked", "message": "It is locked."}},
}
FULL = Path("/dev/full")

needs_a_full_disk = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is Linux's")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep data sets out of the user's cache."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def start(prefect_server: str) -> Callable[..., subprocess.Popen[str]]:
    """Start a verb in a process of its own."""

    def begin(*words: str, **streams: Any) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen([sys.executable, "-m", "cli", *words], text=True, **streams)

    return begin


def run_words(report: Path) -> list[str]:
    """A quick run with a report."""
    settings = [word for one in QUICK for word in ("--set", one)]
    return ["run", *LOCAL, "--report", str(report), *settings]


@needs_a_full_disk
def test_a_report_that_cannot_be_written_is_a_warning(
    emulator: Any, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Its folder has gone, the disk is full: what may still be billing is named, and exit 3."""
    emulator.faults(NOT_DELETABLE)
    folder = tmp_path / "gone"
    folder.mkdir()
    with FULL.open("w") as full:
        process = start(*run_words(folder / "report.json"), stdout=full)
        await_file(folder / "report.json")
        shutil.rmtree(folder)
        _, said = process.communicate(timeout=120)

    left = emulator.open_meters()
    assert 3 == process.returncode, said
    (name,) = re.findall("MAY STILL BE BILLING: onlineEndpoints/(.+)", said)
    assert name in str(left)
    assert "Something may still be billing" in said
    assert "The report is missing." in said
    assert "The page of the report is missing." in said
    assert "Traceback" not in said


@pytest.mark.long
def test_nobody_reads_the_log_and_the_run_cleans_up(
    emulator: Any, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """As `finetune run 2>&1 | head` does: neither rich nor the SDK ends the run over it."""
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*run_words(tmp_path / "report.json"), stdout=writing, stderr=writing)
    os.close(writing)
    code = process.wait(120)

    report = json.loads((tmp_path / "report.json").read_text())
    assert (0, "Completed", True) == (code, report["state"], report["endpoint"]["deleted"])
    assert [] == [one for one in emulator.open_meters() if "onlineEndpoints" in str(one)]


def test_a_page_that_cannot_be_made_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The JSON is written and says so; the exit code is that of the run."""

    def fail(report: object) -> NoReturn:
        raise LookupError("no such template")

    monkeypatch.setattr(run, "render", fail)
    report = tmp_path / "report.json"
    code = main(["run", *LOCAL, "--set", "modle.name=x", "--report", str(report)])

    said = capsys.readouterr().err
    assert 2 == code
    assert "refused, nothing was created [ConfigurationError]" in said
    assert "LookupError" in said
    assert any("page" in warning for warning in json.loads(report.read_text())["warnings"])


@needs_a_full_disk
@pytest.mark.long
def test_a_sweep_that_cannot_be_shown_names_what_is_left(
    emulator: Any, expired: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Exit 3 and the name, on standard error."""
    with FULL.open("w") as full:
        process = start("sweep", stdout=full)
        _, said = process.communicate(timeout=60)

    assert 3 == process.returncode, said
    assert "No space left on device" in said
    assert f"MAY STILL BE BILLING: onlineEndpoints/{expired}" in said


@needs_a_full_disk
def test_a_verb_whose_output_is_all_there_is_fails_with_it(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    """A script must not take half a document for a whole one: one sentence, and exit 1."""
    with FULL.open("w") as full:
        process = start("data", *LOCAL, "--json", stdout=full)
        _, said = process.communicate(timeout=60)

    assert 1 == process.returncode
    assert "finetune: standard output cannot be written: [Errno 28]" in said
    assert "Traceback" not in said


def await_file(path: Path) -> None:
    """Wait until the run has made sure that its report can be written."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
