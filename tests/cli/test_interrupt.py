"""Ctrl-C, and a plain kill, at a bad moment: a real signal to a real process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

# Long enough for a signal to land inside, short enough to wait for.
SECONDS = {
    "endpoint.create": 3.0,
    "endpoint.update": 0.2,
    "endpoint.delete": 1.0,
    "deployment.create": 4.0,
    "deployment.delete": 0.5,
    "compute.create": 0.2,
    "job.queue": 0.2,
    "job.prepare": 0.2,
    "job.step": 0.5,
    "job.finalize": 0.2,
    "job.cancel": 0.5,
}

MOMENTS = {
    "while the job is submitted": ("PUT", r"/jobs/ft-[^/]+$"),
    "while the job runs": ("GET", r"/history/.*/runs/ft-[^/]+"),
    "while the endpoint is created": ("PUT", r"/onlineEndpoints/[^/]+$"),
    "while the model is deployed": ("PUT", r"/onlineEndpoints/[^/]+/deployments/[^/]+$"),
}


@pytest.fixture
def slow_emulator(start_emulator: Callable[..., Any], tmp_path: Path) -> Any:
    """An emulator on which each thing takes a moment."""
    latency = tmp_path / "latency.yaml"
    latency.write_text(json.dumps(SECONDS))
    return start_emulator(latency=str(latency))


@pytest.mark.parametrize(
    "moment",
    [
        "while the job is submitted",
        pytest.param("while the job runs", marks=pytest.mark.long),
        pytest.param("while the endpoint is created", marks=pytest.mark.long),
        "while the model is deployed",
    ],
)
def test_ctrl_c_leaves_nothing_behind(
    slow_emulator: Any, prefect_server: str, tmp_path: Path, moment: str
) -> None:
    """Exit 130, the job ended, the endpoint seen gone, no meter open."""
    process, report = _start(tmp_path)
    _await_request(slow_emulator, process, *MOMENTS[moment])

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)

    document = json.loads(report.read_text())
    assert (130, "Interrupted") == (process.returncode, document["state"]), said
    assert [] == document["still_billing"]
    assert [] == _settled_meters(slow_emulator)


@pytest.mark.long
def test_a_second_ctrl_c_does_not_cut_the_cleanup_off(
    slow_emulator: Any, prefect_server: str, tmp_path: Path
) -> None:
    """An impatient person, and a supervisor's SIGTERM, still leave no endpoint."""
    process, report = _start(tmp_path)
    _await_request(slow_emulator, process, *MOMENTS["while the model is deployed"])

    process.send_signal(signal.SIGINT)
    _await_request(slow_emulator, process, "DELETE", r"/onlineEndpoints/[^/]+$")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=90)

    assert 130 == process.returncode, said
    assert True is json.loads(report.read_text())["endpoint"]["deleted"]
    assert [] == _settled_meters(slow_emulator)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param("while the job is submitted", signal.SIGTERM, marks=pytest.mark.long),
        ("while the job runs", signal.SIGHUP),
    ],
)
def test_a_plain_kill_ends_the_job_too(
    slow_emulator: Any, prefect_server: str, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    """Nobody comes back for the job of a command line: SIGTERM and a closed terminal cancel it."""
    process, report = _start(tmp_path)
    _await_request(slow_emulator, process, *MOMENTS[moment])

    process.send_signal(number)
    _, said = process.communicate(timeout=90)

    document = json.loads(report.read_text())
    assert (130, [], "Canceled") == (
        process.returncode,
        document["still_billing"],
        _job_status(slow_emulator),
    ), said
    assert [] == _settled_meters(slow_emulator)


def test_ctrl_c_on_a_terminal_does_not_take_the_prefect_server_away(
    slow_emulator: Any, tmp_path: Path
) -> None:
    """It reaches the whole process group; the run's own server stays until the run has ended."""
    process, report = _start(tmp_path, PREFECT_API_URL="", PREFECT_HOME=str(tmp_path / "prefect"))
    _await_request(slow_emulator, process, *MOMENTS["while the job runs"])

    os.killpg(process.pid, signal.SIGINT)
    interrupted = time.monotonic()
    _, said = process.communicate(timeout=90)

    assert (130, "Interrupted") == (process.returncode, json.loads(report.read_text())["state"])
    assert "Connection refused" not in said
    assert "All connection attempts failed" not in said
    assert time.monotonic() - interrupted < 45
    assert [] == _settled_meters(slow_emulator)


def test_a_kill_takes_the_runs_own_prefect_server_along(slow_emulator: Any, tmp_path: Path) -> None:
    """After SIGKILL nothing can be cleaned up, but no process of the run lives on."""
    process, _ = _start(tmp_path, PREFECT_API_URL="", PREFECT_HOME=str(tmp_path / "prefect"))
    _await_request(slow_emulator, process, *MOMENTS["while the job runs"])
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("server" in child.cmdline() for child in children)

    process.kill()
    process.communicate(timeout=10)

    _, alive = psutil.wait_procs(children, timeout=10)
    assert [] == alive


def _job_status(emulator: Any) -> str:
    """Return the state of the only job that there is."""
    (job,) = [run for run in emulator.server.emulator.store.list("run") if run["parent"] is None]
    return str(job["status"])


def _start(tmp_path: Path, **variables: str) -> tuple[subprocess.Popen[str], Path]:
    report = tmp_path / "report.json"
    environ = {**os.environ, "FINETUNE_CACHE": str(tmp_path / "cache"), **variables}
    command = [sys.executable, "-m", "cli", "run", "--config", "profiles/local.yaml"]
    command += ["--set", "compute.idle_seconds_before_scale_down=1"]
    process = subprocess.Popen(
        [*command, "--report", str(report)],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return process, report


def _await_request(
    emulator: Any, process: subprocess.Popen[str], method: str, path: str, seconds: float = 90
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rows = emulator.requests()
        if any(row["method"] == method and re.search(path, row["path"]) for row in rows):
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError(f"no {method} {path} within {seconds} s")


def _settled_meters(emulator: Any) -> list[str]:
    """Return the open meters; the cluster's nodes are given their idle time to go."""
    end = time.monotonic() + 10
    while (left := emulator.open_meters()) and time.monotonic() < end:
        time.sleep(0.2)
    return list(left)
