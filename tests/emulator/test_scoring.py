"""The scoring URI: who may ask, which deployment answers, and what a refusal looks like."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azureml_emulator.tokens import ML_AUDIENCE

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from tests.conftest import RunningEmulator
    from tests.emulator.conftest import Wire

ENDPOINT = "onlineEndpoints/chat-1"
SCORE = "/score/chat-1/score"
HELLO = [{"role": "user", "content": "Hello"}]
REPLY = {"output": "A scripted reply of tiny:1 to: Hello"}


def _request(*conversations: list[dict[str, str]], **data: Any) -> dict[str, Any]:
    given = conversations[0] if len(conversations) == 1 else list(conversations)
    return {"input_data": {"input_string": given, "parameters": {}, **data}, "params": {}}


def _endpoint(wire: Wire, traffic: dict[str, int] | None = None, mode: str = "Key") -> None:
    properties = {"authMode": mode, "properties": {}, "traffic": traffic or {}}
    wire("PUT", ENDPOINT, {"location": "eastus2", "properties": properties})


def _deployment(wire: Wire, name: str) -> None:
    properties = {
        "endpointComputeType": "Managed",
        "instanceType": "Standard_NC24ads_A100_v4",
        "model": "azureml://registries/azureml/models/tiny/versions/1",
    }
    body = {"location": "eastus2", "sku": {"capacity": 1}, "properties": properties}
    assert 201 == wire("PUT", f"{ENDPOINT}/deployments/{name}", body).status_code


def _key(wire: Wire, which: str = "primaryKey") -> dict[str, str | None]:
    return {"Authorization": f"Bearer {wire('POST', f'{ENDPOINT}/listKeys').json()[which]}"}


@pytest.fixture
def asked(wire: Wire) -> Wire:
    """An endpoint ``chat-1`` whose deployment ``demo`` has all the traffic."""
    _endpoint(wire)
    _deployment(wire, "demo")
    _endpoint(wire, {"demo": 100})
    return wire


def test_the_sdk_invokes_an_endpoint(asked: Wire, client: MLClient, tmp_path: Path) -> None:
    """The tutorial's request through the unmodified client, by traffic and by deployment."""
    file = tmp_path / "request.json"
    file.write_text(json.dumps(_request(HELLO, parameters={"temperature": 0.6, "do_sample": True})))
    by_traffic = client.online_endpoints.invoke("chat-1", request_file=str(file))
    by_name = client.online_endpoints.invoke(
        "chat-1", deployment_name="demo", request_file=str(file)
    )

    assert [REPLY, REPLY] == [json.loads(by_traffic), json.loads(by_name)]


def test_the_same_request_gets_the_same_reply(asked: Wire) -> None:
    """Scripted replies can be compared from run to run; another question gets another."""
    first, second = (asked("POST", SCORE, _request(HELLO), headers=_key(asked)) for _ in range(2))
    other = [{"role": "user", "content": "Bye  " * 50}]
    third = asked("POST", SCORE, _request(other), headers=_key(asked)).json()["output"]

    assert (200, REPLY) == (first.status_code, first.json())
    assert first.json() == second.json()
    assert "demo" == first.headers["azureml-model-deployment"]
    assert third.startswith("A scripted reply of tiny:1 to: Bye Bye")
    assert len(third) < 120


def test_several_conversations_get_several_replies(asked: Wire) -> None:
    """In their order; one conversation in a list of its own gets one reply."""
    turns = [{"role": "system", "content": "Be brief"}, *HELLO]
    turns += [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]
    one = asked("POST", SCORE, {"input_data": {"input_string": [HELLO]}}, headers=_key(asked))
    two = asked("POST", SCORE, _request(HELLO, turns), headers=_key(asked))

    assert REPLY == one.json()
    assert [REPLY, {"output": "A scripted reply of tiny:1 to: Bye"}] == two.json()


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic {key}", "{key}", "Bearer {key}x"]
)
def test_a_wrong_key_is_refused(asked: Wire, authorization: str | None) -> None:
    """401, whatever is wrong with it; the model is not asked."""
    key = asked("POST", f"{ENDPOINT}/listKeys").json()["primaryKey"]
    given = authorization and authorization.format(key=key)
    answer = asked("POST", SCORE, _request(HELLO), headers={"Authorization": given})

    assert (401, "key_auth_access_denied") == (
        answer.status_code,
        answer.json()["error"]["message"],
    )


