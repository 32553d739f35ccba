"""Time, so that it can be the machine's or a test's."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time in seconds since the epoch."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return the machine's time."""
        return time.time()


class ManualClock:
    """A clock that stands still until it is advanced.

    Args:
        start: Seconds since the epoch at which it stands; the machine's time if not given.
    """

    def __init__(self, start: float | None = None) -> None:
        self._now = time.time() if start is None else start

    def now(self) -> float:
        """Return the time at which the clock stands."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by *seconds*, which may not be negative."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back: {seconds} s")
        self._now += seconds


def iso(seconds: float) -> str:
    """Return *seconds* since the epoch as Azure writes times, with microseconds and an offset."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
