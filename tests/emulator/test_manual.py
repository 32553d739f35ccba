"""Time by hand for single resources: nothing happens to them until they are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator import settings as names

from tests.conftest import RunningEmulator
from tests.emulator.conftest import CATALOG, Wire
from tests.emulator.submitting import NODE, STEPS, Jobs, jobs_catalog

BODY = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}
POLICY = '{"*": immediate, endpoint: manual, compute.scale_down: manual}'


@pytest.fixture
def by_hand(start_emulator: Callable[..., RunningEmulator], tmp_path: Path) -> RunningEmulator:
    """An emulator in which endpoints wait to be told, and all else is immediate."""
    return _start(start_emulator, tmp_path)


def _start(start_emulator: Callable[..., RunningEmulator], folder: Path) -> RunningEmulator:
    (folder / "latency.yaml").write_text(POLICY)
    (folder / "catalog.yaml").write_text(CATALOG)
    return start_emulator(
        latency=str(folder / "latency.yaml"), catalog=str(folder / "catalog.yaml")
    )


def _state(wire: Wire, name: str) -> str:
    return str(wire("GET", f"onlineEndpoints/{name}").json()["properties"]["provisioningState"])


def _release(wire: Wire, **what: str) -> list[str]:
    answer = wire("POST", "/_emulator/advance", what)
    assert answer.status_code == 200, answer.text
    return [one["resource"].rpartition("/")[2] for one in answer.json()["released"]]


def test_a_resource_waits_until_it_is_named(by_hand: RunningEmulator) -> None:
    """One endpoint is Creating for as long as the test likes, while another goes on."""
    wire = Wire(by_hand)
    for name in ("chat-1", "chat-2"):
        wire("PUT", f"onlineEndpoints/{name}", BODY)
    before = [_state(wire, "chat-1"), _state(wire, "chat-2")]
    released = _release(wire, kind="endpoint.create", resource="CHAT-2")

    assert (["Creating", "Creating"], ["chat-2"]) == (before, released)
    assert ["Creating", "Succeeded"] == [_state(wire, "chat-1"), _state(wire, "chat-2")]


def test_what_waits_is_listed(by_hand: RunningEmulator) -> None:
    """The timeline says what will happen, to whom, and that no time will bring it."""
    wire = Wire(by_hand)
    wire("PUT", "onlineEndpoints/chat-1", BODY)
    listed = wire("GET", "/_emulator/timeline").json()["events"]
    _release(wire, kind="endpoint")

    resource = f"{names.WORKSPACE_ID}/onlineEndpoints/chat-1"
    assert [{"kind": "endpoint.create", "resource": resource, "due": None}] == listed
    assert [] == wire("GET", "/_emulator/timeline").json()["events"]


def test_only_what_is_named_is_released(by_hand: RunningEmulator) -> None:
    """Another kind, half a name, and what is not there release nothing."""
    wire = Wire(by_hand)
    wire("PUT", "onlineEndpoints/chat-1", BODY)
    nothing = [
        _release(wire, kind="endpoint.delete"),
        _release(wire, kind="endp"),
        _release(wire, resource="1"),
        _release(wire, kind="endpoint", resource="chat-2"),
    ]

    assert [[], [], [], []] == nothing
    assert ["chat-1"] == _release(wire, resource="onlineEndpoints/chat-1")


@pytest.mark.parametrize(
    "body",
    [{"seconds": 1, "kind": "endpoint"}, {"kind": 1}, {"sort": "endpoint"}, {"seconds": True}],
)
def test_what_makes_no_sense_is_refused(by_hand: RunningEmulator, body: Any) -> None:
    """400, so that a test with a misspelt word does not wait for ever."""
    assert 400 == Wire(by_hand)("POST", "/_emulator/advance", body).status_code


def test_a_deletion_by_hand_outlives_a_restart(
    by_hand: RunningEmulator, start_emulator: Callable[..., RunningEmulator], tmp_path: Path
) -> None:
    """It waits on, is billed on, and ends when it is named."""
    wire = Wire(by_hand)
    wire("PUT", "onlineEndpoints/chat-1", BODY)
    _release(wire, resource="chat-1")
    operation = wire("DELETE", "onlineEndpoints/chat-1").headers["Azure-AsyncOperation"]
    by_hand.server.stop()
    again = _start(start_emulator, tmp_path)
    wire, meters = Wire(again), again.open_meters()
    before = wire("GET", operation).json()["status"]
    _release(wire, kind="endpoint.delete")

    assert ("InProgress", 1) == (before, len(meters))
    assert "Succeeded" == wire("GET", operation).json()["status"]
    assert [] == again.open_meters()


def test_idle_nodes_go_when_they_are_told(by_hand: RunningEmulator) -> None:
    """A cluster that stays up after its job, for a sweep to find."""
    from azureml_emulator.services import compute

    wire, kept = Wire(by_hand), by_hand.server.emulator
    size = {"vmSize": "Standard_DS3_v2", "scaleSettings": {"maxNodeCount": 2}}
    body = {"properties": {"computeType": "AmlCompute", "properties": size}}
    wire("PUT", "computes/cpu", body)
    kept.settle()
    assert compute.acquire_nodes(kept, "cpu", 2, "job")
    compute.release_nodes(kept, "cpu", "job")
    before = len(by_hand.open_meters())

    assert (1, ["cpu"]) == (before, _release(wire, kind="compute.scale_down"))
    assert [] == by_hand.open_meters()


def test_a_job_may_be_stopped_at_any_beat(
    start_emulator: Callable[..., RunningEmulator], tmp_path: Path
) -> None:
    """Its training is Running, half of the log there, until it is told to go on."""
    (tmp_path / "latency.yaml").write_text('{"*": immediate, job.step: manual}')
    jobs = Jobs(
        start_emulator(latency=str(tmp_path / "latency.yaml"), catalog=jobs_catalog(tmp_path))
    )
    jobs.submit("ft-1")
    seen = set()
    while (steps := jobs.steps("ft-1")) and STEPS[3] not in steps:
        seen |= set(_release(jobs.wire, kind="job.beat"))
    training = steps[STEPS[3]]

    assert "Running" == training["status"] == jobs.status("ft-1")
    assert "***** Running training *****" in jobs.log(training["runId"])
    assert {jobs.steps("ft-1")[key]["runId"] for key in STEPS[:3]} == seen
    assert NODE in jobs.children("ft-1")