def test_each_key_is_good_until_it_is_regenerated(asked: Wire) -> None:
    """The two keys change one at a time, so that clients can be moved from one to the other."""
    old, second = _key(asked), _key(asked, "secondaryKey")
    asked("POST", f"{ENDPOINT}/regenerateKeys", {"keyType": "Primary"})
    statuses = [
        asked("POST", SCORE, _request(HELLO), headers=headers).status_code
        for headers in (old, second, _key(asked))
    ]

    assert [401, 200, 200] == statuses


def test_another_endpoints_key_is_refused(asked: Wire) -> None:
    """A client that mixes keys is found out."""
    body = {"location": "eastus2", "properties": {"authMode": "Key"}}
    asked("PUT", "onlineEndpoints/chat-2", body)
    key = asked("POST", "onlineEndpoints/chat-2/listKeys").json()["primaryKey"]

    assert 401 == asked("POST", SCORE, {}, headers={"Authorization": f"Bearer {key}"}).status_code


@pytest.mark.parametrize("mode", ["AMLToken", "AADToken"])
def test_an_endpoint_may_want_tokens(serving: RunningEmulator, wire: Wire, mode: str) -> None:
    """One of the endpoint's own, or one of Azure ML's; a token for something else is refused."""
    _endpoint(wire, mode=mode)
    _deployment(wire, "demo")
    _endpoint(wire, {"demo": 100}, mode=mode)
    if mode == "AMLToken":
        token = wire("POST", f"{ENDPOINT}/token").json()["accessToken"]
    else:
        emulator = serving.server.emulator
        token = emulator.tokens.issue(ML_AUDIENCE, now=emulator.now())
    good = wire("POST", SCORE, _request(HELLO), headers={"Authorization": f"Bearer {token}"})

    assert 200 == good.status_code
    assert 401 == wire("POST", SCORE, _request(HELLO)).status_code


def test_requests_are_split_by_traffic(asked: Wire) -> None:
    """Exactly by the percentages in any hundred requests, and not in two long runs."""
    _deployment(asked, "other")
    _endpoint(asked, {"demo": 90, "other": 10})
    key = _key(asked)
    answers = [
        asked("POST", SCORE, _request(HELLO), headers=key).headers["azureml-model-deployment"]
        for _ in range(100)
    ]

    assert {"demo": 90, "other": 10} == dict(Counter(answers))
    assert {"demo", "other"} == set(answers[:30])


def test_the_header_names_a_deployment_past_the_traffic(asked: Wire) -> None:
    """A deployment at 0 percent is tested before it gets traffic; one that is not there is 404."""
    _deployment(asked, "green")

    def ask(name: str) -> Any:
        headers = _key(asked) | {"azureml-model-deployment": name}
        return asked("POST", SCORE, _request(HELLO), headers=headers)

    assert "green" == ask("green").headers["azureml-model-deployment"]
    assert "green" == ask("GREEN").headers["azureml-model-deployment"]
    assert 404 == ask("red").status_code


def test_without_traffic_nobody_answers(wire: Wire) -> None:
    """404 in Azure's words, also where there is a deployment."""
    _endpoint(wire)
    bare = wire("POST", SCORE, _request(HELLO), headers=_key(wire))
    _deployment(wire, "demo")
    idle = wire("POST", SCORE, _request(HELLO), headers=_key(wire))

    assert [404, 404] == [bare.status_code, idle.status_code]
    assert "any valid deployment with positive weight" in idle.json()["error"]["message"]


def test_an_endpoint_that_is_not_there_is_not_found(wire: Wire) -> None:
    """404, before any key is looked at."""
    assert 404 == wire("POST", "/score/nobody/score", {}).status_code


