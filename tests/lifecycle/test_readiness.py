"""What a run will need is looked at before money is spent, and no look stands in its way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator import settings as names

from lifecycle.auth import WorkspaceResult, WorkspaceSpec, authenticate
from lifecycle.clients import WorkspaceRef
from lifecycle.readiness import (
    CREATE_CLUSTER,
    DELETE_CLUSTER,
    RIGHTS,
    Check,
    Right,
    check_readiness,
    is_allowed,
)
from tests.emulator.conftest import Wire

SUBSCRIPTION = f"/subscriptions/{names.SUBSCRIPTION_ID}"
GROUP = f"{SUBSCRIPTION}/resourceGroups/{names.RESOURCE_GROUP}"
LOCKS = "/Microsoft.Authorization/locks$"
PERMISSIONS = "/Microsoft.Authorization/permissions$"
LOOKS = {
    LOCKS: ("locks", "Whether a lock"),
    PERMISSIONS: ("rights", "Whether your identity"),
    "^/discovery": ("run history", "Logs and progress"),
    "^/history/": ("run history", "Logs and progress"),
    "^/mlflow/": ("mlflow", "Metrics"),
}
DATA_SCIENTIST = {
    "actions": [
        "Microsoft.MachineLearningServices/workspaces/*/read",
        "Microsoft.MachineLearningServices/workspaces/*/action",
        "Microsoft.MachineLearningServices/workspaces/*/delete",
        "Microsoft.MachineLearningServices/workspaces/*/write",
    ],
    "notActions": [
        "Microsoft.MachineLearningServices/workspaces/delete",
        "Microsoft.MachineLearningServices/workspaces/write",
        "Microsoft.MachineLearningServices/workspaces/computes/*/write",
        "Microsoft.MachineLearningServices/workspaces/computes/*/delete",
        "Microsoft.MachineLearningServices/workspaces/computes/listKeys/action",
        "Microsoft.MachineLearningServices/workspaces/listKeys/action",
        "Microsoft.MachineLearningServices/workspaces/hubs/write",
        "Microsoft.MachineLearningServices/workspaces/hubs/delete",
        "Microsoft.MachineLearningServices/workspaces/featurestores/write",
        "Microsoft.MachineLearningServices/workspaces/featurestores/delete",
    ],
}
"""The built-in role as Azure published it on 2023-06-01."""


@pytest.fixture
def found(workspace: WorkspaceRef) -> WorkspaceResult:
    """The emulator's workspace, as the auth step finds it."""
    return authenticate(WorkspaceSpec())


def _answer(path: str, body: str, status: int = 200) -> dict[str, Any]:
    return {"match": {"path": path}, "effect": {"status": status, "body": body}}


def _granted(*entries: Any) -> dict[str, Any]:
    return _answer(PERMISSIONS, json.dumps({"value": entries}))


def _lock(emulator: Any, scope: str, level: str) -> None:
    path = f"{scope}/providers/Microsoft.Authorization/locks/keep"
    answer = Wire(emulator)("PUT", path, {"properties": {"level": level}})
    assert 201 == answer.status_code


def _warnings(checks: list[Check]) -> dict[str, str]:
    return {check.what: f"{check.said} {check.remedy}" for check in checks if not check.is_ok}


def test_all_is_well_in_five_requests(emulator: Any, found: WorkspaceResult) -> None:
    """Each of them a GET; no remedy where there is nothing to be done."""
    before = emulator.requests()[-1]["seq"]
    checks = check_readiness(found, [*RIGHTS, CREATE_CLUSTER])

    sent = [row["method"] for row in emulator.requests(before)]
    assert ["locks", "rights", "run history", "mlflow"] == [check.what for check in checks]
    assert {} == _warnings(checks)
    assert ["GET"] * 5 == sent


