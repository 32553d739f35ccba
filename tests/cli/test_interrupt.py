"""Ctrl-C, and a plain kill, at a bad moment: a real signal to a real process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from azureml_emulator import settings

from lifecycle.clients import WorkspaceRef

from .conftest import make_expired

WORKSPACE = WorkspaceRef(
    subscription_id=settings.SUBSCRIPTION_ID,
    resource_group=settings.RESOURCE_GROUP,
    name=settings.WORKSPACE_NAME,
)

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
        pytest.param("while the job is submitted", marks=pytest.mark.long),
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


@pytest.mark.long
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


@pytest.mark.long
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


class Slow(BaseHTTPRequestHandler):
    """A source that gives 5 KB of rows a second, for a quarter of an hour."""

    rows = json.dumps({"messages": [{"role": "user", "content": "x" * 400}]}).encode() + b"\n"
    begun: threading.Event

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(5_000_000))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        try:
            while True:
                self.wfile.write((self.rows * 13)[:5120])
                self.begun.set()
                time.sleep(1)
        except OSError:
            return  # The reader has gone.

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def slow_source() -> Iterator[tuple[str, threading.Event]]:
    """The address of a slow source, and what is set once it has given something."""
    begun = threading.Event()
    handler = type("Handler", (Slow,), {"begun": begun})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", begun
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("verb", "ending", "number"),
    [
        ("run", "jsonl", signal.SIGINT),
        pytest.param("plan", "jsonl", signal.SIGTERM, marks=pytest.mark.long),
        ("data", "jsonl", signal.SIGINT),
        pytest.param("data", "csv", signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_a_slow_download_does_not_hold_a_ctrl_c_back(
    emulator: Any,
    prefect_server: str,
    tmp_path: Path,
    slow_source: tuple[str, threading.Event],
    verb: str,
    ending: str,
    number: signal.Signals,
) -> None:
    """It ends within seconds, says that nothing was created, and no half of a file is kept."""
    url, begun = slow_source
    words = [verb, "--config", "profiles/local.yaml"]
    words += ["--set", f"dataset.path={url}/{{split}}.{ending}", "--set", "dataset.rows=5000"]
    process = _begin(tmp_path, *words)
    assert begun.wait(60), process.communicate()

    process.send_signal(number)
    interrupted = time.monotonic()
    out, said = process.communicate(timeout=60)

    assert time.monotonic() - interrupted < 10, said
    assert 130 == process.returncode, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert "No job and no endpoint were made" in out if verb == "run" else "" == out
    assert [] == list((tmp_path / "cache").rglob("manifest.json"))
    assert [] == emulator.ledger()["meters"]


def test_a_sweep_that_is_interrupted_names_what_is_being_deleted(
    start_emulator: Callable[..., Any], tmp_path: Path
) -> None:
    """Asked to be deleted is not deleted: the name, exit 3, and no document that says otherwise."""
    latency = tmp_path / "latency.yaml"
    latency.write_text(json.dumps(dict.fromkeys(SECONDS, 0.0) | {"endpoint.delete": 60.0}))
    emulator = start_emulator(latency=str(latency))
    name = make_expired(WORKSPACE, "left-behind-a1")
    process = _begin(tmp_path, "sweep", "--apply", "--json")
    _await_request(emulator, process, "DELETE", f"/onlineEndpoints/{name}$")

    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=30)

    assert 3 == process.returncode, said
    assert f"finetune: MAY STILL BE BILLING: onlineEndpoints/{name}\n" in said
    assert "nothing" not in said
    assert "" == out


@pytest.mark.long
def test_a_sweep_that_is_killed_names_only_what_was_not_seen_gone(
    emulator: Any, tmp_path: Path
) -> None:
    """Of two endpoints one is gone, and the other's deletion is refused for now."""
    gone, left = (make_expired(WORKSPACE, f"left-behind-{which}-a1") for which in "ab")
    busy = {"status": 409, "body": '{"error": {"code": "Conflict", "message": "It is busy."}}'}
    emulator.faults({"match": {"method": "DELETE", "path": left}, "effect": busy})
    process = _begin(tmp_path, "sweep", "--apply")
    _await_request(emulator, process, "DELETE", f"/onlineEndpoints/{left}$", times=2)

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)

    assert 3 == process.returncode, said
    assert f"finetune: MAY STILL BE BILLING: onlineEndpoints/{left}\n" in said
    assert f"BILLING: onlineEndpoints/{gone}" not in said
    assert f"Endpoint {gone} is deleted." in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ("sweep",), "finetune: interrupted; nothing was changed\n", marks=pytest.mark.long
        ),
        (("sweep", "--apply"), "finetune: interrupted; all that was to go so far is gone; "),
        pytest.param(
            ("doctor",), "finetune: interrupted; nothing was created\n", marks=pytest.mark.long
        ),
        (("plan", "--config", "profiles/local.yaml"), "interrupted; nothing was created\n"),
    ],
)
def test_a_verb_that_is_interrupted_says_what_is_true_of_it(
    emulator: Any, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """While Azure is silent, and nothing was asked for yet: exit 130 at once."""
    emulator.faults({"match": {"path": "/workspaces/"}, "effect": {"hang": True}})
    process = _begin(tmp_path, *words)
    _await_request(emulator, process, "GET", "/workspaces/")

    process.send_signal(signal.SIGINT)
    _, heard = process.communicate(timeout=20)

    assert 130 == process.returncode, heard
    assert said in heard
    assert "Traceback" not in heard


def _job_status(emulator: Any) -> str:
    """Return the state of the only job that there is."""
    (job,) = [run for run in emulator.server.emulator.store.list("run") if run["parent"] is None]
    return str(job["status"])


def _begin(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """Start a verb whose output is read."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *words],
        env={**os.environ, "FINETUNE_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


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
    emulator: Any,
    process: subprocess.Popen[str],
    method: str,
    path: str,
    seconds: float = 90,
    times: int = 1,
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rows = emulator.requests()
        if times <= sum(
            row["method"] == method and bool(re.search(path, row["path"])) for row in rows
        ):
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
