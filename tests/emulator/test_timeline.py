"""What will happen: in the order of time, once, also after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_emulator.clock import ManualClock
from azureml_emulator.emulator import OPERATION, Emulator
from azureml_emulator.errors import OperationFailed
from azureml_emulator.routing import Call
from azureml_emulator.settings import Settings
from azureml_emulator.timeline import Event


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def emulator(tmp_path: Path, clock: ManualClock) -> Iterator[Emulator]:
    emulator = Emulator(Settings(tmp_path, jobs="scripted"), clock=clock)
    yield emulator
    emulator.close()


def _call(effects: dict[str, object] | None = None) -> Call:
    return Call("PUT", "/", {}, {}, {}, b"", "https://localhost:1", effects or {})


def test_events_happen_in_the_order_of_time_each_at_its_own_moment(
    emulator: Emulator, clock: ManualClock
) -> None:
    """A long leap of the clock plays what was due inside it as it would have happened."""
    seen: list[tuple[str, float]] = []

    def note(within: Emulator, event: Event) -> None:
        seen.append((event.subject, within.now()))
        if event.subject == "first":
            within.schedule("note", "between", after=5)

    emulator.appliers["note"] = note
    emulator.schedule("note", "last", after=30)
    emulator.schedule("note", "first", after=10)
    clock.advance(100)
    emulator.settle()

    assert [("first", 1010.0), ("between", 1015.0), ("last", 1030.0)] == seen


def test_nothing_happens_before_its_time_nor_twice(emulator: Emulator, clock: ManualClock) -> None:
    """An event is applied once, and not early."""
    seen: list[str] = []
    emulator.appliers["note"] = lambda within, event: seen.append(event.subject)
    emulator.schedule("note", "x", after=10)
    clock.advance(9)
    emulator.settle()
    early = list(seen)
    clock.advance(1)
    emulator.settle()
    emulator.settle()

    assert [] == early
    assert ["x"] == seen


def test_cancel_drops_only_what_it_names(emulator: Emulator, clock: ManualClock) -> None:
    """A job that is cancelled loses its own coming steps and nobody else's."""
    seen: list[str] = []
    emulator.appliers |= {
        kind: lambda within, event: seen.append(f"{event.kind} {event.subject}")
        for kind in ("job.step", "other")
    }
    emulator.schedule("job.step", "/a", after=1)
    emulator.schedule("other", "/a", after=1)
    emulator.schedule("job.step", "/b", after=1)
    emulator.timeline.cancel("/A", kind_prefix="job.")
    clock.advance(2)
    emulator.settle()

    assert ["other /a", "job.step /b"] == seen


def test_events_survive_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """What was under way when the emulator stopped ends after it is started again."""
    before = Emulator(Settings(tmp_path, jobs="scripted"), clock=clock)
    before.schedule("note", "x", after=10, payload={"n": 1})
    before.close()
    clock.advance(60)

    seen: list[Event] = []
    after = Emulator(Settings(tmp_path, jobs="scripted"), clock=clock)
    after.appliers["note"] = lambda within, event: seen.append(event)
    after.settle()
    after.close()

    assert [("x", {"n": 1}, 1010.0)] == [(one.subject, one.payload, one.due) for one in seen]


def test_an_operation_ends_when_its_event_has_been_applied(
    emulator: Emulator, clock: ManualClock
) -> None:
    """InProgress until then, Succeeded after, at the moment at which it was due."""
    emulator.appliers["thing.create"] = lambda within, event: None
    headers = emulator.begin_operation(_call(), "thing.create", "/thing", after=10)
    name = headers["Azure-AsyncOperation"].split("/")[-1].split("?")[0]
    before = emulator.store.get(OPERATION, name)
    clock.advance(10)
    emulator.settle()
    after = emulator.store.get(OPERATION, name)

    assert before is not None
    assert after is not None
    assert ("InProgress", "Succeeded") == (before["status"], after["status"])
    assert "1970-01-01T00:16:50.000000+00:00" == after["endTime"]


@pytest.mark.parametrize("by", ["fault", "applier"])
def test_an_operation_fails_by_a_fault_or_by_its_applier(emulator: Emulator, by: str) -> None:
    """Its end is Failed with the error, and the applier is told of a fault's."""
    error = {"code": "ResourceNotReady", "message": "The probe failed."}
    told: list[object] = []

    def apply(within: Emulator, event: Event) -> None:
        told.append(event.payload.get("error"))
        if by == "applier":
            raise OperationFailed(error["code"], error["message"])

    emulator.appliers["thing.create"] = apply
    call = _call({"operation_error": error} if by == "fault" else None)
    headers = emulator.begin_operation(call, "thing.create", "/thing", after=0)
    emulator.settle()
    name = headers["Azure-AsyncOperation"].split("/")[-1].split("?")[0]
    ended = emulator.store.get(OPERATION, name)

    assert ended is not None
    assert "Failed" == ended["status"]
    assert {**error, "details": []} == ended["error"]
    assert [error if by == "fault" else None] == told


def test_two_emulators_cannot_share_a_state_folder(tmp_path: Path, clock: ManualClock) -> None:
    """The second is refused, so that neither spoils what the other has acknowledged."""
    first = Emulator(Settings(tmp_path, jobs="scripted"), clock=clock)
    with pytest.raises(OSError, match="another emulator is running on"):
        Emulator(Settings(tmp_path, jobs="scripted"), clock=clock)
    first.close()

    Emulator(Settings(tmp_path, jobs="scripted"), clock=clock).close()
