"""``python -m deployments.serve --config FILE``: Prefect with these flows, until Ctrl-C.

It starts a Prefect server with its UI, serves what prefect.yaml deploys, makes the automations, and
says what to open. ``make serve`` runs it on the emulator; by itself it works against the workspace
that the configuration, the environment or config.json name. All that it keeps is in one folder.

Ctrl-C, SIGTERM and a closed terminal end it: what runs is cancelled, which cancels its job and
deletes its endpoint, and waited for. Exit codes: 0 stopped; 1 a part of it died; 2 refused, nothing
was started; 3 a run did not end in time, and what it made may still be billing (it is named).
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from lifecycle.auth import resolve_workspace
from lifecycle.clients import WorkspaceRef
from lifecycle.config import load_config
from lifecycle.errors import ConfigurationError, FinetuneError, Refused, ServiceError

from . import child
from .definitions import ROOT
from .stack import Folder

EXIT_STOPPED, EXIT_DIED, EXIT_REFUSED, EXIT_STILL_BILLING = 0, 1, 2, 3

PORT = 4200
CANCEL_SECONDS = 900.0
"""How long a stop waits for what it has cancelled."""

_POLL_SECONDS = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop, and return the exit code."""
    stop = _Stop()
    chosen = _parser().parse_args(arguments)
    chosen.config, chosen.state = chosen.config.resolve(), chosen.state.resolve()
    # Where prefect.yaml's entrypoints begin, and the data of the profiles.
    os.chdir(ROOT)
    try:
        workspace = resolve_workspace(load_config(chosen.config, chosen.set).workspace)
        return _serve(chosen, workspace, stop)
    except FinetuneError as error:
        print(f"serve: {error}", file=sys.stderr)
        return EXIT_REFUSED if isinstance(error, Refused) else EXIT_DIED


class _Stop:
    """Whether somebody has asked us to stop."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What is ignored (SIGHUP, under nohup) stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)

    def asked(self) -> bool:
        """Say whether it is so."""
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for it, at most so long."""
        return self._asked.wait(seconds)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deployments.serve", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument("--state", type=Path, default=Path("runs/serve"), metavar="DIR")
    parser.add_argument("--port", type=int, metavar="N", help=f"default: {PORT}, or any free one")
    parser.add_argument(
        "--retrain-every", type=float, metavar="SECONDS", help="default: prefect.yaml's schedule"
    )
    return parser


def _serve(chosen: argparse.Namespace, workspace: WorkspaceRef, stop: _Stop) -> int:
    port = _port(chosen.port)
    with ExitStack() as end:
        folder = end.enter_context(Folder.held(chosen.state))
        ui = f"http://{child.HOST}:{port}"
        environ = folder.environment(os.environ, f"{ui}/api")
        server = end.enter_context(_server(port, folder, environ, stop))
        if stop.asked():
            return EXIT_STOPPED
        # Before Prefect is imported, which reads it once.
        os.environ.clear()
        os.environ.update(environ)
        from .live_runs import crash_orphans

        crash_orphans()
        runner = end.enter_context(_runner(chosen, folder, environ, stop))
        if not stop.asked():
            _welcome(ui, folder, workspace, chosen.retrain_every)
        while not stop.wait(_POLL_SECONDS):
            for what, process in (("The Prefect server", server), ("What runs the flows", runner)):
                if process.poll() is not None:
                    raise ServiceError(
                        f"{what} has ended.",
                        where=str(folder.logs),
                        remedy="Started again it comes back to what ran; `finetune sweep` shows "
                        "what is left.",
                    )
        return _stop(runner)


def _welcome(ui: str, folder: Folder, workspace: WorkspaceRef, retrain_every: float | None) -> None:
    from .automations import ensure_automations
    from .page import page

    ensure_automations()
    folder.write_client_env(os.environ, workspace)
    print(page(ui, folder, os.environ, retrain_every), flush=True)


def _stop(runner: subprocess.Popen[bytes]) -> int:
    from .live_runs import cancel_runs

    print("Stopping.", flush=True)
    left = cancel_runs(CANCEL_SECONDS, lambda: runner.poll() is None)
    for name in left:
        print(f"serve: MAY STILL BE BILLING: what the run {name} made", file=sys.stderr)
    return EXIT_STILL_BILLING if left else EXIT_STOPPED


@contextmanager
def _server(
    port: int, folder: Folder, environ: dict[str, str], stop: _Stop
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder.logs / "server.log").open("w+b") as log:
        server = child.start_prefect_server(port, [], environ=environ, log=log.fileno())
        try:
            child.await_prefect_server(environ["PREFECT_API_URL"], server, log.fileno(), stop.asked)
            yield server
        finally:
            child.stop_child(server)


@contextmanager
def _runner(
    chosen: argparse.Namespace, folder: Folder, environ: dict[str, str], stop: _Stop
) -> Iterator[subprocess.Popen[bytes]]:
    words = ["--config", str(chosen.config), "--ready", str(folder.ready)]
    words += [word for setting in chosen.set for word in ("--set", setting)]
    if chosen.retrain_every is not None:
        words += ["--retrain-every", str(chosen.retrain_every)]
    folder.ready.unlink(missing_ok=True)
    with (folder.logs / "runs.log").open("w+b") as log:
        runner = child.start_child("deployments.served", words, environ=environ, log=log.fileno())
        try:
            if not child.await_child(runner, folder.ready.exists, stop.asked):
                raise ServiceError(
                    f"The deployments could not be served: {child.said(log.fileno())}",
                    where=str(folder.logs),
                    remedy="Read what it says there.",
                )
            yield runner
        finally:
            child.stop_child(runner)


def _port(asked: int | None) -> int:
    """Return the port to serve on.

    Raises:
        ConfigurationError: The one asked for is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((child.HOST, PORT if asked is None else asked))
        except (OSError, OverflowError) as error:
            if asked is None:
                return child.free_port()
            raise ConfigurationError(
                f"the port cannot be had ({error}).", where=f"--port {asked}"
            ) from error
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
