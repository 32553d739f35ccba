"""A cleanup that has begun is finished, whatever signals arrive, and no signal is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from typing import Any

import pytest

from lifecycle.signals import deferred_signals, with_cleanup

# The child says "ready" inside the block, and goes on when the parent has sent its signals and
# closes the child's standard input: no timing is guessed.
CHILD = """
import signal, sys
from lifecycle.signals import deferred_signals
{setup}
try:
    with deferred_signals():
        print("ready", flush=True)
        sys.stdin.read()
        print("cleaned up", flush=True)
        {last}
finally:
    print("after", flush=True)
"""


def run_child(
    signals: list[signal.Signals], *, setup: str = "", last: str = "pass"
) -> tuple[int, list[str], str]:
    """Run the child, send it the signals inside the block; return exit code, output, errors."""
    code = textwrap.dedent(CHILD).format(setup=setup, last=last)
    return _strike(code, signals)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_waits_for_the_cleanup(number: signal.Signals) -> None:
    """The block ends first; then the process dies of the signal as it would have."""
    code, lines, _ = run_child([number, number])

    assert ["ready", "cleaned up"] == lines
    assert -number == code


def test_ctrl_c_is_raised_after_the_cleanup() -> None:
    """A second Ctrl-C does not cut the cleanup off, and the first one still interrupts."""
    code, lines, errors = run_child([signal.SIGINT, signal.SIGINT])

    assert ["ready", "cleaned up", "after"] == lines
    assert "KeyboardInterrupt" in errors
    assert -signal.SIGINT == code


def test_a_handler_of_python_is_called_once_after_the_cleanup() -> None:
    """Prefect's own handler gets the signal, once, after the block."""
    setup = "signal.signal(signal.SIGTERM, lambda number, frame: print('handled', flush=True))"
    twice = "signal.raise_signal(signal.SIGTERM); signal.raise_signal(signal.SIGTERM)"

    code, lines, _ = run_child([signal.SIGTERM], setup=setup, last=twice)

    assert ["ready", "cleaned up", "handled", "after"] == lines
    assert 0 == code


def test_the_error_of_the_block_is_kept_beside_the_interrupt() -> None:
    """What went wrong in the cleanup is not hidden by the Ctrl-C that came during it."""
    _, _, errors = run_child([signal.SIGINT], last="raise RuntimeError('cleanup failed')")

    assert "RuntimeError: cleanup failed" in errors
    assert "During handling of the above exception" in errors
    assert "KeyboardInterrupt" in errors


def test_a_cleanup_that_fails_takes_no_outcomes_place() -> None:
    """Whatever it raised, the run ended as it did; one that had ended well ends with its error."""

    def fail(outcome: BaseException | None) -> None:
        raise AttributeError("no such thing")

    def body() -> None:
        raise ValueError("the outcome")

    with pytest.raises(ValueError, match="the outcome") as caught:
        with_cleanup(body, fail)
    with pytest.raises(AttributeError):
        with_cleanup(lambda: None, fail)

    assert ["The cleanup failed: no such thing"] == caught.value.__notes__


def test_every_kind_that_arrived_is_delivered() -> None:
    """An exception from one handler does not swallow the signal after it."""
    setup = "signal.signal(signal.SIGTERM, lambda number, frame: print('handled', flush=True))"

    # Both are pending at once; the lower number, SIGINT, is received first.
    _, lines, errors = run_child([signal.SIGINT, signal.SIGTERM], setup=setup)

    assert ["ready", "cleaned up", "handled", "after"] == lines
    assert "KeyboardInterrupt" in errors


def test_an_ignored_signal_stays_ignored() -> None:
    """Under nohup, SIGHUP goes on meaning nothing."""
    setup = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"

    code, lines, _ = run_child([signal.SIGHUP], setup=setup)

    assert ["ready", "cleaned up", "after"] == lines
    assert 0 == code


def test_nested_blocks_deliver_when_the_outermost_ends() -> None:
    """A step that defers inside a flow that defers does not let a signal through."""
    code, lines, _ = run_child(
        [],
        last="""
        with deferred_signals():
            signal.raise_signal(signal.SIGTERM)
        print("still here", flush=True)
        """,
    )

    assert ["ready", "cleaned up", "still here"] == lines
    assert -signal.SIGTERM == code


