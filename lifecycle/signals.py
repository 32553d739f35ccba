"""Signals that wait: a cleanup is neither prevented nor cut off by a second Ctrl-C."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

_DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def deferred_signals(*, last: bool = False) -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the block ends, then deliver them as before.

    Each kind that arrived is delivered once, in the order of first arrival, to the handler that
    was there before, whether the block ended normally or with an exception: nothing is lost, and
    what the handler raises has the block's own exception as its context. Blocks may be nested.

    Args:
        last: Whether nothing follows that could be interrupted: what arrived is then dropped.

    Outside the main thread it does nothing, since Python runs handlers in the main thread alone.
    """
    deferral = _Deferral()
    try:
        deferral.begin()
        yield
    finally:
        deferral.end(deliver=not last)


def with_cleanup(
    body: Callable[[], T],
    cleanup: Callable[[BaseException | None], None],
    *,
    last: bool = False,
) -> T:
    """Return what *body* returns, and run *cleanup* once after it, whatever signals arrive when.

    A plain ``finally`` has a gap: a signal may arrive after the body's end and before the
    cleanup's first line. Here it has the cleanup run all the same, and whatever arrives from then
    on waits until the cleanup is over. It is then delivered if there is something left to
    interrupt: the body succeeded, and more follows.

    Until the cleanup begins, handlers stay as they are: Prefect tells a cancel from a crash only
    where its own handler of SIGTERM is in place.

    Args:
        body: What may be interrupted.
        cleanup: What must run. It is given the exception in flight, or None. What it raises never
            takes the place of an exception in flight, which takes it as a note.
        last: Whether nothing follows in this run.

    Outside the main thread it is a plain ``finally``.
    """
    deferral = _Deferral()
    has_begun = False

    def clean_up(outcome: BaseException | None) -> None:
        nonlocal has_begun
        if not has_begun:
            deferral.begin()
            has_begun = True
            try:
                cleanup(outcome)
            except Exception as problem:
                if outcome is None:
                    raise
                logger.exception("The cleanup failed")
                outcome.add_note(f"The cleanup failed: {problem}")

    try:
        try:
            return body()
        finally:
            clean_up(sys.exception())
    finally:
        outcome = sys.exception()
        try:
            clean_up(outcome)
        finally:
            deferral.end(deliver=outcome is None and not last)


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
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _DEFERRED:
            previous = signal.getsignal(number)
            # None: set from C, and could not be put back. Ours: begun before, and interrupted.
            if previous is not None and number not in self._previous:
                self._previous[number] = previous
                signal.signal(number, self._receive)

    def end(self, *, deliver: bool = True) -> None:
        self._holding = False
        try:
            for number, previous in self._previous.items():
                signal.signal(number, previous)
        finally:
            self._deliver(self._arrived if deliver else [])

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
