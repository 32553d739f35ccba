"""Waiting has a deadline, looks often at first, and never sleeps beyond the end."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import Any

import pytest

from lifecycle.waiting import SystemClock, growing, reporting, wait_until


def test_what_is_there_already_costs_no_pause(clock: Any) -> None:
    """An instant service is not slept on."""
    assert "there" == wait_until(lambda: "there", every=[5.0], deadline=60, clock=clock)
    assert [] == clock.slept


def test_the_pauses_follow_one_another_and_the_last_is_repeated(clock: Any) -> None:
    """The caller says how patient to be."""
    looks = iter([None, None, None, None, "there"])

    assert "there" == wait_until(lambda: next(looks), every=[1, 2], deadline=60, clock=clock)
    assert [1, 2, 2, 2] == clock.slept


def test_a_deadline_that_passes_gives_none_after_a_last_look(clock: Any) -> None:
    """No pause reaches beyond the deadline, and the state at the deadline is seen."""
    seen_at: list[float] = []

    def look() -> None:
        seen_at.append(clock.monotonic())

    assert None is wait_until(look, every=[4.0], deadline=10, clock=clock)
    assert [0, 4, 8, 10] == seen_at


def test_a_deadline_of_zero_looks_once(clock: Any) -> None:
    """Asking whether it is there now is the shortest wait."""
    looks: list[int] = []

    assert None is wait_until(lambda: looks.append(1), every=[1.0], deadline=0, clock=clock)
    assert [1] == looks
    assert [] == clock.slept


def test_false_and_zero_are_something_to_see(clock: Any) -> None:
    """Only None means that it is not there yet."""
    assert 0 == wait_until(lambda: 0, every=[1.0], deadline=0, clock=clock)


def test_what_look_raises_ends_the_wait(clock: Any) -> None:
    """A failure is not waited out."""

    def look() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError):
        wait_until(look, every=[1.0], deadline=60, clock=clock)


def test_growing_is_fast_first_and_bounded() -> None:
    """A quick answer is seen quickly, a slow one is not asked for too often."""
    assert [0.5, 1.0, 2.0, 3.0, 3.0] == list(islice(growing(0.5, 3.0, factor=2), 5))


def test_the_system_clock_knows_its_time_zone() -> None:
    """A date that others read is never naive."""
    clock = SystemClock()

    assert timedelta(0) == clock.now().utcoffset()
    assert clock.monotonic() <= clock.monotonic()


def test_a_long_wait_says_once_a_minute_what_for(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A deployment takes up to an hour: somebody who looks at the log is to know."""
    caplog.set_level("INFO", "lifecycle")
    look = reporting(lambda: None, "deploying x", clock)

    wait_until(look, every=[5.0], deadline=190, clock=clock)

    assert [f"Still deploying x, after {minutes} min" for minutes in (1, 2, 3)] == [
        record.getMessage() for record in caplog.records
    ]
