"""A job is canceled at a deadline only on what is positively seen of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from lifecycle.deadlines import SKEW, Deadlines
from lifecycle.job import JobSpec
from lifecycle.logs import Run

START = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def step(status: str, began: float | None = None, ended: float | None = None) -> Run:
    """A step; times in minutes from the start."""
    return Run(
        status,
        status,
        status=status,
        began_at=None if began is None else START + began * MINUTE,
        ended_at=None if ended is None else START + ended * MINUTE,
    )


def judged(
    looks: Sequence[tuple[float, Sequence[Run]]],
    *,
    queue: float = 10,
    run: float = 20,
    created: float | None = 0,
    adopted: bool = False,
    began: float = 0,
) -> list[float]:
    """Return the minutes at which a look finds a deadline exceeded."""
    spec = JobSpec(queue_deadline_minutes=queue, run_deadline_minutes=run)
    deadlines = Deadlines(spec, "ft-x-a1", START + began * MINUTE, is_adopted=adopted)
    created_at = None if created is None else START + created * MINUTE
    return [
        minute
        for minute, steps in looks
        if deadlines.exceeded(START + minute * MINUTE, steps, created_at) is not None
    ]


WAITING = [step("Completed"), step("Queued"), step("NotStarted")]
RUNNING = [step("Completed"), step("Running"), step("NotStarted")]


def test_only_waiting_counts_to_the_queue_deadline() -> None:
    """A step that runs ends the waiting, and it begins anew after it."""
    looks = [(minute, WAITING) for minute in range(10)]
    looks += [(10, RUNNING)]
    looks += [(minute, WAITING) for minute in range(11, 23)]

    assert [22] == judged(looks)


def test_only_running_counts_to_the_run_deadline() -> None:
    """A job that waits for longer than it may run has not run (the gap that was found)."""
    waits = [(minute, WAITING) for minute in range(60)]
    runs = [(minute, RUNNING) for minute in range(60, 82)]

    assert [] == judged(waits, queue=0, run=20)
    assert [81] == judged([*waits, *runs], queue=0, run=20)


@pytest.mark.parametrize("steps", [[], [step("Flummoxed")], [step("Completed")]], ids=str)
def test_where_no_step_is_seen_to_wait_or_run_both_deadlines_together_count(
    steps: list[Run],
) -> None:
    """A job is not canceled because its steps cannot be read, nor does it bill for ever."""
    looks = [(minute, steps) for minute in range(33)]

    assert [31, 32] == judged(looks)
    assert [] == judged(looks, queue=0)
    assert [] == judged(looks, run=0)


def test_what_was_not_seen_counts_neither_way() -> None:
    """A laptop that slept between a running step and a waiting one has seen neither."""
    assert [] == judged([(0, RUNNING), (29, WAITING), (30, RUNNING), (59, WAITING)])


def test_what_an_earlier_call_saw_counts_by_azures_times() -> None:
    """A run that meets its job again does not give it the whole time once more."""
    ran = [step("Completed", 0, 5), step("Running", 5)]
    waits = [step("Completed", 0, 5), step("Queued")]

    assert [26] == judged([(24, ran), (26, ran)], adopted=True, began=24)
    assert [21] == judged([(19, waits), (21, waits)], adopted=True, began=19)
    assert [45] == judged([(34, []), (36, []), (45, [])], adopted=True, began=34)
    assert [] == judged([(24, ran), (26, ran)], adopted=False, began=24)


def test_a_step_that_lost_its_node_waits_since_then_at_the_earliest() -> None:
    """It ran for hours, and is queued again: what it ran is no waiting."""
    looks = [(minute, [step("Queued", 60)]) for minute in range(61, 70)]

    assert [] == judged(looks, adopted=True, began=61)


@pytest.mark.parametrize("other", ["Flummoxed", "Paused"])
def test_beside_a_step_of_which_nothing_is_known_nobody_waits(other: str) -> None:
    """It may be at work; so may one that was not read."""
    looks = [(minute, [step("Queued"), step(other)]) for minute in range(30)]

    assert [] == judged(looks)
    deadlines = Deadlines(JobSpec(queue_deadline_minutes=1), "ft-x-a1", START, is_adopted=False)
    for minute in range(9):
        at = START + minute * MINUTE
        assert None is deadlines.exceeded(at, [step("Queued")], START, is_whole=False)


def test_a_job_of_many_hours_is_not_canceled_between_two_steps() -> None:
    """It waited and ran more often than once, and shows neither for a moment."""
    assert [] == judged([(100, WAITING), (101, [step("Completed")]), (102, RUNNING)], adopted=False)


def test_times_before_there_was_a_job_do_not_count() -> None:
    """A step that began in 1970, as a service spells that it does not know."""
    steps = [step("Running", -(10**7))]

    assert [] == judged([(1, steps), (19, steps)], adopted=True, created=0, began=1)


def test_overlapping_steps_count_once() -> None:
    """Two steps side by side for ten minutes are ten minutes."""
    steps = [step("Running", 0), step("Running", 0)]

    assert [] == judged([(19, steps)], adopted=True, began=19)


@pytest.mark.parametrize("skew", [-4.5, 4.5, 600])
def test_clocks_that_differ_cancel_nothing_early(skew: float) -> None:
    """Azure's clock may be some minutes off ours, or ours hours behind."""
    steps = [step("Running", skew)]
    looks = [(minute, steps) for minute in range(20)]

    assert timedelta(minutes=5) == SKEW
    assert [] == judged(looks, adopted=True, created=skew)
    assert [] == judged([(minute, []) for minute in range(30)], adopted=True, created=skew)


def test_no_deadline_is_none() -> None:
    """0 switches each of them off."""
    for steps in (WAITING, RUNNING, []):
        assert [] == judged([(0, steps), (10**6, steps)], queue=0, run=0)
