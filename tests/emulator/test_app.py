"""One request from wire to wire: found, let in, handled, broken on purpose, and written down."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from azureml_emulator import settings as names
from azureml_emulator.app import App
from azureml_emulator.clock import ManualClock
from azureml_emulator.emulator import Emulator
from azureml_emulator.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import RunningEmulator
    from tests.emulator.conftest import Wire

ENDPOINT = "onlineEndpoints/chat-1"
BODY = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}


def test_what_is_not_emulated_says_so(wire: Wire) -> None:
    """501 naming the route, so that a gap is never taken for Azure's own 404."""
    answer = wire("PATCH", f"{names.WORKSPACE_ID}/batchEndpoints/x")
    error = answer.json()["error"]

    assert (501, "NotEmulated") == (answer.status_code, error["code"])
    assert f"PATCH {names.WORKSPACE_ID}/batchEndpoints/x" in error["message"]


def test_paths_compare_without_case(wire: Wire) -> None:
    """The SDK writes resourceGroups here and resourcegroups there."""
    wire("PUT", ENDPOINT, BODY)

    assert 200 == wire("GET", f"{names.WORKSPACE_ID}/onlineEndpoints/CHAT-1".lower()).status_code


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (names.SUBSCRIPTION_ID, "11111111-0000-4000-8000-000000000000", "SubscriptionNotFound"),
        ("/resourceGroups/emulator", "/resourceGroups/mine", "ResourceGroupNotFound"),
        ("/workspaces/emulator", "/workspaces/mine", "ResourceNotFound"),
    ],
)
def test_another_workspace_is_not_found(wire: Wire, old: str, new: str, code: str) -> None:
    """A client that is led to the wrong workspace is told so, as ARM does."""
    answer = wire("GET", f"{names.WORKSPACE_ID}/onlineEndpoints".replace(old, new))

    assert (404, code) == (answer.status_code, answer.json()["error"]["code"])


def _claims(**changes: Any) -> dict[str, Any]:
    return {"aud": "https://localhost", "exp": 9_999_999_999, **changes}


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (None, "AuthenticationFailed"),
        ("Basic abc", "AuthenticationFailed"),
        ("Bearer ", "AuthenticationFailed"),
        ("Bearer abc", "InvalidAuthenticationToken"),
        (f"Bearer {jwt.encode(_claims(), 'x' * 32)}", "InvalidAuthenticationToken"),
    ],
)
def test_a_token_that_is_not_ours_is_refused(wire: Wire, token: str | None, code: str) -> None:
    """Missing, garbled, or signed by somebody else: 401."""
    answer = wire("GET", ENDPOINT, headers={"Authorization": token})

    assert (401, code) == (answer.status_code, answer.json()["error"]["code"])


def test_a_token_for_something_else_or_too_old_is_refused(
    timed: RunningEmulator, timed_wire: Wire
) -> None:
    """The audience must be ARM's, and its hour not over."""
    emulator = timed.server.emulator
    storage = emulator.tokens.issue("https://storage.azure.com", now=emulator.now())
    ours = emulator.tokens.issue(f"{timed.url}/.default", now=emulator.now())
    wrong = timed_wire("GET", ENDPOINT, headers={"Authorization": f"Bearer {storage}"})
    right = timed_wire("GET", ENDPOINT, headers={"Authorization": f"Bearer {ours}"})
    timed.advance(3600)
    late = timed_wire("GET", ENDPOINT, headers={"Authorization": f"Bearer {ours}"})

    assert [401, 404, 401] == [one.status_code for one in (wrong, right, late)]
    assert "InvalidAuthenticationTokenAudience" == wrong.json()["error"]["code"]
    assert "ExpiredAuthenticationToken" == late.json()["error"]["code"]


def test_a_fault_strikes_before_anything_is_changed(serving: RunningEmulator, wire: Wire) -> None:
    """The answer is the rule's, with its headers, and the resource was never made."""
    effect = {"status": 503, "headers": {"Retry-After": "7"}}
    serving.faults({"match": {"method": "PUT"}, "effect": effect})
    answer = wire("PUT", ENDPOINT, BODY)

    assert (503, "7") == (answer.status_code, answer.headers["Retry-After"])
    assert "InjectedFault" == answer.json()["error"]["code"]
    assert 404 == wire("GET", ENDPOINT).status_code


def test_a_fault_can_strike_after_the_change(serving: RunningEmulator, wire: Wire) -> None:
    """The client is told 500 although the endpoint was made: the ambiguous failure."""
    serving.faults({"match": {"method": "PUT"}, "effect": {"status": 500, "after": True}})

    assert 500 == wire("PUT", ENDPOINT, BODY).status_code
    assert 200 == wire("GET", ENDPOINT).status_code


def test_requests_are_written_down(serving: RunningEmulator, wire: Wire) -> None:
    """Each once, in order, with what befell it; the control routes are not among them."""
    serving.faults({"match": {"method": "DELETE"}, "effect": {"status": 429}})
    wire("PUT", ENDPOINT, BODY)
    wire("GET", "onlineEndpoints/nobody")
    wire("DELETE", ENDPOINT)
    rows = serving.requests()
    path = f"{names.WORKSPACE_ID}/onlineEndpoints"

    assert [
        ("PUT", f"{path}/chat-1", 201, None),
        ("GET", f"{path}/nobody", 404, None),
        ("DELETE", f"{path}/chat-1", 429, '{"status": 429}'),
    ] == [(row["method"], row["path"], row["status"], row["fault"]) for row in rows]
    assert {"api-version=2022-02-01-preview"} == {row["query"] for row in rows}
    assert all(0 <= row["seconds"] < 60 for row in rows)


