"""A Prefect server for one run, where none is configured.

Prefect would start one itself, in the process group of the terminal: Ctrl-C then stops it together
with the run, which has to clean up and waits a minute for a server that is gone. This one is in a
session of its own and is stopped when the run has ended; it ends by itself if the run was killed.
"""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack

from lifecycle.errors import ServiceError

START_SECONDS = 120.0
STOP_SECONDS = 10.0


def ensure_prefect_server() -> None:
    """Make sure that there is a Prefect server until this process ends.

    Raises:
        ServiceError: It did not start; what it said is in the message.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    # An empty PREFECT_API_URL is how a caller overrides the server that an .env or a prefect.toml
    # here may name.
    if PREFECT_API_URL.value():
        return
    until_exit = ExitStack()
    # Registered before Prefect's own: its last logs and events are sent before the server stops.
    atexit.register(until_exit.close)
    log = until_exit.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - entered here
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    server = _start(port, log.fileno())
    until_exit.callback(_stop, server)
    _await(url, server, log.fileno())
    until_exit.enter_context(temporary_settings({PREFECT_API_URL: url}))


def main() -> None:
    """Be Prefect's own command, in a process group that ends when standard input does.

    The run holds the other end of the pipe: however it dies, the system closes it.
    """
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _end_with_the_run() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.killpg(0, signal.SIGKILL)


def _start(port: int, log: int) -> subprocess.Popen[bytes]:
    words = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    quiet = ["--no-services", "--no-ui", "--analytics-off", "--log-level", "ERROR"]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cli.server", *words, *quiet],
        env={**os.environ, "PREFECT_API_URL": ""},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _await(url: str, server: subprocess.Popen[bytes], log: int) -> None:
    import requests

    end = time.monotonic() + START_SECONDS
    with requests.Session() as session:
        session.trust_env = False
        while server.poll() is None and time.monotonic() < end:
            try:
                if session.get(f"{url}/health", timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.1)
    said = os.pread(log, 100_000, 0).decode(errors="replace").strip()
    raise ServiceError(
        f"The Prefect server for this run did not start: {said[-500:] or 'it said nothing'}",
        where="prefect server start",
        remedy="Start one with `prefect server start` and set PREFECT_API_URL.",
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
