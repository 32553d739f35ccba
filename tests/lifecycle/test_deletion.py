"""An endpoint is said to be deleted only when it is, and is named when it may still be billed."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.deletion import (
    UNANSWERED_WINDOW_SECONDS,
    DeletedAt,
    confirm_deleted,
    delete_endpoint,
    request_delete,
)
from lifecycle.endpoint import EndpointRef, EndpointSpec, create_endpoint, deploy
from lifecycle.errors import StillBilling
from lifecycle.registration import RegisteredModel

DELETE = {"method": "DELETE", "path": "/onlineEndpoints/[^/]+$"}
GET = {"method": "GET", "path": "/onlineEndpoints/[^/]+$"}
# The SDK tries three times more, at the pace that it is asked for.
EVERY_TRY = [1, 2, 3, 4]
SOON = {"Retry-After": "0.01"}


def fault(match: dict[str, str], effect: dict[str, Any], nth: list[int]) -> dict[str, Any]:
    """One fault rule."""
    return {"match": match, "nth": nth, "effect": effect}


def refusal(status: int, code: str) -> dict[str, Any]:
    """What Azure answers when it refuses."""
    body = f'{{"error": {{"code": "{code}", "message": "Not now."}}}}'
    return {"status": status, "body": body, "headers": SOON}


def sent(emulator: Any, name: str) -> list[tuple[str, int]]:
    """Method and status of the requests for this endpoint."""
    return [
        (row["method"], row["status"])
        for row in emulator.requests()
        if row["path"].lower().endswith(f"/onlineendpoints/{name.lower()}")
    ]


@pytest.fixture
def live(
    workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    model: RegisteredModel,
) -> str:
    """The name of an endpoint that is up and billed."""
    create_endpoint(workspace, endpoint_spec, endpoint)
    deploy(workspace, endpoint_spec, endpoint, model)
    return endpoint.name


def test_deleted_is_said_after_a_404(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """The delete is sent first; the last word is a GET that finds nothing; no meter runs."""
    assert 0 < emulator.ledger()["open"]
    before = len(sent(emulator, live))

    deleted = delete_endpoint(workspace, live, clock=clock)

    assert DeletedAt(name=live, deleted_at=clock.now()) == deleted
    requests = sent(emulator, live)[before:]
    assert ("DELETE", 202) == requests[0]
    assert ("GET", 404) == requests[-1]
    assert 0 == emulator.ledger()["open"]


def test_deleting_again_is_no_error(workspace: WorkspaceRef, live: str, clock: Any) -> None:
    """Hooks, automations and the sweep may all delete the same endpoint."""
    delete_endpoint(workspace, live, clock=clock)

    assert live == delete_endpoint(workspace, live, clock=clock).name


def test_an_endpoint_that_never_was_is_deleted(
    emulator: Any, workspace: WorkspaceRef, clock: Any
) -> None:
    """A run that failed before its create cleans up without an error, and without waiting."""
    assert "ultrachat-none-a1" == delete_endpoint(workspace, "ultrachat-none-a1", clock=clock).name
    assert [] == clock.slept


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "ExpiredToken"),
        (403, "AuthorizationFailed"),
        (403, "Forbidden"),
        (409, "Conflict"),
        (429, "TooManyRequests"),
        (503, "ServerBusy"),
    ],
)
def test_a_refusal_that_passes_is_waited_out(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any, status: int, code: str
) -> None:
    """ARM's caches, a running operation, throttling and an outage leave no bill running."""
    emulator.faults(fault(DELETE, refusal(status, code), list(range(1, 9))))

    delete_endpoint(workspace, live, clock=clock)

    assert 0 == emulator.ledger()["open"]


