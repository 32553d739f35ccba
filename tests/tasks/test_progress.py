"""The training's bar: what it says, how seldom, and that it never is in the run's way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import flow, get_client

from lifecycle.job import JobStep
from lifecycle.logs import LogLine
from tasks import progress
from tasks.progress import TrainingBar

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
FINETUNE = "chat_completion_finetune"


def after(seconds: float) -> datetime:
    """A moment of the job."""
    return NOW + timedelta(seconds=seconds)


def step(status: str = "Running") -> JobStep:
    """The step that trains."""
    return JobStep(name=FINETUNE, status=status, began_at=NOW, ended_at=None)


def line(text: str, source: str = FINETUNE) -> LogLine:
    """A line of the job's log."""
    return LogLine(source=source, text=text)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What Prefect is told, and nobody to tell it to."""
    told: list[tuple[float, str]] = []
    made = __import__("uuid").UUID(int=1)

    def create(progress: float, **words: Any) -> Any:
        told.append((progress, words["description"]))
        return made

    def update(artifact: Any, progress: float, **words: Any) -> Any:
        assert made == artifact
        told.append((progress, words["description"]))

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "update_progress_artifact", update)
    return told


def test_the_bar_tells_step_loss_and_time_left(sent: list[tuple[float, str]]) -> None:
    """From the first look on, and to the job's end."""
    bar = TrainingBar(NOW)
    bar.show([], NOW)
    bar.read(line('step 10/300 {"loss": 3.0}'), after(10))
    bar.show([step()], after(10))
    bar.read(line('step 20/300 {"loss": 1.0}'), after(20))
    bar.show([step()], after(20))
    bar.end("Completed", after(110))

    assert [
        (0.0, "Waiting for the job's first step"),
        (3.3, "Step 10 of 300, loss 3"),
        (6.7, "Step 20 of 300, 4 min 40 s left, loss 1 █▁"),
        (100.0, "Completed after 1 min 50 s, loss 1 █▁"),
    ] == sent


def test_other_steps_are_named_and_do_not_move_it(sent: list[tuple[float, str]]) -> None:
    """The validation counts rows, and the evaluation has a bar of its own in its log."""
    bar = TrainingBar(NOW)
    bar.read(line("step 5/5 {}", source="data_validation"), NOW)
    bar.show([JobStep(name="data_validation", status="Running", began_at=NOW, ended_at=None)], NOW)

    assert [(0.0, "data_validation running")] == sent


def test_hours_of_training_are_some_hundreds_of_updates(sent: list[tuple[float, str]]) -> None:
    """A look every three seconds for eight hours would be ten thousand requests."""
    bar = TrainingBar(NOW)
    for second in range(0, 8 * 3600, 3):
        bar.read(line(f"step {second}/28800 {{}}"), after(second))
        bar.show([step()], after(second))

    assert 300 < len(sent) < 600


def test_a_job_that_failed_leaves_the_bar_where_it_was(sent: list[tuple[float, str]]) -> None:
    """No time is left any more, and it is not full."""
    bar = TrainingBar(NOW)
    bar.read(line("step 50/100 {}"), NOW)
    bar.show([step()], NOW)
    bar.end("JobFailed", after(60))

    assert (50.0, "JobFailed after 1 min 00 s") == sent[-1]


def test_a_prefect_that_refuses_costs_the_bar_and_not_the_run(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; the training is followed on."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(progress, "create_progress_artifact", refuse)

    @flow
    def shown() -> None:
        bar = TrainingBar(NOW)
        for second in (0, 60, 120):
            bar.read(line(f"step {second}/200 {{}}"), after(second))
            bar.show([step()], after(second))

    shown()

    assert 1 == sum("progress of the training" in found.message for found in caplog.records)


def test_prefect_keeps_one_bar_and_brings_it_up_to_date(prefect_server: str) -> None:
    """On a real server: one artifact of the run, which the page reads."""

    @flow
    def shown() -> str:
        from prefect.runtime import flow_run

        bar = TrainingBar(NOW)
        bar.read(line("step 10/100 {}"), NOW)
        bar.show([step()], NOW)
        bar.end("Completed", after(9))
        return str(flow_run.id)

    run_id = shown()

    with get_client(sync_client=True) as client:
        found = [one for one in client.read_artifacts() if str(one.flow_run_id) == run_id]
    assert [(100.0, "training")] == [(one.data, one.key) for one in found]
    assert ["Completed after 9.0 s"] == [one.description for one in found]
