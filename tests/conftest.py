"""What every test may use: an emulator of its own, and an environment that reaches nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from azureml_emulator.pytest_plugin import RunningEmulator

from campaigns import stage
from lifecycle.clients import WorkspaceRef, forget

pytest_plugins = ["tests.reports", "tests.stage"]


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a Prefect of its own, before Prefect is imported and reads it once."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="finetune-tests-")
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{stage.free_port()}/api"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    stage.heed_signals()


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
    home, port = Path(os.environ["PREFECT_HOME"]), urlsplit(os.environ["PREFECT_API_URL"]).port
    assert port is not None
    with stage.prefect_server(home, port) as server:
        yield server.url
