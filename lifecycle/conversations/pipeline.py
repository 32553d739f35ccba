"""Reading ahead and writing behind, so that both cores have work.

pyarrow, hashing and the kernel work without Python's global lock, so threads do: one reads and
decompresses, one hashes and writes, and the caller's makes JSON in between.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

_DEPTH = 3
_WAIT_SECONDS = 0.2
_JOIN_SECONDS = 2.0
_TURN_SECONDS = 0.0005


@contextmanager
def taking_turns() -> Iterator[None]:
    """Let threads change every half a millisecond.

    By default one that comes back from work without the lock may wait five for it, which is longer
    than that work was: two cores were hardly faster than one.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _TURN_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def ahead(source: Iterator[T]) -> Generator[T, None, None]:
    """Give what *source* gives, and let a thread of its own fetch the next ones meanwhile.

    The thread ends when this generator is closed.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(_DEPTH)
    is_over = threading.Event()

    def put(item: tuple[T | None, BaseException | None]) -> None:
        while not is_over.is_set():
            try:
                waiting.put(item, timeout=_WAIT_SECONDS)
                break
            except queue.Full:
                continue

    def fetch() -> None:
        try:
            for one in source:
                put((one, None))
                if is_over.is_set():
                    return
            put((None, StopIteration()))
        except BaseException as error:  # Raised again where it is waited for.
            put((None, error))

    thread = threading.Thread(target=fetch, name="dataset-reader", daemon=True)
    thread.start()
    try:
        while True:
            one, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield one  # type: ignore[misc]
    finally:
        is_over.set()
        # Not for ever: it may be waiting for the network, and dies with the process.
        thread.join(_JOIN_SECONDS)


class Sink:
    """A file that a thread of its own hashes and writes; as a file object it can only be written.

    All is in the kernel's hands when the ``with`` block ends well, and on the disk, which takes as
    long as a tenth of the work, when :meth:`settle` returns: meanwhile another can be written.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self.closed = False
        self._digest = hashlib.sha256()
        self._error: BaseException | None = None
        self._is_wanted = True
        self._is_written = threading.Event()
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self._file = path.open("wb", buffering=0)
        self._thread = threading.Thread(target=self._work, name="dataset-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_wanted = error is None
        self._pieces.put(None)
        self._is_written.wait()
        self.closed = True
        if self._is_wanted:
            self._check()
        else:
            self._thread.join()

    def settle(self) -> None:
        """Wait until it is on the disk; raises what went wrong with that."""
        self._thread.join()
        self._check()

    def write(self, data: bytes) -> int:
        """Hand over *data*; raises what went wrong with an earlier piece."""
        self._check()
        piece = bytes(data)
        self.size += len(piece)
        self._pieces.put(piece)
        return len(piece)

    def flush(self) -> None:
        """Do nothing: all is written at the end."""

    def sha256(self) -> str:
        """Return the digest of the file, once it is closed."""
        return self._digest.hexdigest()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        with self._file:
            self._write_all()
            self._is_written.set()
            if self._is_wanted and self._error is None:
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:
                    self._error = error

    def _write_all(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self._error is not None:
                continue
            try:
                self._digest.update(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except BaseException as error:  # Raised by the next write.
                self._error = error
