"""A look at the states themselves: for crashes, and deaths, whose event Prefect's server lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.states import Cancelling, Completed, Crashed, Pending, Running, State

from flows.restart import restart_missed_runs
from lifecycle.errors import ConfigurationError
from lifecycle.waiting import SystemClock
from tasks.runs import restart_missed
from tests.flows.heartbeats import beat

NOW, LATER = timedelta(0), timedelta(hours=1)


class Jump(SystemClock):
    """Calls something instead of sleeping, and is so many hours ahead."""

    def __init__(self, ahead: float = 0) -> None:
        self.slept: list[float] = []
        self.instead: Callable[[], None] = lambda: None
        self.ahead = timedelta(hours=ahead)

    def now(self) -> datetime:
        return super().now() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.instead()


@pytest.fixture
def deployment(prefect_server: str) -> Iterator[str]:
    """A deployment whose runs nobody picks up, as ``flow/deployment``."""
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name(f"flow-{uuid.uuid4()}")
        made = client.create_deployment(flow_id=flow, name="watched")
        yield f"{client.read_flow(flow).name}/watched"
        client.delete_deployment(made)


def run_in(deployment: str, *states: State[Any]) -> str:
    """Make a run of the deployment that has just come into these states, one after another."""
    with get_client(sync_client=True) as client:
        of = client.read_deployment_by_name(deployment).id
        run = client.create_flow_run_from_deployment(of)
        for state in states:
            client.set_flow_run_state(run.id, state, force=True)
    return str(run.id)


def state_of(run: str) -> str | None:
    """Return the name of the run's state."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run)).state_name


def test_a_crash_that_no_automation_saw_is_started_again(deployment: str) -> None:
    """Once; what a person has ended, what is over, and what was started often enough is left."""
    crashed = run_in(deployment, Running(), Crashed())
    cancelled = run_in(deployment, Running(), Cancelling(), Crashed())
    completed = run_in(deployment, Running(), Completed())
    often = run_in(deployment, *([Running(), Crashed()] * 3))

    done = restart_missed([deployment], NOW, LATER, most_attempts=3)

    assert {crashed, cancelled, often} == set(done)
    assert "Attempt 2: accept." == done[crashed]
    assert ["AwaitingRetry", "Cancelled", "Completed", "Crashed"] == [
        state_of(run) for run in (crashed, cancelled, completed, often)
    ]
    again = restart_missed([deployment], NOW, LATER, most_attempts=3)
    assert {often} == set(again)


def test_the_automation_is_given_its_time(deployment: str) -> None:
    """A run that has only just crashed is not looked at, nor one of another deployment."""
    run = run_in(deployment, Running(), Crashed())

    assert {} == restart_missed_runs([deployment])
    assert {} == restart_missed([], NOW, NOW, 3)
    assert "Crashed" == state_of(run)


def test_a_run_that_fell_silent_has_crashed(deployment: str) -> None:
    """One that never gave a sign may have been told to give none; it is left."""
    silent, mute = run_in(deployment, Running()), run_in(deployment, Running())
    beat(silent)

    clock = Jump(ahead=0.9)
    assert {} == restart_missed([deployment], LATER, timedelta(hours=1), 3, clock)
    assert [] == clock.slept
    assert [silent] == list(restart_missed([deployment], LATER, timedelta(hours=0.5), 3, clock))

    assert [360] == clock.slept
    assert ("Crashed", "Running") == (state_of(silent), state_of(mute))


def test_a_run_that_prefect_could_not_hear_is_given_another_moment(deployment: str) -> None:
    """Prefect was away, and has just come back: the next heartbeat is on its way."""
    run = run_in(deployment, Running())
    beat(run)
    clock = Jump(ahead=1)
    # By the time that it looks again, the last heartbeat is a new one.
    clock.instead = lambda: setattr(clock, "ahead", timedelta(0))

    assert {} == restart_missed([deployment], LATER, timedelta(minutes=30), 3, clock)

    assert [360] == clock.slept


def test_a_run_whose_runner_died_while_it_was_cancelled_is_cancelled(deployment: str) -> None:
    """From Cancelling, Prefect lets it go nowhere else, and nobody starts it again."""
    run = run_in(deployment, Running(), Cancelling())
    beat(run)

    done = restart_missed([deployment], LATER, timedelta(minutes=30), 3, Jump(ahead=0.9))

    assert [True] == [said.startswith("Cancelled: accept.") for said in done.values()]
    assert "Cancelled" == state_of(run)


def test_a_run_that_never_began_has_crashed(deployment: str) -> None:
    """Who was to start it died between the two: Prefect gives it to nobody else."""
    run = run_in(deployment, Pending())

    assert {} == restart_missed([deployment], LATER, NOW, 3, Jump(ahead=0.9))
    assert [run] == list(restart_missed([deployment], LATER, NOW, 3, Jump(ahead=1.1)))

    assert "Crashed" == state_of(run)


def test_a_deployment_that_is_not_there_is_named(prefect_server: str) -> None:
    """A typing error would else look after nothing, for ever."""
    with pytest.raises(ConfigurationError, match="no-flow/nowhere: there is no such deployment"):
        restart_missed(["no-flow/nowhere"], NOW, NOW, 3)
