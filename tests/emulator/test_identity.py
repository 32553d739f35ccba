"""The doors through which the SDKs come in: a token, the cloud's addresses, the registry's."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
import requests
from azureml_emulator.services.identity import USER_ASSIGNED_CLIENT_ID
from azureml_emulator.settings import WORKSPACE_ID
from azureml_emulator.tokens import ML_AUDIENCE, STORAGE_AUDIENCE

from tests.conftest import RunningEmulator


def _get(emulator: RunningEmulator, path: str, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        bundle = str(emulator.server.emulator.certificates.bundle)
        return session.get(f"{emulator.url}{path}", headers=headers, verify=bundle)


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


@pytest.mark.parametrize("audience", ["", ML_AUDIENCE, STORAGE_AUDIENCE])
def test_the_default_credential_takes_a_token(emulator: RunningEmulator, audience: str) -> None:
    """DefaultAzureCredential finds the managed identity, for ARM, Azure ML and storage alike."""
    from azure.identity import DefaultAzureCredential

    resource = audience or emulator.url
    token = DefaultAzureCredential().get_token(f"{resource}/.default")

    assert resource == _claims(token.token)["aud"]
    assert token.expires_on == pytest.approx(_claims(token.token)["exp"], abs=2)


def test_a_user_assigned_identity_is_known_by_its_client_id(emulator: RunningEmulator) -> None:
    """The one user-assigned identity gets a token; any other client id gets none."""
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import DefaultAzureCredential

    scope = f"{emulator.url}/.default"
    known = DefaultAzureCredential(managed_identity_client_id=USER_ASSIGNED_CLIENT_ID)
    unknown = DefaultAzureCredential(managed_identity_client_id="of-somebody-else")

    assert known.get_token(scope).token
    with pytest.raises(ClientAuthenticationError, match="No User Assigned"):
        unknown.get_token(scope)


def test_no_token_without_the_identity_header(emulator: RunningEmulator) -> None:
    """Whoever does not have the state folder's secret gets no token."""
    path = f"/msi/token?api-version=2019-08-01&resource={emulator.url}"

    assert 401 == _get(emulator, path).status_code
    assert 401 == _get(emulator, path, **{"X-IDENTITY-HEADER": "guessed"}).status_code


def test_no_token_for_a_resource_that_is_not_there(emulator: RunningEmulator) -> None:
    """The tenant knows Resource Manager and Azure ML, and says so of anything else."""
    secret = emulator.server.emulator.tokens.identity_header
    path = "/msi/token?resource=https://graph.microsoft.com"
    answer = _get(emulator, path, **{"X-IDENTITY-HEADER": secret})

    assert 400 == answer.status_code
    assert "AADSTS500011" in answer.json()["message"]


def test_a_token_may_be_made_to_expire_soon(start_emulator: Any) -> None:
    """It says so itself, is good for so many seconds, and is then refused by Resource Manager."""
    emulator = start_emulator(latency="manual")
    emulator.faults({"match": {"path": "^/msi/token"}, "effect": {"token_lifetime": 30}})
    secret = emulator.server.emulator.tokens.identity_header
    path = f"/msi/token?resource={emulator.url}"
    told = _get(emulator, path, **{"X-IDENTITY-HEADER": secret}).json()
    statuses = []
    for seconds in (0, 29, 1):
        emulator.advance(seconds)
        bearer = f"Bearer {told['access_token']}"
        statuses.append(_get(emulator, WORKSPACE_ID, Authorization=bearer).status_code)
    claims = _claims(told["access_token"])

    assert (30, claims["exp"]) == (claims["exp"] - claims["iat"], int(told["expires_on"]))
    assert [200, 200, 401] == statuses


def test_the_sdk_asks_again_for_a_token_that_expires_soon(emulator: RunningEmulator) -> None:
    """azure-identity keeps a token only while it has five minutes left."""
    from azure.identity import DefaultAzureCredential

    asked = {}
    for lifetime in (299, 400):
        emulator.faults({"match": {"path": "^/msi/token"}, "effect": {"token_lifetime": lifetime}})
        credential, before = DefaultAzureCredential(), len(emulator.requests())
        for _ in range(2):
            credential.get_token(f"{emulator.url}/.default")
        asked[lifetime] = len(emulator.requests()) - before

    assert {299: 2, 400: 1} == asked


def test_a_token_for_the_public_cloud_opens_nothing(emulator: RunningEmulator) -> None:
    """The tutorial probes its credential with the public scope; that token is of no use here."""
    from azure.identity import DefaultAzureCredential

    token = DefaultAzureCredential().get_token("https://management.azure.com/.default").token
    answer = _get(emulator, WORKSPACE_ID, Authorization=f"Bearer {token}")

    assert 401 == answer.status_code
    assert "InvalidAuthenticationTokenAudience" == answer.json()["error"]["code"]


def test_the_metadata_has_what_both_clients_read(emulator: RunningEmulator) -> None:
    """azure-ai-ml and azureml-mlflow each drop or choke on a cloud that lacks one of these."""
    (cloud,) = _get(emulator, "/metadata/endpoints?api-version=2019-05-01").json()

    assert f"{emulator.url}/" == cloud["resourceManager"]
    assert "localhost" == cloud["suffixes"]["storage"]
    assert {"portal", "name"} <= set(cloud)
    assert [emulator.url] == cloud["authentication"]["audiences"]
    assert cloud["suffixes"]["sqlServerHostname"]
    assert ":" not in cloud["authentication"]["loginEndpoint"].removeprefix("https://")


def test_an_unknown_registry_is_not_found(emulator: RunningEmulator) -> None:
    """A client of a registry that is not there fails when it is built, naming it."""
    from azure.ai.ml import MLClient
    from azure.core.exceptions import ResourceNotFoundError
    from azure.identity import DefaultAzureCredential

    with pytest.raises(ResourceNotFoundError, match="nobodys"):
        MLClient(DefaultAzureCredential(), registry_name="nobodys")
