"""Waiting for something in Azure, with a deadline of our own and a clock that tests can turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Protocol, TypeVar

T = TypeVar("T")

_WORD_SECONDS = 60.0

logger = logging.getLogger(__name__)


class Clock(Protocol):
    """What a waiter needs of time."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment, for measuring how long something took."""
        ...

    def now(self) -> datetime:
        """The wall clock, in UTC and aware of it, for dates that others will read."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """As :func:`time.monotonic`."""
        return time.monotonic()

    def now(self) -> datetime:
        """As :meth:`datetime.datetime.now`, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """As :func:`time.sleep`."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


def wait_until(
    look: Callable[[], T | None],
    *,
    every: Iterable[float],
    deadline: float,
    clock: Clock = SYSTEM_CLOCK,
) -> T | None:
    """Look, pause, look again, until there is something to see or the deadline passes.

    Args:
        look: Returns what is waited for, or None as long as it is not there. What it raises
            ends the wait.
        every: The pauses in seconds, in order; the last one is repeated. :func:`growing` is fast
            first and patient later, ``[5.0]`` is steady.
        deadline: Seconds from now, 0 or more. There is always a first look, and a last one when
            the deadline passes; no pause reaches beyond it.
        clock: Whose time passes.

    Returns:
        What ``look`` returned, or None when the deadline passed first: the caller knows what that
        means.
    """
    end = clock.monotonic() + deadline
    pauses = iter(every)
    pause = 0.0
    while True:
        seen = look()
        if seen is not None:
            return seen
        left = end - clock.monotonic()
        if left <= 0:
            return None
        pause = next(pauses, pause)
        clock.sleep(min(pause, left))


def reporting(
    look: Callable[[], T | None],
    doing: str,
    clock: Clock = SYSTEM_CLOCK,
    *,
    why: Callable[[], str] = str,
) -> Callable[[], T | None]:
    """Return *look*, which now logs once a minute what is being waited for, and for how long.

    Args:
        look: Returns what is waited for, or None as long as it is not there.
        doing: To follow "still": ``creating the endpoint ultrachat-…``.
        clock: Whose time passes.
        why: Returns a sentence on what holds it up, or nothing.
    """
    began = said = clock.monotonic()

    def watch() -> T | None:
        nonlocal said
        seen = look()
        now = clock.monotonic()
        if seen is None and now - said >= _WORD_SECONDS:
            said = now
            waited = f"after {(now - began) / 60:.0f} min"
            logger.info("Still %s, %s", doing, f"{waited}. {why()}" if why() else waited)
        return seen

    return watch


def growing(first: float, most: float, factor: float = 1.5) -> Iterator[float]:
    """Pauses that grow from ``first`` to ``most`` seconds, each ``factor`` times the last."""
    pause = first
    while True:
        yield min(pause, most)
        pause *= factor
