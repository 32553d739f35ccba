"""The workspace: found by its own names, and by no others."""

from __future__ import annotations

import pytest
from azureml_emulator import settings as names
from azureml_emulator.services.workspace import WORKSPACE_GUID

from tests.conftest import RunningEmulator
from tests.emulator.conftest import Wire

OTHERS = {
    "subscription": ("11111111-1111-4111-8111-111111111111", "SubscriptionNotFound"),
    "group": ("nobodys", "ResourceGroupNotFound"),
    "workspace": ("nobodys", "ResourceNotFound"),
}


@pytest.fixture
def ask(emulator: RunningEmulator) -> Wire:
    """Raw requests to an emulator with today's catalogue."""
    return Wire(emulator)


def test_the_sdk_reads_the_workspace(emulator: RunningEmulator) -> None:
    """Region, id, MLflow URI and the address of the discovery service reach the SDK's user."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    client = MLClient(
        DefaultAzureCredential(), names.SUBSCRIPTION_ID, names.RESOURCE_GROUP, names.WORKSPACE_NAME
    )
    found = client.workspaces.get(names.WORKSPACE_NAME)

    assert "eastus2" == found.location
    assert names.WORKSPACE_ID == found.id
    assert WORKSPACE_GUID == found._workspace_id
    assert found.mlflow_tracking_uri.startswith(
        f"azureml://{emulator.url.removeprefix('https://')}/mlflow/"
    )
    assert found.mlflow_tracking_uri.endswith(names.WORKSPACE_ID)
    assert [names.WORKSPACE_NAME] == [one.name for one in client.workspaces.list()]


def test_the_discovery_url_leads_to_the_data_plane(ask: Wire, emulator: RunningEmulator) -> None:
    """The address in the workspace answers with the base of the data plane."""
    url = ask("GET", names.WORKSPACE_ID).json()["properties"]["discoveryUrl"]

    assert emulator.url == ask("GET", url).json()["api"]


@pytest.mark.parametrize("version", ["2022-02-01-preview", "2023-08-01-preview", "2025-12-01"])
def test_every_api_version_is_answered(ask: Wire, version: str) -> None:
    """The SDK asks for the workspace under several api-versions within one call."""
    answer = ask("GET", f"{names.WORKSPACE_ID}?api-version={version}")

    assert names.WORKSPACE_ID == answer.json()["id"]


def test_ids_compare_without_case(ask: Wire) -> None:
    """ARM ids are the same in any case, as Azure's are."""
    assert (
        200
        == ask("GET", names.WORKSPACE_ID.replace("resourceGroups", "RESOURCEGROUPS")).status_code
    )
    assert 200 == ask("GET", names.WORKSPACE_ID.replace("emulator", "Emulator")).status_code


@pytest.mark.parametrize("level", OTHERS)
def test_other_names_are_not_found(ask: Wire, level: str) -> None:
    """A wrong subscription, group or workspace is a 404 with Azure's own code for each."""
    known = {
        "subscription": names.SUBSCRIPTION_ID,
        "group": names.RESOURCE_GROUP,
        "workspace": names.WORKSPACE_NAME,
    }
    other, code = OTHERS[level]
    asked = known | {level: other}
    answer = ask(
        "GET",
        f"/subscriptions/{asked['subscription']}/resourceGroups/{asked['group']}"
        f"{names.PROVIDER}/workspaces/{asked['workspace']}",
    )

    assert (404, code) == (answer.status_code, answer.json()["error"]["code"])


def test_a_call_without_a_token_is_refused(ask: Wire) -> None:
    """The management plane answers nobody without a bearer token."""
    assert 401 == ask("GET", names.WORKSPACE_ID, headers={"Authorization": None}).status_code
