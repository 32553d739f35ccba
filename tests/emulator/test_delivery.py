"""Answers that do not arrive: reset before and after the change, silence, and half of the body."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import time
from typing import Any

import pytest
from azureml_emulator import settings as names

from tests.conftest import RunningEmulator
from tests.emulator.conftest import Wire

ENDPOINT = "onlineEndpoints/chat-1"
BODY = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}
PUT = {"method": "PUT", "path": "/onlineEndpoints/"}


def put(emulator: RunningEmulator, *, timeout: float = 10) -> bytes:
    """Send the PUT of an endpoint over a connection of its own and return the answer's body."""
    bundle = str(emulator.server.emulator.certificates.bundle)
    trust = ssl.create_default_context(cafile=bundle)
    port = emulator.server.port
    connection = http.client.HTTPSConnection("localhost", port, context=trust, timeout=timeout)
    token = emulator.server.emulator.tokens.issue(emulator.url, now=time.time())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    path = f"{names.WORKSPACE_ID}/{ENDPOINT}?api-version=2024-10-01"
    try:
        connection.request("PUT", path, json.dumps(BODY), headers)
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize(("after", "found"), [({}, 404), ({"after": True}, 200)])
def test_a_reset_comes_before_or_after_the_change(
    serving: RunningEmulator, wire: Wire, after: dict[str, bool], found: int
) -> None:
    """The client gets ECONNRESET either way; only with `after` has the endpoint been made."""
    serving.faults({"match": PUT, "effect": {"reset": True, **after}})
    with pytest.raises(ConnectionResetError):
        put(serving)

    assert found == wire("GET", ENDPOINT).status_code
    assert 0 == serving.requests()[0]["status"]


@pytest.mark.parametrize(("after", "found"), [({}, 404), ({"after": True}, 200)])
def test_a_hang_lasts_until_the_client_gives_up(
    serving: RunningEmulator, wire: Wire, after: dict[str, bool], found: int
) -> None:
    """No answer comes, and nobody else waits meanwhile."""
    serving.faults({"match": PUT, "effect": {"hang": True, **after}})
    with pytest.raises(TimeoutError):
        put(serving, timeout=0.3)

    assert found == wire("GET", ENDPOINT).status_code
    assert 0 == serving.requests()[0]["status"]


def test_a_hanging_client_does_not_hold_the_server_up(serving: RunningEmulator) -> None:
    """Neither other requests, however many hang, nor the server's end."""
    bundle = str(serving.server.emulator.certificates.bundle)
    trust = ssl.create_default_context(cafile=bundle)
    serving.faults({"match": {"path": "^/hang"}, "effect": {"hang": True}})
    hanging = []
    for _ in range(50):  # more than the server has threads
        port = serving.server.port
        connection = http.client.HTTPSConnection("localhost", port, context=trust, timeout=10)
        connection.request("GET", "/hang")
        hanging.append(connection)
    began = time.perf_counter()
    serving.ledger()
    answered = time.perf_counter() - began
    serving.server.stop()
    stopped = time.perf_counter() - began - answered

    assert answered < 2
    assert stopped < 3
    for connection in hanging:
        with pytest.raises(OSError, match=r"."):
            connection.getresponse()


def test_a_truncated_body_ends_too_early(serving: RunningEmulator, wire: Wire) -> None:
    """The change is made, the headers promise it all, and so many bytes of it come."""
    serving.faults({"match": PUT, "effect": {"truncate": 10}})
    with pytest.raises(http.client.IncompleteRead) as cut:
        put(serving)

    assert b'{"id": "/s' == cut.value.partial
    assert 200 == wire("GET", ENDPOINT).status_code
    assert 201 == serving.requests()[0]["status"]


def test_a_faults_own_body_may_be_truncated(serving: RunningEmulator) -> None:
    """A gateway's page of which half arrives."""
    effect = {"status": 502, "body": "<html>", "truncate": 3}
    serving.faults({"match": PUT, "effect": effect})
    with pytest.raises(http.client.IncompleteRead) as cut:
        put(serving)

    assert b"<ht" == cut.value.partial


def test_a_lost_answer_is_lost_also_where_the_handler_refuses(
    serving: RunningEmulator, wire: Wire
) -> None:
    """`after` strikes whatever the service would have said."""
    serving.faults(
        {"match": {"method": "GET"}, "effect": {"status": 504, "body": "<html>", "after": True}}
    )
    answer = wire("GET", "onlineEndpoints/nobody")

    assert (504, "<html>") == (answer.status_code, answer.text)


def test_a_cut_connection_is_no_error_of_the_servers(
    serving: RunningEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is logged of it, and the next client is answered."""
    for effect in ({"reset": True}, {"truncate": 0}, {"hang": True}):
        serving.faults({"match": PUT, "effect": effect})
        with pytest.raises((OSError, http.client.HTTPException)):
            put(serving, timeout=0.3)
    serving.faults()

    assert "chat-1" == json.loads(put(serving))["name"]
    assert [] == [one.message for one in caplog.records if one.levelno >= logging.WARNING]


def test_the_sdk_adopts_what_a_reset_hid_from_it(serving: RunningEmulator, client: Any) -> None:
    """azure-core sends the PUT again, and finds the endpoint that the first one made."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    serving.faults({"match": PUT, "effect": {"reset": True, "after": True}, "nth": [1]})
    client.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="chat-1")).result()
    puts = [row["status"] for row in serving.requests() if row["method"] == "PUT"]

    assert [0, 200] == puts
    assert 1 == len(serving.open_meters())
