"""What a run is glad to have and can do without: where it fails, a warning says so, once.

Metrics, logs, progress, sizes, usage, artifacts and report files are courtesies. Whatever fails of
them never changes how a run ends, and never leads to anything being canceled or deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from lifecycle.azure import scrubbed
from lifecycle.errors import FinetuneError
from lifecycle.report import current_report

T = TypeVar("T")

_LONGEST = 400

logger = logging.getLogger(__name__)


def courtesy(doing: str, ask: Callable[[], T], *, otherwise: T, instead: str) -> T:
    """Return what *ask* returns; where it raises, warn and return *otherwise*.

    Args:
        doing: What is asked for, to follow "while": ``reading the metrics of ft-…``.
        ask: Whose every exception is a warning; not its KeyboardInterrupt or SystemExit.
        otherwise: What the run goes on with.
        instead: A sentence on what that means: ``The report shows no metrics.``
    """
    try:
        return ask()
    except Exception as error:
        warn(f"{what_failed(error, doing)} {instead}")
        return otherwise


def warn(text: str) -> None:
    """Log a warning and add it to the run's report; a text that is there already is not repeated.

    Args:
        text: One or two sentences; without secrets.
    """
    report = current_report()
    if report is None or report.warn(text):
        logger.warning("%s", text)


def what_failed(error: Exception, doing: str) -> str:
    """Say in one sentence what went wrong, without secrets, 400 characters at most.

    Args:
        error: An error of ours, whose message says what was being done, or any other.
        doing: To follow "while".
    """
    if isinstance(error, FinetuneError):
        said = error.message
    else:
        said = f"{type(error).__name__} while {doing}: {error}"
    line = " ".join(scrubbed(said).split()).rstrip(".:")
    return f"{line}." if len(line) < _LONGEST else f"{line[: _LONGEST - 1]}…"