def test_a_deployment_that_is_not_up_is_not_ready(timed: RunningEmulator, timed_wire: Wire) -> None:
    """503 while it comes up, 200 while it is updated, 503 while it or its endpoint goes."""
    wire = timed_wire
    _endpoint(wire)
    timed.advance(21)
    _deployment(wire, "demo")

    def ask() -> int:
        headers = _key(wire) | {"azureml-model-deployment": "demo"}
        return wire("POST", SCORE, _request(HELLO), headers=headers).status_code

    creating = ask()
    timed.advance(60)
    ready = ask()
    _deployment(wire, "demo")
    updating = ask()
    timed.advance(30)
    wire("DELETE", ENDPOINT)
    going = ask()

    assert [503, 200, 200, 503] == [creating, ready, updating, going]


def test_a_failed_deployment_does_not_answer(serving: RunningEmulator, wire: Wire) -> None:
    """It is billed all the same, which is why it must be deleted."""
    failure = {"code": "ResourceNotReady", "message": "The probe failed."}
    serving.faults({"match": {"path": "/demo$"}, "effect": {"operation_error": failure}})
    _endpoint(wire)
    _deployment(wire, "demo")
    headers = _key(wire) | {"azureml-model-deployment": "demo"}
    answer = wire("POST", SCORE, _request(HELLO), headers=headers)

    assert 503 == answer.status_code
    assert "Failed" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "input_data"),
        (b'{"inputs": "Hello"}', "input_data"),
        (b'{"input_data": {"input_string": "Hello"}}', "list of messages"),
        (b'{"input_data": {"input_string": []}}', "list of messages"),
        (b'{"input_data": {"input_string": [[]]}}', "no messages"),
        (b'{"input_data": {"input_string": ["Hello"]}}', "role"),
        (b'{"input_data": {"input_string": [{"role": "robot", "content": "x"}]}}', "role"),
        (b'{"input_data": {"input_string": [{"role": "user"}]}}', "content"),
        (b'{"input_data": {"input_string": [{"role": "user"}], "parameters": 1}}', "parameters"),
    ],
)
def test_a_request_that_the_model_refuses_is_a_model_error(
    asked: Wire, body: bytes, said: str
) -> None:
    """Azure hides the container's 400 behind a 424 and tells it in headers; the log has it too."""
    answer = asked("POST", SCORE, data=body, headers=_key(asked))
    log = asked("POST", f"{ENDPOINT}/deployments/demo/getLogs", {"tail": 1}).json()["content"]

    assert 424 == answer.status_code
    assert "400" == answer.headers["ms-azureml-model-error-statuscode"]
    assert said in answer.json()["error"]["message"]
    assert "POST /score 400" in log


@pytest.mark.parametrize("reply", ["<html>no JSON</html>", {"output": "42"}, ["x"], {"error": 1}])
def test_a_fault_can_put_words_into_the_models_mouth(
    serving: RunningEmulator, asked: Wire, reply: Any
) -> None:
    """Any JSON, or text that is none; a wrong key is still refused."""
    serving.faults({"match": {"path": "^/score/"}, "effect": {"reply": reply}})
    answer = asked("POST", SCORE, _request(HELLO), headers=_key(asked))

    assert 200 == answer.status_code
    assert reply == (answer.text if isinstance(reply, str) else answer.json())
    assert 401 == asked("POST", SCORE, _request(HELLO)).status_code


def test_a_fault_can_answer_in_the_endpoints_place(serving: RunningEmulator, asked: Wire) -> None:
    """A gateway's page and Retry-After, once; then the model answers."""
    effect = {"status": 429, "body": "slow down", "headers": {"Retry-After": "3"}}
    serving.faults({"match": {"path": "^/score/"}, "effect": effect, "nth": [1]})
    first, second = (asked("POST", SCORE, _request(HELLO), headers=_key(asked)) for _ in range(2))

    assert (429, "slow down", "3") == (first.status_code, first.text, first.headers["Retry-After"])
    assert 200 == second.status_code