@pytest.mark.parametrize(
    ("scope", "place", "remedy"),
    [
        (SUBSCRIPTION, "the subscription", f"--subscription {names.SUBSCRIPTION_ID}`"),
        (GROUP, "the resource group emulator", "--resource-group emulator`"),
        (names.WORKSPACE_ID, "the workspace emulator", "--resource-group emulator`"),
    ],
)
@pytest.mark.parametrize("level", ["CanNotDelete", "ReadOnly"])
def test_a_lock_is_named_with_what_it_would_do(
    emulator: Any, found: WorkspaceResult, scope: str, place: str, remedy: str, level: str
) -> None:
    """Scope, name and level, and the commands that find and delete it."""
    _lock(emulator, scope, level)
    said = _warnings(check_readiness(found))

    assert ["locks"] == list(said)
    assert place in said["locks"]
    assert f"(keep, {level})" in said["locks"]
    assert "would bill until somebody removes the lock" in said["locks"]
    assert f"`az lock list {remedy}" in said["locks"]
    assert f"--ids {scope}/providers/Microsoft.Authorization/locks/keep`" in said["locks"]


def test_each_lock_is_named(emulator: Any, found: WorkspaceResult) -> None:
    """Removing one of two helps nobody."""
    _lock(emulator, SUBSCRIPTION, "CanNotDelete")
    _lock(emulator, GROUP, "ReadOnly")

    checks = check_readiness(found)
    assert 2 == len([check for check in checks if check.what == "locks"])


def test_a_lock_on_something_else_is_none_of_ours(emulator: Any, found: WorkspaceResult) -> None:
    """A list that holds more than was asked for leads to no warning, nor does an unknown level."""
    scopes = (f"{GROUP}/providers/Microsoft.Storage/storageAccounts/x", f"{GROUP}2")
    locks = [
        {
            "id": f"{scope}/providers/Microsoft.Authorization/locks/x",
            "name": "x",
            "properties": {"level": "CanNotDelete"},
        }
        for scope in scopes
    ]
    locks += [{"id": f"{GROUP}/providers/Microsoft.Authorization/locks/x"}]
    emulator.faults(_answer(LOCKS, json.dumps({"value": locks})))

    assert {} == _warnings(check_readiness(found))


@pytest.mark.parametrize("right", [*RIGHTS, CREATE_CLUSTER], ids=lambda right: right.action)
def test_a_missing_right_is_named_with_the_role_that_has_it(
    emulator: Any, found: WorkspaceResult, right: Right
) -> None:
    """And no right that is there."""
    taken = f"Microsoft.MachineLearningServices/workspaces/{right.action}"
    emulator.faults(_granted({"actions": ["*"], "notActions": [taken]}))
    said = _warnings(check_readiness(found, [*RIGHTS, CREATE_CLUSTER]))

    assert ["rights"] == list(said)
    assert f"may not {right.purpose} ({right.action})." in said["rights"]
    assert f"the role {right.role} on the workspace" in said["rights"]


