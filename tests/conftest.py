"""What every test may use: an emulator of its own, and an environment that reaches nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
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
from azureml_emulator.pytest_plugin import RunningEmulator

from lifecycle.clients import WorkspaceRef, forget

pytest_plugins = ["tests.stage"]


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a Prefect of its own, before Prefect is imported and reads it once."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="finetune-tests-")
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{_free_port()}/api"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    # A suite that is started in the background ignores them, and what it starts would as well.
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take the session's Prefect away."""
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture
def start_emulator(
    start_azureml_emulator: Callable[..., RunningEmulator],
) -> Iterator[Callable[..., RunningEmulator]]:
    """Start this test's emulator, with settings of its own, and no client of an earlier one."""

    def start(**choices: Any) -> RunningEmulator:
        running = start_azureml_emulator(**choices)
        forget()
        return running

    yield start
    forget()


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
        server.wait(timeout=120)


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
