"""How far training is, read from the lines of a log: ours, and Hugging Face's."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from lifecycle.pulse import TrainingPulse, sparkline

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "line",
    [
        'step 12/60 {"loss": 0.71, "learning_rate": 0.001, "epoch": 0.2}',
        " 20%|██        | 12/60 [00:31<02:04,  2.60s/it]{'loss': 0.71, 'epoch': 0.2}",
        " 20%|██        | 12/60 [00:31<02:04,  2.60s/it]{'loss': '0.71', 'grad_norm': '1.2'}",
    ],
    ids=["ours", "transformers", "transformers-5"],
)
def test_step_and_loss_are_read(line: str) -> None:
    """Whichever trainer wrote the line."""
    pulse = TrainingPulse()
    pulse.read(line, NOW)

    assert (12, 60, [0.71]) == (pulse.done, pulse.total, pulse.losses)


def test_other_lines_change_nothing() -> None:
    """An evaluation's loss is not training's, and NaN is no number to draw."""
    pulse = TrainingPulse()
    for line in ("Status: Running", '{"eval_loss": 0.5}', '{"loss": NaN}', "48 of 240 rows", ""):
        pulse.read(line, NOW)

    assert (0, 0, []) == (pulse.done, pulse.total, pulse.losses)


def test_the_time_left_follows_from_the_pace() -> None:
    """Ten steps in twenty seconds leave sixty for thirty; it counts down between two lines."""
    pulse = TrainingPulse()
    pulse.read("step 10/50 {}", NOW)
    assert None is pulse.seconds_left(NOW)
    pulse.read("step 20/50 {}", NOW + timedelta(seconds=20))

    assert 60.0 == pulse.seconds_left(NOW + timedelta(seconds=20))
    assert 50.0 == pulse.seconds_left(NOW + timedelta(seconds=30))
    assert 0.0 == pulse.seconds_left(NOW + timedelta(seconds=300))


def test_a_job_that_began_anew_is_timed_anew() -> None:
    """After a preemption the steps begin at the checkpoint, at another pace."""
    pulse = TrainingPulse()
    pulse.read("step 30/50 {}", NOW)
    pulse.read("step 20/50 {}", NOW + timedelta(seconds=500))
    pulse.read("step 30/50 {}", NOW + timedelta(seconds=510))

    assert 20.0 == pulse.seconds_left(NOW + timedelta(seconds=510))


def test_what_was_logged_before_anybody_looked_says_nothing_of_the_pace() -> None:
    """A run that comes back to its job reads five hundred steps at once."""
    pulse = TrainingPulse()
    for done in range(1, 501):
        pulse.read(f"step {done}/1000 {{}}", NOW)
    pulse.read("step 510/1000 {}", NOW + timedelta(seconds=100))

    assert 4900.0 == pulse.seconds_left(NOW + timedelta(seconds=100))


def test_a_sparkline_falls_as_the_loss_does() -> None:
    """From full to empty, as many blocks as there is room for."""
    assert "█▅▁" == sparkline([3.0, 2.0, 1.0], 10)
    assert 10 == len(sparkline([float(n) for n in range(100)], 10))
    assert "▁▁" == sparkline([1.0, 1.0], 10)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_a_single_value_is_no_line(values: list[float]) -> None:
    """Nothing is drawn of one point."""
    assert "" == sparkline(values, 10)
