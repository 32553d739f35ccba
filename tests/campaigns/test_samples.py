"""Samples of the kill matrix and of the soak, as the commands run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


def _run(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
    )


@pytest.mark.parametrize(
    "case",
    [
        "in process | SIGKILL | during deploy",
        "serve | emulator SIGKILL | during the stream",
        "worker | UI cancel | during deploy",
    ],
)
def test_a_cell_of_the_kill_matrix_holds(tmp_path: Path, case: str) -> None:
    """One for each way to run a flow."""
    ran = _run(tmp_path / "out.jsonl", "campaigns.kills", "--only", case)

    assert 0 == ran.returncode, ran.stdout + ran.stderr[-3000:]
    # The SDK prints dots while it waits.
    assert ran.stdout.lstrip(".").startswith("held")


def test_two_minutes_of_soaking_leave_no_meter(tmp_path: Path) -> None:
    """The soak, at its shortest."""
    ran = _run(tmp_path / "out.jsonl", "campaigns.soak", "--minutes", "2")

    assert 0 == ran.returncode, ran.stdout + ran.stderr[-3000:]
