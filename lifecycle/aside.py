"""Work in a thread that can be left behind: nobody waits for it, not even when the process ends.

A thread of an executor is joined when Python exits, so one that waits for the network would hold a
Ctrl-C back for as long as the other side keeps silent.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> Future[T]:
    """Begin *work*, in the caller's context, and return what will hold its result or its error.

    Only for what may be cut off at any moment: it dies with the process.
    """
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(work))
        except BaseException as error:  # Raised again where the result is asked for.
            outcome.set_exception(error)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return outcome
