"""Flows in this very process, one after another, each on an emulator with no memory.

The SDK reads the cloud's addresses once, at its import: so every emulator of a process has the same
port, and the environment is set before anything is imported that reads it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from azureml_emulator.control import Control
from azureml_emulator.emulator import Emulator
from azureml_emulator.environment import client_environment
from azureml_emulator.server import Server
from azureml_emulator.settings import Settings

from .front import Change, Front
from .stage import PROFILE, free_port, heed_signals, prefect_server

# One endpoint with one deployment, one question; the cluster is the run's own, and goes with it.
SETTINGS = (
    "evaluation.baseline=false",
    "evaluation.conversations=1",
    "compute.delete_after=true",
    "endpoint.request_timeout_seconds=5",
)
# Seconds in which whoever answers here answers; Azure is given a minute.
READ_SECONDS = 5


class Ran(NamedTuple):
    """One ``finetune run``."""

    code: int
    report: dict[str, Any]


class Ground:
    """Where runs of this process take place.

    Args:
        folder: For everything that they write.
        environ: What they are given beside the emulator's variables.
        log: Where what they print goes.
        port: Of its emulators.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], log: TextIO, port: int) -> None:
        self._folder = folder
        self._environ = {**environ, "FINETUNE_CACHE": str(folder / "cache")}
        self._log = log
        self._port = port
        # One folder, so that the certificates stay where the clients of this process know them.
        self._state = folder / "emulator"

    @contextmanager
    def emulator(self, change: Change | None = None) -> Iterator[Control]:
        """Run an emulator with no memory for the block; the environment leads to it.

        Args:
            change: What a front before it does to each answer; None for no front.
        """
        from lifecycle.clients import forget

        for old in self._state.glob("*"):
            if old.is_dir() and old.name != "tls":
                shutil.rmtree(old)
            elif old.is_file():
                old.unlink()
        port = self._port if change is None else 0
        settings = Settings(self._state, port=port, jobs="scripted", latency="instant")
        with ExitStack() as stack:
            server = stack.enter_context(Server(Emulator(settings)))
            made = server.emulator.certificates
            if change is not None:
                front = Front(
                    self._port,
                    server.port,
                    chain=made.chain,
                    key=made.key,
                    bundle=made.bundle,
                    change=change,
                )
                stack.enter_context(front)
            mine = {
                name: value.replace(server.url, f"https://localhost:{self._port}")
                for name, value in client_environment(server, os.environ).items()
            }
            os.environ.clear()
            os.environ.update({**mine, **self._environ})
            forget()
            yield Control(server.url, made.bundle)

    def run(self, *settings: str) -> Ran:
        """Run ``finetune run`` on the local profile; a Ctrl-C ends more than the run."""
        from cli.main import main
        from lifecycle.report import EXIT_CODES

        path = self._folder / "report.json"
        path.unlink(missing_ok=True)
        words = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
        with redirect_stdout(self._log), redirect_stderr(self._log):
            code = main(["run", "--config", str(PROFILE), "--report", str(path), *words])
        if code == EXIT_CODES["Interrupted"]:
            raise KeyboardInterrupt  # It was the campaign that was to stop.
        return Ran(code, json.loads(path.read_text(encoding="utf-8")))


@contextmanager
def ground(log: Path) -> Iterator[Ground]:
    """Start a Prefect server, and give the ground for runs of this process.

    Args:
        log: Where what the runs print goes.
    """
    heed_signals()
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="finetune-campaign-") as name,
        prefect_server(Path(name) / "prefect") as prefect,
        log.open("a", encoding="utf-8") as file,
    ):
        environ = {
            "PREFECT_HOME": str(Path(name) / "prefect"),
            "PREFECT_API_URL": prefect.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "FINETUNE_READ_SECONDS": str(READ_SECONDS),
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(READ_SECONDS),
        }
        os.environ.update(environ)
        with redirect_stderr(file):
            yield Ground(Path(name), environ, file, free_port())
