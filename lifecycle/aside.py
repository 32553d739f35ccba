"""Work in a thread that can be left behind: nobody waits for it, not even when the process ends.

A thread of an executor is joined when Python exits, so one that waits for the network would hold a
Ctrl-C back for as long as the other side keeps silent. And in the main thread some libraries leave
a signal alone until a call of theirs returns.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
News = TypeVar("News")

_LOOK_SECONDS = 0.2
_LEAVE_SECONDS = 1.0

_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class _LeftBehind(BaseException):
    """Raised in work that is not wanted any longer, when it next says how far it is."""


def aside(work: Callable[[], T]) -> Future[T]:
    """Begin *work*, in the caller's context, and return what will hold its result or its error.

    Only for what may be cut off at any moment: it dies with the process.
    """
    outcome: Future[T] = Future()
    _start(work, outcome)
    return outcome


def is_at_work() -> bool:
    """Say whether something that was begun aside goes on."""
    return any(thread.is_alive() for thread in _threads)


def attended(
    work: Callable[[Callable[[News], None]], T],
    *,
    watch: Callable[[News], None] | None = None,
    go_on: Callable[[], None] | None = None,
) -> T:
    """Do *work* aside and wait for it; whatever ends the wait ends the work, or leaves it behind.

    Args:
        work: Given what it is to call with how far it is. That waits until *watch* has returned,
            and raises where the work is not wanted any longer.
        watch: Called in this thread with how far the work is.
        go_on: Called in this thread several times a second, also while the work is silent.

    Raises:
        BaseException: What the work raises, or *watch*, or *go_on*, or a signal's handler.
    """
    outcome: Future[T] = Future()
    said: queue.SimpleQueue[tuple[News, threading.Event] | None] = queue.SimpleQueue()
    is_over = threading.Event()
    outcome.add_done_callback(lambda done: said.put(None))

    def tell(news: News) -> None:
        is_heard = threading.Event()
        said.put((news, is_heard))
        while not is_over.is_set():
            if is_heard.wait(_LOOK_SECONDS):
                return
        raise _LeftBehind

    thread = _start(lambda: work(tell), outcome)
    try:
        while True:
            if go_on is not None:
                go_on()
            try:
                item = said.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                return outcome.result()
            news, is_heard = item
            if watch is not None:
                watch(news)
            is_heard.set()
    except BaseException:
        # Where it is not waiting for the network it ends now, and removes what it has begun.
        is_over.set()
        thread.join(_LEAVE_SECONDS)
        raise


def _start(work: Callable[[], T], outcome: Future[T]) -> threading.Thread:
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(work))
        except BaseException as error:  # Raised again where the result is asked for.
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="aside", daemon=True)
    _threads.add(thread)
    thread.start()
    return thread
