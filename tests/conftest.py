"""What every test may use: an emulator of its own, and an environment that reaches nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from azureml_emulator.clock import Clock
from azureml_emulator.emulator import Emulator
from azureml_emulator.environment import client_variables, foreign_variables
from azureml_emulator.server import Server
from azureml_emulator.settings import Settings

from lifecycle.clients import WorkspaceRef, forget


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a Prefect of its own, before Prefect is imported and reads it once."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="finetune-tests-")
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{_free_port()}/api"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take the session's Prefect away."""
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


class RunningEmulator:
    """A server of this test's own, and its control routes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.url
        self.state: Path = server.emulator.settings.state
        self._trust = ssl.create_default_context(cafile=str(server.emulator.certificates.bundle))

    def ledger(self) -> dict[str, Any]:
        """Return every meter."""
        return self._control("GET", "ledger")

    def open_meters(self) -> list[str]:
        """Return the names of what is still billed."""
        return [row["resource"] for row in self.ledger()["meters"] if row["stopped"] is None]

    def requests(self) -> list[dict[str, Any]]:
        """Return every request so far, oldest first."""
        rows: list[dict[str, Any]] = self._control("GET", "requests")["requests"]
        return rows

    def faults(self, *rules: dict[str, Any]) -> None:
        """Replace the fault rules."""
        self._control("PUT", "faults", {"rules": list(rules)})

    def advance(self, seconds: float) -> None:
        """Move the clock of an emulator started with ``latency="manual"``."""
        self._control("POST", "advance", {"seconds": seconds})

    def _control(self, method: str, name: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_emulator/{name}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, context=self._trust) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def emulator_port() -> int:
    """One port for the session: the SDK reads the cloud's addresses once, at import."""
    return _free_port()


@pytest.fixture
def start_emulator(
    emulator_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RunningEmulator]]:
    """Start this test's emulator, with settings of its own."""
    servers: list[Server] = []

    def start(clock: Clock | None = None, **choices: Any) -> RunningEmulator:
        settings = Settings(
            tmp_path / "emulator", port=emulator_port, **{"jobs": "scripted", **choices}
        )
        server = Server(Emulator(settings, clock=clock))
        server.start()
        servers.append(server)
        for name in foreign_variables(os.environ):
            if not name.startswith("PREFECT_"):
                monkeypatch.delenv(name)
        for name, value in client_variables(server).items():
            if not name.startswith("PREFECT_"):
                monkeypatch.setenv(name, value)
        forget()
        return RunningEmulator(server)

    yield start
    forget()
    for server in servers:
        server.stop()


@pytest.fixture
def emulator(start_emulator: Callable[..., RunningEmulator]) -> RunningEmulator:
    """An emulator with scripted jobs, instant latency and today's catalogue."""
    return start_emulator()


@pytest.fixture
def workspace(emulator: RunningEmulator) -> WorkspaceRef:
    """The emulator's workspace."""
    from azureml_emulator import settings as names

    return WorkspaceRef(
        subscription_id=names.SUBSCRIPTION_ID,
        resource_group=names.RESOURCE_GROUP,
        name=names.WORKSPACE_NAME,
    )


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """A real Prefect server for the session, with a home of its own; gives its API's URL."""
    from prefect.logging.configuration import setup_logging

    # Now, that Prefect's console writes to what stays open, and not to one test's capture.
    setup_logging()
    url = os.environ["PREFECT_API_URL"]
    port = str(urlsplit(url).port)
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", port]
    with (Path(os.environ["PREFECT_HOME"]) / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(f"{url}/health", server)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None, "the Prefect server ended; its log says why"
        assert time.monotonic() < end, "the Prefect server did not answer within two minutes"
        try:
            with direct.open(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
