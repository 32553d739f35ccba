"""A Prefect server for one run, where none is configured.

Prefect would start one itself, in the process group of the terminal: Ctrl-C then stops it together
with the run, which has to clean up and waits a minute for a server that is gone. This one is in a
session of its own and is stopped when the run has ended; it ends by itself if the run was killed.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from contextlib import ExitStack

from deployments.child import (
    HOST,
    await_prefect_server,
    free_port,
    start_prefect_server,
    stop_child,
)


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
    port = free_port()
    api = f"http://{HOST}:{port}/api"
    quiet = ["--no-services", "--no-ui", "--log-level", "ERROR"]
    environ = {**os.environ, "PREFECT_API_URL": ""}
    server = start_prefect_server(port, quiet, environ=environ, log=log.fileno())
    until_exit.callback(stop_child, server)
    await_prefect_server(api, server, log.fileno())
    until_exit.enter_context(temporary_settings({PREFECT_API_URL: api}))
