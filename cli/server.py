"""The Prefect server of a run: the one that is configured, if it answers, or one of its own.

Prefect would start one itself, in the process group of the terminal: Ctrl-C then stops it together
with the run, which has to clean up and waits a minute for a server that is gone. This one is in a
session of its own and is stopped when the run has ended; it ends by itself if the run was killed.
"""

from __future__ import annotations

import atexit
import os
import re
import tempfile
from contextlib import ExitStack

from deployments.child import (
    HOST,
    await_prefect_server,
    free_port,
    start_prefect_server,
    stop_child,
)
from lifecycle.aside import aside
from lifecycle.errors import ConfigurationError

ANSWER_SECONDS = 30.0

_ONE_OF_ITS_OWN = (
    "unset PREFECT_API_URL (`prefect config unset PREFECT_API_URL` where a profile sets it): "
    "without it a run starts a server of its own."
)


def prefect_api_url() -> str | None:
    """Return the server that environment, profile, .env or prefect.toml name, or None.

    Raises:
        ConfigurationError: What they say is no setting of Prefect's, which then cannot be imported.
    """
    from pydantic import ValidationError

    try:
        from prefect.settings import get_current_settings

        # An empty one is how a caller overrides the server that an .env or a prefect.toml here
        # may name.
        return get_current_settings().api.url or None
    except ValidationError as error:
        wrong = (
            " ".join((*(str(part) for part in problem["loc"]), problem["msg"]))
            for problem in error.errors(include_url=False)
        )
        raise ConfigurationError(
            f"Prefect does not take its settings: {'; '.join(wrong)}.",
            where="PREFECT_…",
            remedy="Correct the environment's PREFECT_… variables, or Prefect's profile.",
        ) from error


def ensure_prefect_server() -> None:
    """Make sure that there is a Prefect server until this process ends.

    Raises:
        ConfigurationError: One is configured, and does not answer as Prefect's API does.
        ServiceError: It did not start; what it said is in the message.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = prefect_api_url()
    if url is not None:
        check_prefect_server(url)
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


def check_prefect_server(url: str, *, seconds: float = ANSWER_SECONDS) -> None:
    """Read from the server that is configured, with its sign-in, before a run relies on it.

    Raises:
        ConfigurationError: It does not answer in time, or not as Prefect's API does, or it does
            not let us in.
    """
    try:
        # Aside, for Prefect's client waits as long as a proxy's Retry-After tells it to.
        aside(_read_from_prefect).result(seconds)
    except Exception as error:
        said, remedy = _explained(error, seconds)
        shown = re.sub("//[^/@]*@", "//", url)
        raise ConfigurationError(
            f"Prefect's server {shown} {said}.",
            where="PREFECT_API_URL",
            remedy=f"{remedy}, or {_ONE_OF_ITS_OWN}",
        ) from error


def _read_from_prefect() -> None:
    from prefect import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}),
        get_client(sync_client=True) as client,
    ):
        problem = client.api_healthcheck()
        if problem is not None:
            raise problem
        # Anybody may read the health; this only who has signed in.
        client.read_flows(limit=1)
        client.raise_for_api_version_mismatch()


def _explained(error: Exception, seconds: float) -> tuple[str, str]:
    """Say what is the matter with the server, and what to do about it."""
    import httpx

    match error:
        case TimeoutError():
            return f"does not answer within {seconds:g} seconds", "Start it"
        case httpx.HTTPStatusError(response=answer):
            said = f"answers with status {answer.status_code}"
            if answer.status_code in (401, 403):
                return said, (
                    "Set PREFECT_API_KEY for Prefect Cloud, or PREFECT_API_AUTH_STRING for a "
                    "server that asks for a password"
                )
            if answer.status_code >= 500:
                return said, "See why in the server's own log"
            return said, "Correct it (the address of a server of your own ends in /api)"
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return "is no address of a server", "Correct it, such as http://127.0.0.1:4200/api"
        case httpx.TransportError():
            about = re.sub(r"\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
            return f"does not answer ({about})", "Start it"
    # Its page is no JSON, or its JSON is not Prefect's.
    about = " ".join(str(error).split())[:200]
    return (
        f"does not answer as Prefect's API does ({type(error).__name__}: {about})",
        "Correct it (the address of a server of your own ends in /api)",
    )
