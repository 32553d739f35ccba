"""Online endpoints: created, changed and deleted over time, and refused as Azure refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from azureml_emulator import settings as names

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

    from tests.conftest import RunningEmulator
    from tests.emulator.conftest import Wire

ENDPOINT = "onlineEndpoints/chat-1"


def _body(**properties: Any) -> dict[str, Any]:
    return {
        "location": "eastus2",
        "tags": {"finetune-owner": "me"},
        "identity": {"type": "SystemAssigned"},
        "properties": {"authMode": "Key", "properties": {}, "traffic": {}, **properties},
    }


def _create(wire: Wire, name: str = "chat-1") -> None:
    assert 201 == wire("PUT", f"onlineEndpoints/{name}", _body()).status_code
    assert "Succeeded" == _shown(wire, name)["properties"]["provisioningState"]


def _deploy(wire: Wire, name: str) -> None:
    body = {
        "location": "eastus2",
        "sku": {"name": "Default", "capacity": 1},
        "properties": {
            "endpointComputeType": "Managed",
            "instanceType": "Standard_NC24ads_A100_v4",
            "model": "azureml://registries/azureml/models/tiny/versions/1",
        },
    }
    assert 201 == wire("PUT", f"{ENDPOINT}/deployments/{name}", body).status_code


def _shown(wire: Wire, name: str = "chat-1") -> dict[str, Any]:
    shown: dict[str, Any] = wire("GET", f"onlineEndpoints/{name}").json()
    return shown


def test_the_sdk_creates_reads_lists_and_deletes(
    serving: RunningEmulator, client: MLClient
) -> None:
    """The unmodified client goes through an endpoint's whole life, and no meter is left."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint
    from azure.core.exceptions import ResourceNotFoundError

    wanted = ManagedOnlineEndpoint(
        name="chat-1", auth_mode="key", tags={"finetune-owner": "me"}, description="For a test"
    )
    made = client.online_endpoints.begin_create_or_update(wanted).result()
    found = client.online_endpoints.get("chat-1")
    listed = [one.name for one in client.online_endpoints.list()]
    billed = serving.open_meters()
    client.online_endpoints.begin_delete("chat-1").wait()

    assert ("Succeeded", "key") == (made.provisioning_state, made.auth_mode)
    assert {"finetune-owner": "me"} == found.tags
    assert f"{serving.url}/score/chat-1/score" == found.scoring_uri
    assert "system_assigned" == found.identity.type
    assert ["chat-1"] == listed
    assert [f"{names.WORKSPACE_ID}/onlineEndpoints/chat-1"] == billed
    assert [] == serving.open_meters()
    with pytest.raises(ResourceNotFoundError):
        client.online_endpoints.get("chat-1")


