"""Asking Prefect for what a run can do without: for seconds, whatever its server does.

Prefect's client tries six times, a minute in all where the server is down, and pauses for as long
as a proxy's ``Retry-After`` says. Progress would hold up the training that it shows, and a report
the end of a run that signals cannot interrupt there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from lifecycle.aside import aside

T = TypeVar("T")

SECONDS = 10.0


def briefly(ask: Callable[[], T], *, seconds: float | None = None) -> T:
    """Return what *ask*, which asks Prefect, returns.

    It runs in a thread with the caller's context, which is left behind when the time is up: what it
    asked for may come about later.

    Args:
        ask: What Prefect's client is to try twice, and no more.
        seconds: How long it may take; :data:`SECONDS` where not given.

    Raises:
        TimeoutError: It took longer.
        Exception: What *ask* raises.
    """
    patience = SECONDS if seconds is None else seconds

    def twice() -> T:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):
            return ask()

    outcome = aside(twice)
    try:
        return outcome.result(patience)
    except TimeoutError as error:
        if outcome.done():
            raise
        raise TimeoutError(f"Prefect has not answered within {patience:g} s") from error


def look_up(look: Callable[[SyncPrefectClient], T], *, seconds: float | None = None) -> T:
    """Return what *look* reads with a client of Prefect's. For the rest see :func:`briefly`."""

    def ask() -> T:
        # With settings of its own it is no client that the run's own thread has in use.
        with get_client(sync_client=True, httpx_settings={"timeout": SECONDS}) as client:
            return look(client)

    return briefly(ask, seconds=seconds)
