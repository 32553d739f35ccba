"""Signals that wait: a cleanup that has begun is not cut off by a second Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the block ends, then deliver them as before.

    Each kind that arrived is delivered once, in the order of first arrival, to the handler that
    was there before, whether the block ended normally or with an exception: nothing is lost, and
    what the handler raises has the block's own exception as its context. Blocks may be nested.

    Outside the main thread it does nothing, since Python runs handlers in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deferral = _Deferral()
    try:
        deferral.begin()
        yield
    finally:
        deferral.end()


class _Deferral:
    """What arrived, and the handlers that were there before.

    The handlers are put in place and taken away one by one, and a signal may arrive between two
    of them. So one that is still in place when nothing is held back passes the signal on.
    """

    def __init__(self) -> None:
        self._holding = True
        self._arrived: list[int] = []
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    def begin(self) -> None:
        for number in _DEFERRED:
            previous = signal.getsignal(number)
            if previous is not None:  # None: set from C, and could not be put back.
                self._previous[number] = previous
                signal.signal(number, self._receive)

    def end(self) -> None:
        self._holding = False
        try:
            for number, previous in self._previous.items():
                signal.signal(number, previous)
        finally:
            self._deliver(self._arrived)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._holding:
            self._pass_on(number, frame)
        elif number not in self._arrived:
            self._arrived.append(number)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous[number]
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(number, previous)
            signal.raise_signal(number)

    def _deliver(self, numbers: list[int]) -> None:
        if not numbers:
            return
        try:
            signal.raise_signal(numbers[0])
        finally:
            self._deliver(numbers[1:])