def test_the_sdk_regenerates_a_key(client: MLClient) -> None:
    """Only the key that was named is another one afterwards."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    wanted = ManagedOnlineEndpoint(name="chat-1", auth_mode="key")
    client.online_endpoints.begin_create_or_update(wanted).wait()
    before = client.online_endpoints.get_keys("chat-1")
    client.online_endpoints.begin_regenerate_keys("chat-1", key_type="secondary").wait()
    after = client.online_endpoints.get_keys("chat-1")

    assert before.primary_key == after.primary_key
    assert before.secondary_key != after.secondary_key


def test_a_create_answers_as_recorded(timed: RunningEmulator, timed_wire: Wire) -> None:
    """201, Creating, no scoring URI, both headers; then it takes its time and succeeds."""
    answer = timed_wire("PUT", ENDPOINT, _body())
    status = answer.headers["Azure-AsyncOperation"]
    running = timed_wire("GET", status).json()
    timed.advance(21)
    ended = timed_wire("GET", status)

    assert 201 == answer.status_code
    assert "PT30M" == answer.headers["x-ms-async-operation-timeout"]
    assert answer.headers["Location"].startswith(
        f"{timed.url}{names.WORKSPACE_ID}/onlineEndpoints/chat-1?"
    )
    assert "Creating" == answer.json()["properties"]["provisioningState"]
    assert answer.json()["properties"]["scoringUri"] is None
    assert {"finetune-owner": "me"} == answer.json()["tags"]
    assert "InProgress" == running["status"]
    assert (200, "Succeeded") == (ended.status_code, ended.json()["status"])
    assert "Succeeded" == _shown(timed_wire)["properties"]["provisioningState"]


def test_keys_and_private_fields_are_in_no_other_answer(
    serving: RunningEmulator, wire: Wire
) -> None:
    """A key leaves through listKeys alone."""
    _create(wire)
    keys = wire("POST", f"{ENDPOINT}/listKeys").json()
    told = wire("GET", ENDPOINT).text + wire("GET", "onlineEndpoints").text

    assert {"primaryKey", "secondaryKey"} == set(keys)
    assert all(key not in told for key in keys.values())
    assert all(key not in str(serving.requests()) for key in keys.values())
    assert '"_' not in told


@pytest.mark.parametrize(
    "name", ["ab", "a" * 33, "1chat", "chat--1", "chat-", "chat_1", "-chat", "chät"]
)
def test_a_name_that_azure_refuses_is_refused(
    serving: RunningEmulator, wire: Wire, name: str
) -> None:
    """3 to 32 letters, digits and single dashes, a letter first; nothing is made."""
    answer = wire("PUT", f"onlineEndpoints/{name}", _body())

    assert (400, "UserError") == (answer.status_code, answer.json()["error"]["code"])
    assert name in answer.json()["error"]["message"]
    assert [] == serving.open_meters()


@pytest.mark.parametrize("name", ["abc", "a" * 32, "Chat-1-a2"])
def test_a_name_at_the_bounds_is_taken(wire: Wire, name: str) -> None:
    """The shortest, the longest, and one with dashes."""
    _create(wire, name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"properties": None}, "no properties"),
        ({"properties": {"authMode": "key"}}, "authMode"),
        ({"location": None}, "location"),
        ({"tags": {"n": 1}}, "Tags"),
        ({"identity": {"type": "Robot"}}, "identity.type"),
        ({"identity": {"type": "UserAssigned"}}, "userAssignedIdentities"),
        ({"properties": {"authMode": "Key", "traffic": {"blue": 100}}}, "does not have"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(
    serving: RunningEmulator, wire: Wire, changes: dict[str, Any], said: str
) -> None:
    """The error says which field, and nothing is made."""
    answer = wire("PUT", ENDPOINT, _body() | changes)

    assert 400 == answer.status_code
    assert said in answer.json()["error"]["message"]
    assert 404 == wire("GET", ENDPOINT).status_code
    assert [] == serving.open_meters()


@pytest.mark.parametrize("body", [b"{", b"[]", b""])
def test_a_body_that_is_no_json_object_is_refused(wire: Wire, body: bytes) -> None:
    """400, not a crash."""
    answer = wire("PUT", ENDPOINT, data=body)

    assert 400 == answer.status_code
    assert "InvalidRequestContent" == answer.json()["error"]["code"]


def test_identities_are_kept(wire: Wire) -> None:
    """A user-assigned identity comes back under its own resource id."""
    identity = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/x/mine"
    given = {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}}
    shown = wire("PUT", ENDPOINT, _body() | {"identity": given}).json()["identity"]

    assert "UserAssigned" == shown["type"]
    assert {"principalId", "clientId"} == set(shown["userAssignedIdentities"][identity])


def test_traffic_moves_when_the_update_is_done(timed: RunningEmulator, timed_wire: Wire) -> None:
    """Until then the old percentages hold, and the endpoint says Updating."""
    timed_wire("PUT", ENDPOINT, _body())
    timed.advance(30)
    _deploy(timed_wire, "demo")
    timed.advance(90)
    answer = timed_wire("PUT", ENDPOINT, _body(traffic={"demo": 100}))
    during = _shown(timed_wire)["properties"]
    timed.advance(12)
    after = _shown(timed_wire)["properties"]

    assert 200 == answer.status_code
    assert ("Updating", {}) == (during["provisioningState"], during["traffic"])
    assert ("Succeeded", {"demo": 100}) == (after["provisioningState"], after["traffic"])


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ({"traffic": {"blue": 50}}, "sum to 0 or 100, not 50"),
        ({"traffic": {"blue": 60, "green": 60}}, "sum to 0 or 100, not 120"),
        ({"traffic": {"blue": 101, "green": -1}}, "must be 0 to 100"),
        ({"traffic": {"red": 100}}, "red, which endpoint chat-1 does not have"),
        ({"mirrorTraffic": {"blue": 51}}, "at most 50"),
        ({"mirrorTraffic": {"blue": 10, "green": 10}}, "one deployment"),
    ],
)
def test_traffic_that_makes_no_sense_is_refused(
    wire: Wire, traffic: dict[str, Any], said: str
) -> None:
    """And the endpoint stays as it was."""
    _create(wire)
    _deploy(wire, "blue")
    _deploy(wire, "green")
    answer = wire("PUT", ENDPOINT, _body(**traffic))

    assert 400 == answer.status_code
    assert said in answer.json()["error"]["message"]
    assert {} == _shown(wire)["properties"]["traffic"]


@pytest.mark.parametrize("split", [{"BLUE": 100}, {"blue": 90, "green": 10}, {"blue": 0}])
def test_traffic_that_makes_sense_is_taken(wire: Wire, split: dict[str, int]) -> None:
    """Also with the names in another case, which is how the SDK writes them."""
    _create(wire)
    _deploy(wire, "blue")
    _deploy(wire, "green")
    wire("PUT", ENDPOINT, _body(traffic=split))

    assert split == _shown(wire)["properties"]["traffic"]


def test_a_patch_changes_tags_and_answers_null(wire: Wire) -> None:
    """202 and the body `null`, as recorded; the rest stays."""
    _create(wire)
    answer = wire("PATCH", ENDPOINT, {"tags": {"finetune-keep": "true"}})
    result = wire("GET", answer.headers["Location"])

    assert (202, "null") == (answer.status_code, answer.text)
    assert "Azure-AsyncOperation" not in answer.headers
    assert 200 == result.status_code
    assert {"finetune-keep": "true"} == _shown(wire)["tags"]
    assert "Key" == _shown(wire)["properties"]["authMode"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "", _body()),
        ("PATCH", "", {"tags": {}}),
        ("DELETE", "", None),
        ("POST", "/regenerateKeys", {"keyType": "Primary"}),
    ],
)
def test_a_change_while_another_runs_is_refused(
    timed: RunningEmulator, timed_wire: Wire, method: str, path: str, body: Any
) -> None:
    """409 until the operation is done, then it is accepted."""
    timed_wire("PUT", ENDPOINT, _body())
    refused = timed_wire(method, f"{ENDPOINT}{path}", body)
    timed.advance(21)
    taken = timed_wire(method, f"{ENDPOINT}{path}", body)

    assert (409, "Conflict") == (refused.status_code, refused.json()["error"]["code"])
    assert "Another operation is in progress" in refused.json()["error"]["message"]
    assert taken.status_code in (200, 202)


def test_a_delete_waits_for_a_deployment_that_comes_up(
    timed: RunningEmulator, timed_wire: Wire
) -> None:
    """An endpoint whose deployment is being created cannot be deleted yet."""
    timed_wire("PUT", ENDPOINT, _body())
    timed.advance(21)
    _deploy(timed_wire, "demo")
    refused = timed_wire("DELETE", ENDPOINT)
    timed.advance(60)

    assert 409 == refused.status_code
    assert 202 == timed_wire("DELETE", ENDPOINT).status_code


def test_a_delete_takes_the_deployments_along(timed: RunningEmulator, timed_wire: Wire) -> None:
    """Everything is billed until the delete is done, and nothing after."""
    timed_wire("PUT", ENDPOINT, _body())
    timed.advance(21)
    _deploy(timed_wire, "demo")
    timed.advance(60)
    answer = timed_wire("DELETE", ENDPOINT)
    during = (_shown(timed_wire)["properties"]["provisioningState"], len(timed.open_meters()))
    timed.advance(35)
    ledger = timed.ledger()

    assert (202, b"") == (answer.status_code, answer.content)
    assert "mfeOperationsStatus" in answer.headers["Azure-AsyncOperation"]
    assert "mfeOperationResults" in answer.headers["Location"]
    assert ("Deleting", 2) == during
    assert 404 == timed_wire("GET", ENDPOINT).status_code
    assert 404 == timed_wire("GET", f"{ENDPOINT}/deployments").status_code
    assert 0 == ledger["open"]
    assert [0.0, round(3.673 * 95 / 3600, 6)] == [meter["usd"] for meter in ledger["meters"]]
    assert [] == list((timed.state / "deployments").iterdir())


def test_deleting_what_is_not_there_is_no_error(wire: Wire) -> None:
    """204, as ARM has it: a repeated delete needs no memory."""
    assert 204 == wire("DELETE", ENDPOINT).status_code


def test_a_name_is_not_free_at_once(timed: RunningEmulator, timed_wire: Wire) -> None:
    """Azure keeps a deleted endpoint's name for a while; a new attempt needs a new name."""
    timed_wire("PUT", ENDPOINT, _body())
    timed.advance(21)
    timed_wire("DELETE", ENDPOINT)
    timed.advance(35)
    refused = timed_wire("PUT", ENDPOINT, _body())
    other = timed_wire("PUT", "onlineEndpoints/chat-2", _body())
    timed.advance(120)
    taken = timed_wire("PUT", ENDPOINT, _body())

    assert 400 == refused.status_code
    assert "There is already an endpoint with this name" in refused.text
    assert [201, 201] == [other.status_code, taken.status_code]


