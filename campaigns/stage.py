"""What a campaign plays on: a Prefect server, an emulator, and ways to end and return each."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from azureml_emulator.control import Control

T = TypeVar("T")

PROFILE = Path("profiles/local.yaml")
START_SECONDS = 120.0


class Patience(Exception):
    """Raised when something that was waited for did not come; says what."""


class PrefectServer:
    """A real Prefect server, with a home of its own, that can be killed and come back.

    Args:
        home: Its folder, kept over a return.
        port: On 127.0.0.1.
    """

    def __init__(self, home: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api"
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        port = str(urlsplit(self.url).port)
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", port]
        environ = {
            **_without_prefect(os.environ),
            "PREFECT_HOME": str(self._home),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        answered(f"{self.url}/health", self._process)

    def kill(self) -> None:
        """End it as a lost machine does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        ended(self._process, 30)


class EmulatorProcess:
    """An emulator in a process of its own, that can be killed and come back on its port.

    Args:
        state: Its folder, kept over a return.
        port: On 127.0.0.1.
        latency: What ``--latency`` takes.
    """

    def __init__(self, state: Path, port: int, latency: str) -> None:
        self.url = f"https://localhost:{port}"
        self.state = state
        words = ["serve", "--state", str(state), "--port", str(port)]
        self._command = [sys.executable, "-m", "azureml_emulator", *words]
        self._command += ["--jobs", "scripted", "--latency", latency]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Control:
        """Start it, and return its control routes when it answers."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "serve.log").open("a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("ready"):
            raise Patience(f"the emulator did not start: {(self.state / 'serve.log').read_text()}")
        return Control(self.url, Path(self.environ()["SSL_CERT_FILE"]))

    def environ(self) -> dict[str, str]:
        """Return the variables that lead a client here, as ``client.env`` has them."""
        lines = (self.state / "client.env").read_text(encoding="utf-8").splitlines()
        words = [shlex.split(line) for line in lines if line.startswith("export ")]
        return dict(word[1].split("=", 1) for word in words)

    def kill(self) -> None:
        """End it as a lost machine does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            ended(self._process, 10)


@contextmanager
def prefect_server(home: Path, port: int = 0) -> Iterator[PrefectServer]:
    """Run a Prefect server for the block."""
    server = PrefectServer(home, port or free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()


def heed_signals() -> None:
    """Heed SIGINT and SIGHUP, which a command that is started in the background ignores.

    What it starts would ignore them as well.
    """
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answered(url: str, process: subprocess.Popen[Any]) -> None:
    """Wait until *url* answers.

    Raises:
        Patience: The process ended, or nothing answered within two minutes.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def look() -> bool | None:
        if process.poll() is not None:
            raise Patience(f"the server behind {url} ended; its log says why")
        try:
            with direct.open(url, timeout=2):
                return True
        except OSError:
            return None

    awaited(look, START_SECONDS, lambda: f"{url} answers")


def awaited(
    look: Callable[[], T | None], seconds: float, said: Callable[[], str], every: float = 0.2
) -> T:
    """Return what *look* sees, as soon as it sees something.

    Args:
        look: Returns None while there is nothing to see.
        seconds: How long to look.
        said: What was waited for, for the error.
        every: Seconds from look to look.

    Raises:
        Patience: It saw nothing in that time.
    """
    end = time.monotonic() + seconds
    while (seen := look()) is None:
        if time.monotonic() >= end:
            raise Patience(f"not within {seconds:g} s: {said()}")
        time.sleep(every)
    return seen


def ended(process: subprocess.Popen[Any], seconds: float) -> int:
    """Wait for the process to end, kill it after so many seconds, and return its exit code."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def flow_processes(root: int) -> list[int]:
    """Return the ids of the processes below *root* that run flows now."""
    mine, found = {root}, []
    for pid, parent, command in sorted(processes()):
        if parent in mine:
            mine.add(pid)
            if re.search(r"spawn_main|-m prefect\.(flow_)?engine", command):
                found.append(pid)
    return found


def processes() -> list[tuple[int, int, str]]:
    """Return id, parent and command of every process; `ps` takes this on Linux and macOS."""
    command = ["ps", "-axww", "-o", "pid=,ppid=,command="]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in said.splitlines()]
    return [(int(row[0]), int(row[1]), row[2]) for row in rows if len(row) == 3]


def _without_prefect(environ: Any) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("PREFECT_")}
