"""azure-core's transport, with pauses that end when whoever waits has to go on.

Imported where a client is built, since azure-core takes its time to import.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from azure.core.pipeline.transport import RequestsTransport

from lifecycle import patience
from lifecycle.patience import Patience

LONGEST_PAUSE_SECONDS = 60.0
"""For no longer azure-core pauses where nobody has said until when to wait."""

# What is shorter is not worth a line.
_WORTH_A_LINE_SECONDS = 10.0

logger = logging.getLogger(__name__)


class PauseTooLong(Exception):
    """Raised in place of a pause that would outlast whoever waits.

    No exception of azure-core's, whose retry policy would take it for a lost connection.

    Args:
        seconds: How long the service asks to wait.
        response: Its answer; None where there was none.
    """

    def __init__(self, seconds: float, response: Any | None) -> None:
        super().__init__(f"a pause of {seconds:.0f} s is asked for")
        self.seconds = seconds
        self.response = response


class NobodyWaits(Exception):
    """Raised in a poller's thread when nobody waits for its operation any longer."""


class PatientTransport(RequestsTransport):  # type: ignore[misc]  # It is exported lazily.
    """Sends requests, and keeps the pauses between them to what :mod:`lifecycle.patience` says.

    One serves any number of clients, which then share their connections.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._here = threading.local()
        self._operations: dict[str, Patience] = {}

    def send(self, request: Any, **options: Any) -> Any:
        """Send the request, unless nobody waits for its answer any longer."""
        # The SDK's pollers have threads of their own, into which no context is carried.
        waiting = patience.current() or self._operations.get(request.url)
        self._here.waiting, self._here.response = waiting, None
        if waiting is not None and waiting.over.is_set():
            self._operations.pop(request.url, None)
            raise NobodyWaits
        response = super().send(request, **options)
        self._here.response = response
        if waiting is not None and (address := _operation(response)) is not None:
            self._operations[address] = waiting
        return response

    def sleep(self, duration: float) -> None:
        """Pause before the next try or poll.

        Raises:
            PauseTooLong: It would outlast whoever waits.
            NobodyWaits: Whoever began this has gone meanwhile.
        """
        waiting = getattr(self._here, "waiting", None)
        if waiting is not None and waiting.thread != threading.get_ident():
            if waiting.over.wait(min(duration, LONGEST_PAUSE_SECONDS)):
                raise NobodyWaits
            return
        left = LONGEST_PAUSE_SECONDS if waiting is None else waiting.seconds_left()
        if duration > left:
            raise PauseTooLong(duration, self._here.response)
        if duration >= _WORTH_A_LINE_SECONDS:
            status = getattr(self._here.response, "status_code", "nothing")
            doing = patience.doing()
            logger.warning("Azure answered %s; waiting %.0f s while %s", status, duration, doing)
        if waiting is None:
            super().sleep(duration)
        else:
            waiting.clock.sleep(duration)


def _operation(response: Any) -> str | None:
    """Return where the operation that a request began is asked for, by which its poller is known.

    The Location of what is accepted only, since that of what is created is the resource itself.
    """
    location = response.headers.get("Location") if response.status_code == 202 else None
    address: str | None = response.headers.get("Azure-AsyncOperation") or location
    return address
