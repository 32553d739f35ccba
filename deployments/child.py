"""Processes of ours that end when we do, however we end.

A child is in a session of its own: Ctrl-C in the terminal reaches us alone, and we say when the
child stops. It holds the other end of a pipe to us; where we were killed the system closes it, and
the child's whole process group ends.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from lifecycle.errors import ServiceError

HOST = "127.0.0.1"
START_SECONDS = 300.0
STOP_SECONDS = 10.0

_POLL_SECONDS = 0.25


def start_child(
    module: str, words: Sequence[str], *, environ: Mapping[str, str], log: int
) -> subprocess.Popen[bytes]:
    """Start ``python -m module words``; what it says goes to the file descriptor *log*."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "deployments.child", module, *words],
        env=dict(environ),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def start_prefect_server(
    port: int, words: Sequence[str], *, environ: Mapping[str, str], log: int
) -> subprocess.Popen[bytes]:
    """Start a Prefect server on loopback; *words* are further options of its command."""
    command = ["server", "start", "--host", HOST, "--port", str(port), "--analytics-off"]
    return start_child("prefect", [*command, *words], environ=environ, log=log)


def await_prefect_server(
    api: str, server: subprocess.Popen[bytes], log: int, is_over: Callable[[], bool] | None = None
) -> None:
    """Wait until the server answers, or until *is_over* says that nobody waits any longer.

    Raises:
        ServiceError: It ended, or was silent for :data:`START_SECONDS`; with what it said.
    """
    import requests

    with requests.Session() as session:
        session.trust_env = False

        def answers() -> bool:
            try:
                return session.get(f"{api}/health", timeout=2).ok
            except requests.RequestException:
                return False

        if await_child(server, answers, is_over):
            return
    raise ServiceError(
        f"The Prefect server did not start: {said(log)}",
        where="prefect server start",
        remedy="Start one with `prefect server start` and set PREFECT_API_URL.",
    )


def await_child(
    child: subprocess.Popen[bytes],
    is_ready: Callable[[], bool],
    is_over: Callable[[], bool] | None = None,
) -> bool:
    """Wait until *is_ready*, or *is_over*; False where the child ended or took too long."""
    for _ in range(int(START_SECONDS / _POLL_SECONDS)):
        if (is_over is not None and is_over()) or is_ready():
            return True
        with suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_SECONDS)
            return False
    return False


def said(log: int) -> str:
    """Return the end of what a child has said in the file *log*."""
    size = os.fstat(log).st_size
    text = os.pread(log, 4096, max(0, size - 4096)).decode(errors="replace").strip()
    return text[-500:] or "it said nothing"


def stop_child(child: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """End a child, by force after *seconds*; nothing of its process group is left."""
    child.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    # macOS: EPERM where all that is left of the group are zombies.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()


def free_port() -> int:
    """Return a port of loopback on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Be another module's command, in a process group that ends when standard input does."""
    threading.Thread(target=_end_with_our_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_our_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
