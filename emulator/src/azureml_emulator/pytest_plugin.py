"""Fixtures for tests against the emulator; pytest finds them where the package is installed.

``azureml_emulator`` is an emulator of the test's own, and the environment leads to it;
``start_azureml_emulator`` starts one with settings of the test's choice. Either is a
:class:`RunningEmulator`, which sets faults, moves time and reads the ledger.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .control import Control

if TYPE_CHECKING:
    from .clock import Clock
    from .server import Server


class RunningEmulator(Control):
    """An emulator of this process that listens, and its control routes.

    Attributes:
        server: What listens; ``stop()`` ends it, and another may be started on its state.
        url: ``https://localhost:PORT``.
        state: The folder with everything that it keeps.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server.url, server.emulator.certificates.bundle)
        self.server = server
        self.state: Path = server.emulator.settings.state


@pytest.fixture(scope="session")
def azureml_emulator_port() -> int:
    """One port for the session: the SDK reads the cloud's addresses once, at import."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def start_azureml_emulator(
    azureml_emulator_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RunningEmulator]]:
    """Start this test's emulator: ``start(clock=…, jobs=…, latency=…, catalog=…)``.

    What it takes are the fields of :class:`~azureml_emulator.settings.Settings`; jobs are scripted
    if nothing else is said, and ``latency`` may also be the table that its file would hold. A test
    that has stopped one may start another, which goes on with the same state. Variables of
    Prefect's stay as they are.
    """
    from .emulator import Emulator
    from .environment import client_variables, foreign_variables
    from .server import Server
    from .settings import Settings

    servers: list[Server] = []

    def start(
        clock: Clock | None = None,
        latency: str | Mapping[str, str | float] = "instant",
        **choices: Any,
    ) -> RunningEmulator:
        if not isinstance(latency, str):
            table = tmp_path / "azureml-emulator-latency.yaml"
            table.write_text(json.dumps(latency), encoding="utf-8")
            latency = str(table)
        choices = {"jobs": "scripted", "latency": latency, **choices}
        settings = Settings(tmp_path / "emulator", port=azureml_emulator_port, **choices)
        server = Server(Emulator(settings, clock=clock))
        server.start()
        servers.append(server)
        for name in foreign_variables(os.environ):
            if not name.startswith("PREFECT_"):
                monkeypatch.delenv(name)
        for name, value in client_variables(server).items():
            if not name.startswith("PREFECT_"):
                monkeypatch.setenv(name, value)
        return RunningEmulator(server)

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def azureml_emulator(start_azureml_emulator: Callable[..., RunningEmulator]) -> RunningEmulator:
    """An emulator with scripted jobs, where every change is done at once."""
    return start_azureml_emulator()
