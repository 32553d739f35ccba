"""A job that trains for real survives its emulators, and they leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from azureml_emulator.emulator import Emulator
from azureml_emulator.server import Server
from azureml_emulator.services import runs, storage
from azureml_emulator.settings import Settings

from tests.conftest import RunningEmulator
from tests.emulator.submitting import STEPS, TRAIN, Jobs, body, jobs_catalog

ROWS = Path("demo/ultrachat/train_sft.jsonl")
INPUTS = {"max_steps": "30", "per_device_train_batch_size": "4", "apply_lora": "true"}
ENDS = [
    (signal.SIGKILL, 1.0),
    (signal.SIGTERM, 2.0),
    (signal.SIGINT, 4.0),
    (signal.SIGKILL, 8.0),
    (signal.SIGTERM, 12.0),
    (signal.SIGKILL, 16.0),
]


@pytest.mark.long
def test_a_job_outlives_emulators_that_end_at_any_second(tmp_path: Path) -> None:
    """SIGKILL, SIGTERM or Ctrl-C: no process stays, and the next emulator goes on to the end."""
    state, catalog = tmp_path / "state", jobs_catalog(tmp_path)
    _submit(state, catalog)
    command = [sys.executable, "-m", "azureml_emulator", "serve", "--state", str(state)]
    environ = {**os.environ, "AZUREML_EMULATOR_CACHE": str(tmp_path / "cache")}
    for number, seconds in ENDS:
        process = subprocess.Popen(
            [*command, "--catalog", catalog], env=environ, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"ready")
        time.sleep(seconds)
        process.send_signal(number)

        assert (-number if number == signal.SIGKILL else 0) == process.wait(20)
        assert [] == _processes(state, seconds=5.0 if number == signal.SIGKILL else 0.0)

    settings = Settings(state, catalog=catalog, cache=tmp_path / "cache")
    with Server(Emulator(settings)) as server:
        emulator = server.emulator
        end = time.monotonic() + 300
        while (status := runs.known_run(emulator, "ft-1")["status"]) not in ("Completed", "Failed"):
            assert time.monotonic() < end, status
            time.sleep(0.5)
        logs = [_log(emulator, key) for key in STEPS]
    assert "Completed" == status, logs
    assert [] == _processes(state, seconds=0.0)
    assert not any((state / "steps").iterdir())


def _submit(state: Path, catalog: str) -> None:
    """Leave a job in the state folder that begins with the next emulator."""
    settings = Settings(state, jobs="scripted", latency="manual", catalog=catalog)
    with Server(Emulator(settings)) as server:
        jobs = Jobs(RunningEmulator(server))
        jobs.upload(TRAIN, ROWS.read_text(encoding="utf-8"))
        jobs.submit("ft-1", body(INPUTS))


def _log(emulator: Emulator, key: str) -> str:
    blob = runs.log_blob(runs.child_id("ft-1", key), runs.STEP_LOG)
    return (storage.read_blob(emulator, runs.ARTIFACTS, blob) or b"").decode()


def _processes(state: Path, *, seconds: float) -> list[str]:
    """Return the containers of the state folder that run still after *seconds* at most."""
    end = time.monotonic() + seconds
    while True:
        listed = subprocess.run(
            ["ps", "-axww", "-o", "stat=,args="], capture_output=True, text=True, check=True
        )
        found = [line for line in listed.stdout.splitlines() if f"{state}/steps" in line]
        if not found or time.monotonic() >= end:
            return found
        time.sleep(0.02)
