"""The log on standard error: a line each, its time in UTC, and what is ours from INFO on."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

OURS = "lifecycle"


class LogLines(logging.Handler):
    """Shows the log to a person; of these there is one at a time."""


class PlainLines(LogLines):
    """Writes the log as plain lines, where no board is shown."""

    def __init__(self) -> None:
        super().__init__()
        self._format = logging.Formatter(datefmt="%H:%M:%S")
        # As the report's times: who reads both need not reckon.
        self._format.converter = time.gmtime

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, and a traceback where there is one."""
        try:
            at = f"{self._format.formatTime(record, '%H:%M:%S')}.{int(record.msecs):03d} UTC"
            line = f"{at} | {record.levelname:7} | {_source(record)} - {record.getMessage()}"
            if record.exc_info:
                line += f"\n{self._format.formatException(record.exc_info)}"
            print(line, file=sys.stderr, flush=True)
        except Exception:  # a log line must never end a run
            self.handleError(record)


@contextmanager
def shown_log(lines: LogLines) -> Iterator[None]:
    """Show what is ours through *lines* while the block lasts, instead of through another."""
    ours = logging.getLogger(OURS)
    before, level, propagate = ours.handlers[:], ours.level, ours.propagate
    ours.handlers[:] = [*_of_others(before), lines]
    ours.setLevel(logging.INFO)
    # The root's handlers, where it has any, would show each line once more.
    ours.propagate = False
    try:
        yield
    finally:
        ours.handlers[:], ours.propagate = before, propagate
        ours.setLevel(level)


@contextmanager
def prefects_log(lines: LogLines) -> Iterator[None]:
    """Show everybody's log through *lines*, instead of through Prefect's own console handler.

    To be entered when Prefect has been imported, for then it sets up its handlers.
    """
    from prefect.logging.handlers import PrefectConsoleHandler

    root = logging.getLogger()
    before = root.handlers[:]
    kept = [one for one in _of_others(before) if not isinstance(one, PrefectConsoleHandler)]
    root.handlers[:] = [*kept, lines]
    try:
        with shown_log(lines):
            yield
    finally:
        root.handlers[:] = before


def _of_others(handlers: list[logging.Handler]) -> list[logging.Handler]:
    return [one for one in handlers if not isinstance(one, LogLines)]


def _source(record: logging.LogRecord) -> str:
    """Name the task run or the flow run that a line is of, else the logger."""
    for kind in ("task", "flow"):
        name = getattr(record, f"{kind}_run_name", None)
        if name:
            return f"{kind.capitalize()} run {name!r}"
    return record.name