def test_a_delete_that_azure_accepts_and_fails_is_sent_again(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """An accepted delete is a promise, not a fact."""
    failed = {"operation_error": {"code": "OperationCanceled", "message": "A lock forbids it."}}
    emulator.faults(fault(DELETE, failed, [1]))

    delete_endpoint(workspace, live, clock=clock)

    deletes = [status for method, status in sent(emulator, live) if method == "DELETE"]
    assert 2 <= len(deletes)
    assert 0 == emulator.ledger()["open"]


def test_a_refusal_that_stays_names_what_is_billed(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """When the deadline passes, the person learns the name, the reason and the remedy."""
    emulator.faults({"match": DELETE, "effect": refusal(403, "AuthorizationFailed")})

    with pytest.raises(StillBilling) as problem:
        delete_endpoint(workspace, live, deadline_seconds=60, clock=clock)

    assert [f"onlineEndpoints/{live}"] == problem.value.resources
    assert "AuthorizationFailed" in problem.value.message
    assert live in problem.value.message
    assert "finetune sweep --apply" in problem.value.remedy
    assert 60 == pytest.approx(sum(clock.slept))


def test_an_operation_in_progress_may_take_its_time(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
) -> None:
    """Azure refuses to delete in mid-deployment, and is asked again until that is over."""
    create_endpoint(slow_workspace, endpoint_spec, endpoint, clock=clock)
    busy = '{"error": {"code": "Conflict", "message": "Another operation is in progress."}}'
    slow_emulator.faults({"match": DELETE, "effect": {"status": 409, "body": busy}})
    over = clock.monotonic() + 90
    clock.on_sleep = lambda seconds: slow_emulator.faults() if clock.monotonic() > over else None

    request_delete(
        slow_workspace, endpoint.name, deadline_seconds=60, operation_seconds=120, clock=clock
    )

    assert over < clock.monotonic() < over + 10


def test_what_keeps_a_deletion_waiting_is_told(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At once, with how long it may take, and then once a minute: Ctrl-C waits in no silence."""
    create_endpoint(slow_workspace, endpoint_spec, endpoint, clock=clock)
    slow_emulator.faults({"match": DELETE, "effect": refusal(409, "OperationInProgress")})

    with caplog.at_level(logging.INFO, "lifecycle"), pytest.raises(StillBilling):
        request_delete(
            slow_workspace, endpoint.name, deadline_seconds=60, operation_seconds=300, clock=clock
        )

    said = [record for record in caplog.records if record.name.startswith("lifecycle")]
    first, *minutes = [
        record.getMessage() for record in said if "waiting" not in record.getMessage()
    ]
    assert "is asked again for up to 5 min" in first
    assert [1, 2, 3, 4] == [int(re.findall(r"after (\d+) min", line)[0]) for line in minutes]
    assert all("OperationInProgress" in line for line in [first, *minutes])


@pytest.mark.parametrize("scope", ["resource group", "endpoint"])
def test_a_lock_ends_it_at_once(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any, scope: str
) -> None:
    """It will not go by itself: the person learns what is locked, and how to find the lock."""
    locked = f"/subscriptions/s/resourceGroups/ml{'' if scope == 'resource group' else '/x'}"
    said = f"cannot perform delete operation because following scope(s) are locked: '{locked}'."
    effect = {
        "status": 409,
        "error": {"code": "ScopeLocked", "message": f"The scope '{live}' {said}"},
    }
    emulator.faults({"match": DELETE, "effect": effect})

    with pytest.raises(StillBilling) as problem:
        request_delete(workspace, live, deadline_seconds=600, operation_seconds=4500, clock=clock)

    assert [] == clock.slept
    assert [f"onlineEndpoints/{live}"] == problem.value.resources
    assert locked in problem.value.message
    assert "az lock list" in problem.value.remedy
    assert "finetune sweep --apply" in problem.value.remedy


@pytest.mark.parametrize(
    "effect",
    [
        {"status": 404, "body": "<html>x</html>", "headers": {"Content-Type": "text/html"}},
        {"status": 404, "error": {"code": "ResourceGroupNotFound", "message": "No such group."}},
    ],
)
def test_not_every_404_is_a_deletion(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any, effect: dict[str, Any]
) -> None:
    """A proxy's page, or a parent's 404, says nothing of an endpoint that is billed."""
    emulator.faults({"match": {"path": "/onlineEndpoints/[^/]+$"}, "effect": effect})

    with pytest.raises(StillBilling):
        delete_endpoint(workspace, live, deadline_seconds=60, clock=clock)

    assert 0 < emulator.ledger()["open"]


@pytest.mark.parametrize("asked", ["80", "86400"])
def test_a_long_pause_that_azure_asks_for_is_kept_within_reason(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any, asked: str
) -> None:
    """While it is billed it is asked again, whatever Retry-After says."""
    busy = {"status": 429, "headers": {"Retry-After": asked}}
    emulator.faults(fault(DELETE, busy, [1]))

    delete_endpoint(workspace, live, clock=clock)

    assert sum(clock.slept) < 100
    assert 0 == emulator.ledger()["open"]


@pytest.mark.parametrize("body", ["", "{}", "[]", "null", "<html>"])
def test_a_blank_answer_is_no_deletion(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any, body: str
) -> None:
    """An answer that cannot be read is asked for again, and is named where it stays so."""
    emulator.faults({"match": GET, "effect": {"status": 200, "body": body}})

    with pytest.raises(StillBilling):
        delete_endpoint(workspace, live, deadline_seconds=30, clock=clock)

    emulator.faults({"match": GET, "nth": [1], "effect": {"status": 200, "body": body}})
    assert live == delete_endpoint(workspace, live, clock=clock).name


def test_an_outage_is_never_taken_for_a_deletion(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """Only a 404 says that it is gone."""
    emulator.faults({"match": GET, "effect": refusal(503, "ServerBusy")})

    with pytest.raises(StillBilling, match="Azure did not say after 30 seconds"):
        delete_endpoint(workspace, live, deadline_seconds=30, clock=clock)


def test_a_request_to_delete_returns_before_it_is_done(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
) -> None:
    """A cancelled run has seconds: the delete is accepted in them, the rest comes after."""
    create_endpoint(slow_workspace, endpoint_spec, endpoint, clock=clock)
    slept = len(clock.slept)

    request_delete(slow_workspace, endpoint.name, clock=clock)

    assert slept == len(clock.slept)
    found = ml_client(slow_workspace).online_endpoints.get(endpoint.name)
    assert "Deleting" == found.provisioning_state
    assert endpoint.name == confirm_deleted(slow_workspace, endpoint.name, clock=clock).name
    assert 30 < sum(clock.slept[slept:]) < 45


def test_the_deletion_that_takes_too_long_is_named(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
) -> None:
    """A deletion in progress is not a deletion."""
    create_endpoint(slow_workspace, endpoint_spec, endpoint, clock=clock)

    with pytest.raises(StillBilling, match="It was Deleting after 10 seconds"):
        delete_endpoint(slow_workspace, endpoint.name, deadline_seconds=10, clock=clock)


def test_a_create_that_was_never_answered_is_watched_for(
    emulator: Any,
    workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
) -> None:
    """An endpoint that comes into being after the first 404 is deleted all the same."""

    def late(seconds: float) -> None:
        if len(clock.slept) == 5:
            create_endpoint(workspace, endpoint_spec, endpoint)

    clock.on_sleep = late

    delete_endpoint(workspace, endpoint.name, create_unanswered=True, clock=clock)

    methods = [method for method, _ in sent(emulator, endpoint.name)]
    assert ["PUT", "DELETE"] == [each for each in methods[1:] if each != "GET"]
    assert 0 == emulator.ledger()["open"]


def test_the_watch_for_a_late_endpoint_ends(
    emulator: Any, workspace: WorkspaceRef, clock: Any
) -> None:
    """A create that never arrived costs the stated window, not the whole deadline."""
    delete_endpoint(workspace, "ultrachat-none-a1", create_unanswered=True, clock=clock)

    assert UNANSWERED_WINDOW_SECONDS <= sum(clock.slept) <= UNANSWERED_WINDOW_SECONDS + 5


def test_a_watch_cut_short_says_so(emulator: Any, workspace: WorkspaceRef, clock: Any) -> None:
    """A 404 within the window is no proof, and is not passed off as one."""
    with pytest.raises(StillBilling, match="may still take effect after 10 seconds"):
        delete_endpoint(
            workspace,
            "ultrachat-none-a1",
            create_unanswered=True,
            deadline_seconds=10,
            clock=clock,
        )
