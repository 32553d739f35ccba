"""What the command says on the terminal, and what becomes of a verb when it cannot say it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from lifecycle.errors import FinetuneError, StillBilling

# A reader that has gone, a full disk, an encoding that lacks a character, a closed file.
_UNWRITABLE = (OSError, ValueError)


class OutputError(Exception):
    """Raised when standard output cannot be written; never an OSError, which would mean more."""


class Output:
    """Standard output, whose every failure is an :class:`OutputError`.

    rich meets a BrokenPipeError with a SystemExit of its own, and so would hide how a verb ended.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write *text*.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            return self._stream.write(text)
        except _UNWRITABLE as error:
            raise OutputError(f"standard output cannot be written: {error}") from error

    def flush(self) -> None:
        """Flush; errors as above."""
        try:
            self._stream.flush()
        except _UNWRITABLE as error:
            raise OutputError(f"standard output cannot be written: {error}") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Remarks:
    """Standard error, where what cannot be written is lost, and nothing else.

    The log, the SDK and Prefect write here in the middle of a run: `finetune run 2>&1 | head` must
    not end it, and least of all its cleanup.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write *text*, if that can be."""
        with suppress(*_UNWRITABLE):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that can be."""
        with suppress(*_UNWRITABLE):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def own_streams() -> Iterator[Any]:
    """Give standard output to the verb alone, and let nothing end with what standard error meets.

    The SDK prints dots and remarks to standard output, also from threads of its own: they go to
    standard error, so that what a verb has to say can be piped.
    """
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        # None where the process was started with the stream closed.
        out, err = (stream or nowhere for stream in before)
        remarks: Any = Remarks(err)
        sys.stdout = sys.stderr = remarks
        try:
            yield Output(out)
        finally:
            sys.stdout, sys.stderr = before
            _settle(out)
            _settle(err)


def show_error(error: FinetuneError, *, refused: bool) -> None:
    """Print one error, once: what, where, and what to do.

    Args:
        error: What went wrong.
        refused: Whether nothing had been created yet.
    """
    if refused:
        title = "refused, nothing was created"
    elif isinstance(error, StillBilling):
        title = "something may still be billing"
    else:
        title = "failed"
    print(f"finetune: {title} [{error.code}]", file=sys.stderr)
    if error.where:
        print(f"  where   {error.where}", file=sys.stderr)
    print(f"  what    {_indented(error.message)}", file=sys.stderr)
    print(f"  remedy  {_indented(error.remedy)}", file=sys.stderr)
    for note in getattr(error, "__notes__", []):
        print(f"  note    {_indented(note)}", file=sys.stderr)


def show_still_billing(names: list[str]) -> None:
    """Print each name of what may still be billing, a line each."""
    for name in names:
        print(f"finetune: MAY STILL BE BILLING: {name}", file=sys.stderr)


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n          ")


def _settle(stream: TextIO) -> None:
    """Drop what a stream still holds and cannot write: Python would exit with 120 over it."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except ValueError:
        return  # It is closed.
