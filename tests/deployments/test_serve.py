"""The local stack: one command, a retraining by itself, and a stop that leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from deployments.stack import Folder
from lifecycle.auth import VARIABLES
from lifecycle.clients import WorkspaceRef
from lifecycle.names import base32_id

T = TypeVar("T")

SECONDS = {
    "endpoint.create": 1.0,
    "endpoint.delete": 1.0,
    "endpoint.name_reuse": 0.0,
    "deployment.create": 2.0,
    "deployment.delete": 0.5,
    "compute.create": 0.2,
    "job.queue": 0.2,
    "job.prepare": 0.2,
    "job.step": 2.0,
    "job.finalize": 0.2,
    "job.cancel": 0.5,
}
JOB = r"/jobs/[^/]+$"


class Stack:
    """What `make serve` starts, with scripted jobs."""

    def __init__(self, folder: Path, retrain_every: float) -> None:
        self.folder = folder
        self.state = folder / "state"
        latency = folder / "latency.yaml"
        latency.write_text(json.dumps(SECONDS))
        emulator = ["exec", "--state", str(self.state / "emulator"), "--jobs", "scripted"]
        serve = ["--config", "profiles/tiny.yaml", "--state", str(self.state)]
        self.command = [
            *[sys.executable, "-m", "azureml_emulator", *emulator, "--latency", str(latency), "--"],
            *[sys.executable, "-m", "deployments.serve", *serve],
            *["--port", str(_free_port()), "--retrain-every", str(retrain_every)],
        ]
        self.log = folder / "log"
        self.process: psutil.Popen | None = None

    def start(self, **environ: str) -> None:
        """Start it in a process group of its own, as a terminal does."""
        with self.log.open("w") as log:
            self.process = psutil.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(sys.path),
                    "FINETUNE_CACHE": str(self.folder / "cache"),
                    **environ,
                },
            )

    def said(self) -> str:
        """Return what it has written on the terminal."""
        return self.log.read_text()

    def await_ready(self) -> str:
        """Wait for the page, and return the address of Prefect."""
        found = self.wait(lambda: re.search(r"^ready (\S+)", self.said(), re.MULTILINE))
        return found.group(1)

    def wait(self, look: Callable[[], T | None], seconds: float = 300) -> T:
        """Wait until *look* sees something."""
        end = time.monotonic() + seconds
        while not (seen := look()):
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)
        return seen

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask Prefect's API."""
        request = urllib.request.Request(
            f"{self.await_ready()}/api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(10):
            try:
                with direct.open(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as busy:  # As SQLite is at times; clients ask again.
                if busy.code != 503:
                    raise
                time.sleep(1)
        raise AssertionError("Prefect answered 503 ten times")

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Return the runs that Prefect has."""
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", {"flow_runs": filters})
        return found

    def processes(self) -> list[psutil.Process]:
        """Return all that it has started so far, itself included."""
        assert self.process is not None
        return [self.process, *self.process.children(recursive=True)]

    def stop(self, number: int, *, everyone: bool) -> int:
        """Send a signal, to the group as Ctrl-C does or to the first alone; the exit code."""
        assert self.process is not None
        started = self.processes()
        if everyone:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code: int = self.process.wait(timeout=300)
        _, left = psutil.wait_procs(started, timeout=10)
        assert [] == left, self.said()
        return code

    def open_meters(self) -> list[str]:
        """Return what is still billed, from the ledger that stays on the disk."""
        from azureml_emulator.emulator import Emulator
        from azureml_emulator.settings import Settings

        emulator = Emulator(Settings(self.state / "emulator", jobs="scripted"))
        meters = emulator.ledger.report(now=emulator.now())["meters"]
        return [
            row["resource"]
            for row in meters
            # A cluster's node has its idle time, which the emulator's end cuts short.
            if row["stopped"] is None and "onlineEndpoints" in row["resource"]
        ]


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[[float], Stack]]:
    """Make a stack; what a failed test leaves of it is killed."""
    made: list[Stack] = []

    def make(retrain_every: float = 3600) -> Stack:
        made.append(Stack(tmp_path, retrain_every))
        return made[-1]

    yield make
    for stack in made:
        if stack.process is not None and stack.process.is_running():
            for process in stack.processes():
                process.kill()


@pytest.mark.long
def test_a_retraining_comes_by_itself_and_ctrl_c_leaves_nothing(
    make_stack: Callable[[float], Stack], tmp_path: Path
) -> None:
    """Ready in one command; the first run needs nobody; Ctrl-C in mid-training cleans up."""
    before = set(tmp_path.iterdir())
    stack = make_stack(5)
    stack.start()
    url = stack.await_ready()
    assert "Open" in stack.said()
    assert 0o600 == (stack.state / "client.env").stat().st_mode & 0o777
    running = stack.wait(lambda: stack.runs(state={"type": {"any_": ["RUNNING"]}}))
    assert [True] == [run["auto_scheduled"] for run in running[:1]]
    stack.wait(lambda: _asked(stack, "PUT", JOB))

    code = stack.stop(signal.SIGINT, everyone=True)

    assert 0 == code, stack.said()
    assert "Cancelled, and waited for: " in stack.said()
    assert [("jobs", "Canceled")] == _jobs(stack)
    assert [] == stack.open_meters()
    assert _nobody_listens(url)
    assert {"state", "log", "latency.yaml", "cache"} >= {
        path.name for path in set(tmp_path.iterdir()) - before
    }
    assert not (stack.state / "client.env").exists()


@pytest.mark.long
@pytest.mark.parametrize("moment", ["at once", "server", "runner", "ready"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_it_may_be_stopped_at_any_moment(
    make_stack: Callable[[float], Stack], moment: str, number: signal.Signals
) -> None:
    """While it starts, too: nothing of it is left, and it says nothing odd."""
    stack = make_stack(3600)
    stack.start()
    seen: dict[str, Callable[[], Any]] = {
        "at once": lambda: True,
        "server": (stack.state / "logs" / "server.log").exists,
        "runner": (stack.state / "logs" / "runs.log").exists,
        "ready": stack.await_ready,
    }
    stack.wait(seen[moment])

    code = stack.stop(number, everyone=number is signal.SIGINT)

    # At once: before Python has a handler, the signal's own way.
    assert code in ((0,) if moment != "at once" else (0, 130, 143, -number)), stack.said()
    assert "Traceback" not in stack.said() or moment == "at once"


@pytest.mark.long
def test_a_stack_that_was_killed_comes_back_to_its_run(
    make_stack: Callable[[float], Stack],
) -> None:
    """SIGKILL: its processes go with it; started again, the run goes on with the job it had."""
    stack = make_stack(3600)
    stack.start()
    deployment = stack.ask("deployments/name/finetune-chat-model/finetune-on-demand")
    run = stack.ask(f"deployments/{deployment['id']}/create_flow_run", {})
    stack.wait(lambda: _asked(stack, "PUT", JOB))
    started = stack.processes()
    for process in started[:2]:  # The emulator, and the stack's own process.
        process.kill()
    _, left = psutil.wait_procs(started, timeout=20)
    assert [] == left

    stack.start()

    completed = ["COMPLETED"]
    # Found dead after three heartbeats, a minute each; started again 90 seconds later.
    stack.wait(
        lambda: stack.runs(id={"any_": [run["id"]]}, state={"type": {"any_": completed}}), 600
    )
    assert 0 == stack.stop(signal.SIGTERM, everyone=False)
    assert [("jobs", "Completed")] == _jobs(stack, run["id"])
    assert [] == stack.open_meters()


@pytest.mark.long
def test_a_stack_that_was_stopped_goes_on(make_stack: Callable[[float], Stack]) -> None:
    """It knows its runs, and its schedules are no longer paused."""
    stack = make_stack(5)
    stack.start()
    [first, *_] = stack.wait(lambda: stack.runs(state={"type": {"any_": ["RUNNING"]}}))
    assert 0 == stack.stop(signal.SIGTERM, everyone=False)

    stack.start()

    stack.wait(lambda: stack.runs(state={"type": {"any_": ["RUNNING"]}}))
    [known] = stack.runs(id={"any_": [first["id"]]})
    assert "CANCELLED" == known["state_type"]
    assert 0 == stack.stop(signal.SIGTERM, everyone=False)


@pytest.mark.long
def test_it_reaches_nothing_of_the_users(
    make_stack: Callable[[float], Stack], tmp_path: Path
) -> None:
    """Another Prefect in the environment, in a profile, and a proxy are not asked."""
    asked: list[str] = []
    decoy = _Decoy(asked)
    home = tmp_path / "home"
    (home / ".prefect").mkdir(parents=True)
    (home / ".prefect" / "profiles.toml").write_text(
        f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{decoy.url}/api"\n'
    )
    stack = make_stack(3600)
    stack.start(
        HOME=str(home),
        PREFECT_API_URL=f"{decoy.url}/api",
        PREFECT_API_KEY="secret",
        HTTP_PROXY=decoy.url,
        HTTPS_PROXY=decoy.url,
        http_proxy=decoy.url,
        https_proxy=decoy.url,
    )
    stack.await_ready()

    assert 0 == stack.stop(signal.SIGTERM, everyone=False)
    assert [] == asked
    assert ["profiles.toml"] == [path.name for path in (home / ".prefect").iterdir()]


def test_another_terminal_works_in_the_same_workspace(tmp_path: Path) -> None:
    """Whatever that shell knew before: a file or an option may have named the stack's."""
    ref = WorkspaceRef(subscription_id="s", resource_group="my group", name="ours")
    with Folder.held(tmp_path / "state") as folder:
        folder.write_client_env(folder.environment({}, "http://127.0.0.1:1/api"), ref)

        told = _sourced(folder.client_env)

    assert ("s", "my group", "ours") == tuple(told[name] for name in VARIABLES.values())
    assert "http://127.0.0.1:1/api" == told["PREFECT_API_URL"]


@pytest.mark.long
def test_without_the_emulator_the_workspace_is_the_options(
    make_stack: Callable[[float], Stack],
) -> None:
    """It is served, and told to other terminals, as it was named."""
    stack = make_stack(3600)
    named = [word for key in VARIABLES for word in ("--set", f"workspace.{key}=ours")]
    stack.command = stack.command[stack.command.index("--") + 1 :] + named
    stack.start()
    stack.await_ready()

    told = _sourced(stack.state / "client.env")

    assert {"ours"} == {told[name] for name in VARIABLES.values()}
    assert 0 == stack.stop(signal.SIGTERM, everyone=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Nothing names a workspace"),
        (["--set", "model.nam=x"], "did you mean 'name'?"),
        (["--port", "{taken}"], "--port {taken}: the port cannot be had"),
        (["--state", "/dev/null"], "--state /dev/null: the folder cannot be used"),
    ],
    ids=["workspace", "parameter", "port", "folder"],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    """With exit code 2 and one sentence, before anything is started."""
    named = ["subscription_id", "resource_group", "name"]
    workspace = [word for key in named for word in ("--set", f"workspace.{key}=x")]
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = str(busy.getsockname()[1])
        command = [
            *[sys.executable, "-m", "deployments.serve", "--config", "profiles/tiny.yaml"],
            *["--state", str(tmp_path / "state"), *(workspace if words else [])],
            *[word.format(taken=taken) for word in words],
        ]
        told = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert (2, "") == (told.returncode, told.stdout)
    assert said.format(taken=taken) in told.stderr
    assert 1 == len(told.stderr.splitlines())


class _Decoy:
    """A server on loopback that nobody should ask."""

    def __init__(self, asked: list[str]) -> None:
        import threading

        server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def accept() -> None:
            while True:
                connection, _ = server.accept()
                asked.append(connection.recv(200).decode(errors="replace"))
                connection.close()

        threading.Thread(target=accept, daemon=True).start()


def _sourced(path: Path) -> dict[str, str]:
    """Return the environment of a shell that knew another workspace and has read a file."""
    other = dict.fromkeys(VARIABLES.values(), "other")
    said = subprocess.run(
        ["sh", "-c", '. "$1" && env', "sh", str(path)],
        env={"PATH": os.environ["PATH"], **other},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in said.stdout.splitlines())


def _asked(stack: Stack, method: str, path: str) -> list[Any]:
    return [
        row
        for row in _rows(stack, "SELECT method, path FROM requests")
        if row["method"] == method and re.search(path, row["path"])
    ]


def _jobs(stack: Stack, of: str | None = None) -> list[tuple[str, str]]:
    """Return the jobs of a flow run, or all: the retraining of each start has one, too."""
    from azureml_emulator.emulator import Emulator
    from azureml_emulator.settings import Settings

    emulator = Emulator(Settings(stack.state / "emulator", jobs="scripted"))
    return [
        ("jobs", run["status"])
        for run in emulator.store.list("run")
        if run["parent"] is None and (of is None or run["id"].startswith(f"ft-{base32_id(of)}-"))
    ]


def _rows(stack: Stack, statement: str) -> list[Any]:
    import sqlite3

    path = stack.state / "emulator" / "emulator.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        return list(connection.execute(statement))


def _nobody_listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
