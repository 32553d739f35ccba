"""For how long, and for what, this thread waits for Azure; :mod:`lifecycle.transport` keeps to it.

azure-core sleeps for as long as a ``Retry-After`` says, hours if need be, and in silence; and its
pollers go on polling when nobody waits for them any longer. Who waits for Azure says here until
when, and the transport, through which all pauses and all requests of azure-core go, looks here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from lifecycle.waiting import SYSTEM_CLOCK, Clock


@dataclass
class Patience:
    """Until when somebody waits.

    Args:
        end: When it ends, by ``clock.monotonic()``.
        clock: Whose time passes on the thread that waits; pollers have threads of their own, on
            which it is the machine's.
        thread: Id of the thread that waits.
        over: Set when nobody waits any longer.
    """

    end: float
    clock: Clock
    thread: int = field(default_factory=threading.get_ident)
    over: threading.Event = field(default_factory=threading.Event)

    def seconds_left(self) -> float:
        """Return for how long there is still somebody who waits, 0 or more."""
        return 0.0 if self.over.is_set() else max(self.end - self.clock.monotonic(), 0.0)


_patience: ContextVar[Patience | None] = ContextVar("finetune_patience", default=None)
_doing: ContextVar[str] = ContextVar("finetune_doing", default="asking Azure")


@contextmanager
def within(seconds: float, clock: Clock = SYSTEM_CLOCK) -> Iterator[None]:
    """Let no pause between requests sent inside reach beyond so many seconds from now.

    Pollers that were begun inside end with the block.
    """
    patience = Patience(clock.monotonic() + max(seconds, 0.0), clock)
    token = _patience.set(patience)
    try:
        yield
    finally:
        patience.over.set()
        _patience.reset(token)


@contextmanager
def during(doing: str) -> Iterator[None]:
    """Have long pauses between requests sent inside say what is being done.

    Args:
        doing: To follow "while": ``creating the endpoint ultrachat-…``.
    """
    token = _doing.set(doing)
    try:
        yield
    finally:
        _doing.reset(token)


def current() -> Patience | None:
    """Return who waits for what is being asked here; None where nobody has said until when."""
    return _patience.get()


def doing() -> str:
    """Return what is being done here."""
    return _doing.get()