def test_every_right_and_its_role_is_documented() -> None:
    """An administrator who builds a role of their own finds the whole list on one page."""
    page = Path("docs/steps/preflight.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]

    for right in (*RIGHTS, CREATE_CLUSTER, DELETE_CLUSTER):
        [row] = [row for row in rows if f"`{right.action}`" in row]
        assert right.role in row


def test_a_data_scientist_may_do_all_but_make_the_cluster(
    emulator: Any, found: WorkspaceResult
) -> None:
    """As Azure documents the role, whose notActions say computes/*/write."""
    emulator.faults(_granted(DATA_SCIENTIST))

    assert {} == _warnings(check_readiness(found))
    said = _warnings(check_readiness(found, [*RIGHTS, CREATE_CLUSTER]))
    assert "may not create the cluster (computes/write)." in said["rights"]
    assert "AzureML Compute Operator" in said["rights"]


def test_a_reader_is_told_of_every_right_at_once(emulator: Any, found: WorkspaceResult) -> None:
    """Nobody asks an administrator nine times."""
    emulator.faults(_granted({"actions": ["*/read"], "notActions": []}))
    said = _warnings(check_readiness(found))["rights"]

    assert [] == [right.action for right in RIGHTS if f"({right.action})" not in said]


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        ([], False),
        ([{"actions": ["*"]}], True),
        ([{"actions": ["a/b/write"]}], True),
        ([{"actions": ["A/B/WRITE"]}], True),
        ([{"actions": ["a/*"]}], True),
        ([{"actions": ["a/*/write"]}], True),
        ([{"actions": ["*/write"]}], True),
        ([{"actions": ["a/b/*/write"]}], False),
        ([{"actions": ["a/b"]}], False),
        ([{"actions": ["a.b.write"]}], False),
        ([{"actions": ["*"], "notActions": ["a/*"]}], False),
        ([{"actions": ["*"], "notActions": ["*/delete"]}], True),
        ([{"actions": ["*"], "notActions": ["a/b/*/write"]}], False),
        ([{"actions": ["*"], "notActions": ["a/*"]}, {"actions": ["a/b/write"]}], True),
        ([{"actions": ["*"], "notActions": ["a/*"]}, {"actions": ["*/read"]}], False),
        ([{"dataActions": ["*"]}], False),
        ([{"actions": "*"}], False),
        ([{"actions": None, "notActions": None}], False),
        ([{"actions": [None, 1, "*"], "notActions": [None, 1]}], True),
    ],
)
def test_permissions_are_read_as_azure_reads_them(
    granted: list[dict[str, Any]], expected: bool
) -> None:
    """Wildcards, without case; notActions take from their own entry only; entries are a union."""
    assert expected == is_allowed("a/b/write", granted)


@pytest.mark.parametrize("path", LOOKS)
def test_a_look_that_is_refused_is_one_warning(
    emulator: Any, found: WorkspaceResult, path: str
) -> None:
    """It says what is not known or would be missing, and whose role helps; the others go on."""
    refusal = {"code": "AuthorizationFailed", "message": "The client may not."}
    emulator.faults({"match": {"path": path}, "effect": {"status": 403, "error": refusal}})
    checks = check_readiness(found)

    what, said = LOOKS[path]
    warnings = _warnings(checks)
    assert [what] == list(warnings)
    assert said in warnings[what]
    assert "The client may not" in warnings[what]
    assert "role " in warnings[what]
    assert 4 == len(checks)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "1",
        '"x"',
        "<html>",
        "{}",
        '{"value": null}',
        '{"value": [1]}',
        '{"api": 1}',
    ],
)
@pytest.mark.parametrize("path", [LOCKS, PERMISSIONS, "^/discovery"])
def test_an_answer_that_makes_no_sense_is_one_warning(
    emulator: Any, found: WorkspaceResult, path: str, body: str
) -> None:
    """Whatever the shape, nothing is raised."""
    emulator.faults(_answer(path, body))

    assert [LOOKS[path][0]] == list(_warnings(check_readiness(found)))


@pytest.mark.parametrize("path", ["^/history/", "^/mlflow/"])
@pytest.mark.parametrize("body", ["<html>Not found</html>", '{"detail": "Not Found"}', ""])
def test_a_404_of_something_on_the_way_is_no_answer(
    emulator: Any, found: WorkspaceResult, path: str, body: str
) -> None:
    """Only the service's own word that the run is not there shows that it can be read."""
    emulator.faults(_answer(path, body, 404))

    assert [LOOKS[path][0]] == list(_warnings(check_readiness(found)))


def test_nothing_is_waited_for_or_tried_twice(emulator: Any, found: WorkspaceResult) -> None:
    """A courtesy that is throttled for an hour costs a request, not an hour."""
    effect = {"status": 503, "headers": {"Retry-After": "3600"}}
    emulator.faults(*({"match": {"path": path}, "effect": effect} for path in LOOKS))
    before = emulator.requests()[-1]["seq"]
    checks = check_readiness(found)

    assert {"locks", "rights", "run history", "mlflow"} == set(_warnings(checks))
    assert 4 == len(emulator.requests(before))