def test_an_operation_that_fails_leaves_the_endpoint_failed_and_billed(
    serving: RunningEmulator, wire: Wire
) -> None:
    """A failed create is polled as HTTP 200 Failed; the endpoint is there until it is deleted."""
    error = {"code": "InternalServerError", "message": "An internal error occurred."}
    serving.faults({"match": {"method": "PUT"}, "effect": {"operation_error": error}, "nth": [1]})
    answer = wire("PUT", ENDPOINT, _body())
    ended = wire("GET", answer.headers["Azure-AsyncOperation"])
    shown = _shown(wire)["properties"]
    billed = serving.open_meters()
    wire("DELETE", ENDPOINT)

    assert (200, "Failed") == (ended.status_code, ended.json()["status"])
    assert "InternalServerError" == ended.json()["error"]["code"]
    assert ("Failed", None) == (shown["provisioningState"], shown["scoringUri"])
    assert 1 == len(billed)
    assert 404 == wire("GET", ENDPOINT).status_code


def test_a_delete_that_fails_leaves_everything_running(
    serving: RunningEmulator, wire: Wire
) -> None:
    """A lock, for one: the operation is Failed, the endpoint still there, the meter still open."""
    _create(wire)
    error = {"code": "OperationCanceled", "message": "The scope is locked."}
    serving.faults(
        {"match": {"method": "DELETE"}, "effect": {"operation_error": error}, "nth": [1]}
    )
    answer = wire("DELETE", ENDPOINT)
    ended = wire("GET", answer.headers["Azure-AsyncOperation"]).json()

    assert ("Failed", "OperationCanceled") == (ended["status"], ended["error"]["code"])
    assert "Failed" == _shown(wire)["properties"]["provisioningState"]
    assert 1 == len(serving.open_meters())
    assert 202 == wire("DELETE", ENDPOINT).status_code
    assert [] == serving.open_meters() if wire("GET", ENDPOINT).status_code == 404 else None