def test_a_fault_is_written_down_also_where_the_handler_refuses(
    serving: RunningEmulator, wire: Wire
) -> None:
    """The log tells which requests a rule has hit, whatever became of them."""
    error = {"code": "X", "message": "x"}
    serving.faults({"match": {"method": "PUT"}, "effect": {"operation_error": error}})
    wire("PUT", "onlineEndpoints/1", BODY)

    assert (400, {"operation_error": error}) == (
        serving.requests()[0]["status"],
        json.loads(serving.requests()[0]["fault"]),
    )


def test_secrets_in_a_query_are_not_written_down(serving: RunningEmulator, wire: Wire) -> None:
    """A SAS signature authorises whoever reads it."""
    wire("GET", f"{serving.url}/nowhere?sv=1&sig=S3CRET&token=T0KEN")

    assert "sv=1&sig=…&token=…" == serving.requests()[0]["query"]


def test_a_path_is_read_whole(serving: RunningEmulator, wire: Wire) -> None:
    """A blob's name may hold what a URL gives a meaning to."""
    wire("GET", f"{serving.url}/a%3Fb%23c%20d/%C3%A9?x=1")

    assert "/a?b#c d/é" == serving.requests()[0]["path"]


def test_requests_can_be_read_from_a_number_on(serving: RunningEmulator, wire: Wire) -> None:
    """So that a test sees just what it caused."""
    wire("GET", ENDPOINT)
    seen = serving.requests()[-1]["seq"]
    wire("PUT", ENDPOINT, BODY)
    later = wire("GET", f"{serving.url}/_emulator/requests?after={seen}").json()["requests"]

    assert ["PUT"] == [row["method"] for row in later]


@pytest.mark.parametrize("text", ["ten", "-1", "1.5", "", "9" * 5000])
def test_a_number_that_is_none_is_refused_wherever_one_is_asked_for(wire: Wire, text: str) -> None:
    """400 that names the parameter, on every route that reads a number; never a bug of ours."""
    mlflow = f"/mlflow/v1.0{names.WORKSPACE_ID}/api/2.0/mlflow"
    experiment = wire("POST", f"{mlflow}/experiments/create", {"name": "e"}).json()["experiment_id"]
    made = wire("POST", f"{mlflow}/runs/create", {"experiment_id": experiment}).json()
    run = made["run"]["info"]["run_id"]
    places = [
        "onlineEndpoints?$skip=",
        "onlineEndpoints?count=",
        "jobs?$skipToken=",
        "jobs?$skip=",
        "models?$skip=",
        "models?$top=",
        f"/history/v1.0{names.WORKSPACE_ID}/runs/{run}/children?$top=",
        f"/history/v1.0{names.WORKSPACE_ID}/runs/{run}/children?$continuationtoken=",
        "/_emulator/requests?after=",
    ]
    if text:  # MLflow takes an empty one for none
        places += [
            f"{mlflow}/metrics/get-history?run_id={run}&max_results=",
            f"{mlflow}/metrics/get-history?run_id={run}&page_token=",
            f"{mlflow}/experiments/search?max_results=",
        ]
    refused = [
        place
        for place in places
        if (answer := wire("GET", f"{place}{text}")).status_code == 400
        and re.split("[?&]", place)[-1][:-1] in answer.text
    ]

    assert places == refused


def test_time_runs_by_itself_unless_it_is_manual(serving: RunningEmulator, wire: Wire) -> None:
    """`advance` is refused where it would do nothing."""
    answer = wire("POST", "/_emulator/advance", {"seconds": 5})

    assert 400 == answer.status_code
    assert "--latency manual" in answer.json()["error"]["message"]


def test_time_does_not_run_backwards(timed: RunningEmulator, timed_wire: Wire) -> None:
    """A negative or missing number of seconds is refused, and the clock stands."""
    before = timed_wire("POST", "/_emulator/advance", {"seconds": 0}).json()["now"]
    refused = [
        timed_wire("POST", "/_emulator/advance", body).status_code
        for body in ({"seconds": -1}, {}, {"seconds": "soon"})
    ]

    assert [400, 400, 400] == refused
    assert before == timed_wire("POST", "/_emulator/advance", {"seconds": 0}).json()["now"]


def test_manual_time_goes_on_where_it_stood(start_emulator: Any, timed: RunningEmulator) -> None:
    """After a restart nothing that was acknowledged lies in the future."""
    timed.advance(100_000)
    stood = timed.server.emulator.now()
    timed.server.stop()
    again = start_emulator(latency="manual")

    assert stood == again.server.emulator.now()


@pytest.mark.parametrize("body", [{}, {"rules": {}}, {"rules": [{"match": {}}]}])
def test_faults_that_make_no_sense_are_refused(wire: Wire, body: Any) -> None:
    """400, so that a misspelt fault does not pass for a fault that never struck."""
    assert 400 == wire("PUT", "/_emulator/faults", body).status_code


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    emulator = Emulator(Settings(tmp_path, jobs="scripted"), clock=ManualClock())
    yield emulator
    emulator.close()


def test_a_bug_of_ours_is_a_500_that_says_so(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody takes it for Azure's failure, and the log has the traceback."""
    emulator.appliers["broken"] = lambda within, event: within.store.put("", "", {}) or 1 / 0
    app = App(emulator, connection=_no_connection)
    emulator.schedule("broken", "x", after=0)
    status, body = asyncio.run(_get(app, "/metadata/endpoints"))

    assert 500 == status
    assert "The emulator has a bug: ZeroDivisionError" in json.loads(body)["error"]["message"]
    assert "Traceback" in caplog.text
    assert emulator.store.get("", "") is None


def _no_connection(scope: Any) -> Any:
    raise AssertionError(scope)


async def _get(app: App, path: str) -> tuple[int, bytes]:
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [],
        "server": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]