def test_the_handlers_are_as_they_were() -> None:
    """Nothing of ours stays behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    with deferred_signals():
        assert before[0] is not signal.getsignal(signal.SIGINT)

    assert before == [signal.getsignal(number) for number in numbers]


def test_a_signal_during_restoration_reaches_the_handler_that_was_there() -> None:
    """One that comes between two handlers being put back is passed on, not remembered for ever."""
    received: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
    try:
        with deferred_signals():
            leftover = signal.getsignal(signal.SIGHUP)
        assert callable(leftover)
        leftover(signal.SIGHUP, None)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert [signal.SIGHUP] == received


def test_it_does_nothing_in_another_thread() -> None:
    """A step that Prefect runs in a thread works all the same."""
    seen: list[object] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with deferred_signals():
            seen.append(before is signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert [True] == seen


GUARDED = """
import signal, sys
from lifecycle.signals import with_cleanup
{setup}
def body():
    {body}
def cleanup(outcome):
    print("outcome", type(outcome).__name__, flush=True)
    sys.stdin.read()
    print("cleaned up", flush=True)
try:
    with_cleanup(body, cleanup, last={last})
finally:
    print("after", flush=True)
"""


def run_guarded(
    signals: list[signal.Signals], *, body: str = "pass", last: bool = False
) -> tuple[int, list[str]]:
    """Run the child, send it the signals during its cleanup; return exit code and output."""
    raising = (
        "def stop(number, frame): raise KeyboardInterrupt\nsignal.signal(signal.SIGTERM, stop)"
    )
    code = GUARDED.format(setup=raising, body=body, last=last)
    returned, lines, _ = _strike(code, signals)
    return returned, lines


def test_the_first_signal_interrupts_and_the_next_ones_wait() -> None:
    """A supervisor's second SIGTERM, and a Ctrl-C on top, do not cut the cleanup off."""
    code, lines = run_guarded(
        [signal.SIGTERM, signal.SIGINT], body="signal.raise_signal(signal.SIGTERM)"
    )

    assert ["outcome KeyboardInterrupt", "cleaned up", "after"] == lines
    assert -signal.SIGINT == code


def test_a_signal_after_a_failure_does_not_hide_it() -> None:
    """What the body raised is what the run reports."""
    code, lines = run_guarded([signal.SIGTERM], body="raise ValueError('the outcome')")

    assert (1, ["outcome ValueError", "cleaned up", "after"]) == (code, lines)


@pytest.mark.parametrize(("last", "code"), [(True, 0), (False, -signal.SIGINT)])
def test_a_signal_after_a_success_interrupts_what_follows(last: bool, code: int) -> None:
    """Where nothing follows, the run has succeeded; else it is not lost."""
    assert (code, ["outcome NoneType", "cleaned up", "after"]) == run_guarded(
        [signal.SIGTERM], last=last
    )


def test_a_signal_between_body_and_cleanup_prevents_no_cleanup() -> None:
    """Wherever in that gap it comes: at each line of ours in turn."""
    line = 0
    while True:
        cleaned: list[str] = []
        was_sent = _with_a_signal_in_the_gap(line, cleaned)
        assert ["cleaned"] == cleaned
        if not was_sent:
            break
        line += 1

    assert 5 < line


def _with_a_signal_in_the_gap(number: int, cleaned: list[str]) -> bool:
    """Send one at the n-th line that is run after the body and before the cleanup, if any."""
    lines = 0
    has_ended = False

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal lines
        if has_ended and not cleaned and event == "line" and "signals" in frame.f_code.co_filename:
            lines += 1
            if lines == number + 1:
                signal.raise_signal(signal.SIGINT)
        return trace

    def body() -> None:
        nonlocal has_ended
        has_ended = True

    before = sys.gettrace(), signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.settrace(trace)
    try:
        with suppress(KeyboardInterrupt):
            with_cleanup(body, lambda outcome: cleaned.append("cleaned"))
    finally:
        sys.settrace(before[0])
        signal.signal(signal.SIGINT, before[1])
    return lines > number


def _strike(code: str, signals: list[signal.Signals]) -> tuple[int, list[str], str]:
    """Run code, send it the signals after its first line; return exit code, output, errors."""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    first = child.stdout.readline().strip()
    for number in signals:
        child.send_signal(number)
    out, errors = child.communicate(timeout=60)
    return child.returncode, [first, *out.split("\n")[:-1]], errors