def test_a_listing_comes_in_pages(serving: RunningEmulator, wire: Wire, client: MLClient) -> None:
    """A client that reads only the first page misses endpoints; the SDK reads them all."""
    for number in range(35):
        wire("PUT", f"onlineEndpoints/chat-{number}", _body())
    first = wire("GET", "onlineEndpoints").json()
    second = wire("GET", first["nextLink"]).json()
    two = wire("GET", f"{serving.url}{names.WORKSPACE_ID}/onlineEndpoints?count=2").json()

    assert (30, 5) == (len(first["value"]), len(second["value"]))
    assert second["nextLink"] is None
    assert ["chat-0", "chat-1"] == [one["name"] for one in two["value"]]
    assert 35 == len(list(client.online_endpoints.list()))


def test_a_listing_can_be_filtered_by_tags(serving: RunningEmulator, wire: Wire) -> None:
    """By a tag's name, by its value, and by several at once."""
    for name, tags in (("one", {"a": "1"}), ("two", {"a": "2"}), ("three", {"a": "2", "b": ""})):
        wire("PUT", f"onlineEndpoints/{name}", _body() | {"tags": tags})

    def listed(tags: str) -> list[str]:
        url = f"{serving.url}{names.WORKSPACE_ID}/onlineEndpoints?tags={tags}"
        return [one["name"] for one in wire("GET", url).json()["value"]]

    assert ["one", "two", "three"] == listed("a")
    assert ["two", "three"] == listed("a=2")
    assert ["three"] == listed("a=2,b")
    assert [] == listed("c")


def test_an_endpoint_without_keys_lists_none(wire: Wire) -> None:
    """Keys are for authMode Key, tokens for AMLToken; each refuses the other's."""
    wire("PUT", ENDPOINT, _body(authMode="AMLToken"))
    keys, token = wire("POST", f"{ENDPOINT}/listKeys"), wire("POST", f"{ENDPOINT}/token")
    _create(wire, "chat-2")

    assert 400 == keys.status_code
    assert "Bearer" == token.json()["tokenType"]
    assert 400 == wire("POST", "onlineEndpoints/chat-2/token").status_code


def test_a_restart_loses_nothing(
    start_emulator: Any, catalog: str, serving: RunningEmulator, wire: Wire
) -> None:
    """Endpoint, keys and meter are there again; the scoring URI follows the server."""
    _create(wire)
    keys = wire("POST", f"{ENDPOINT}/listKeys").json()
    serving.server.stop()
    again = start_emulator(catalog=catalog)
    wire_again = type(wire)(again)

    assert keys == wire_again("POST", f"{ENDPOINT}/listKeys").json()
    assert f"{again.url}/score/chat-1/score" == _shown(wire_again)["properties"]["scoringUri"]
    assert 1 == len(again.open_meters())
