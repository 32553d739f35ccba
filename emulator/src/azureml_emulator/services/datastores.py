"""The workspace's datastores: names for containers of the storage account, and the SAS to them."""

from __future__ import annotations

from ..emulator import Applier, Emulator
from ..errors import NotFound
from ..routing import WORKSPACE, Call, Reply, Route
from ..settings import SUBSCRIPTION_ID, WORKSPACE_ID
from ..store import Document
from .storage import ACCOUNT, sas_token

DEFAULT = "workspaceblobstore"
CONTAINERS = {DEFAULT: "azureml-blobstore", "workspaceartifactstore": "azureml"}

_MADE_AT = "2024-01-15T09:00:00.0000000+00:00"


def list_datastores(emulator: Emulator, call: Call) -> Reply:
    """Answer with the datastores, or with the default one for ``?isDefault=true``."""
    default_only = call.query.get("isDefault", "").lower() == "true"
    names = [DEFAULT] if default_only else list(CONTAINERS)
    return Reply({"value": [_datastore(name, call.base_url) for name in names]})


def get_datastore(emulator: Emulator, call: Call) -> Reply:
    """Answer with one datastore."""
    return Reply(_datastore(_known(call), call.base_url))


def list_secrets(emulator: Emulator, call: Call) -> Reply:
    """Answer with a SAS for the datastore's container."""
    token = sas_token(emulator, CONTAINERS[_known(call)], permissions="racwdl")
    return Reply({"secretsType": "Sas", "sasToken": token})


def _known(call: Call) -> str:
    name = call.params["datastore"].lower()
    if name not in CONTAINERS:
        raise NotFound(f"Could not find datastore: {call.params['datastore']}", code="UserError")
    return name


def _datastore(name: str, base_url: str) -> Document:
    return {
        "id": f"{WORKSPACE_ID}/datastores/{name}",
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/datastores",
        "properties": {
            "datastoreType": "AzureBlob",
            "description": None,
            "tags": {},
            "properties": {},
            "isDefault": name == DEFAULT,
            "subscriptionId": SUBSCRIPTION_ID,
            "resourceGroup": None,
            "accountName": f"{base_url.removeprefix('https://')}/{ACCOUNT}",
            "containerName": CONTAINERS[name],
            "endpoint": "localhost",
            "protocol": "https",
            "serviceDataAccessAuthIdentity": "WorkspaceSystemAssignedIdentity",
            "credentials": {"credentialsType": "Sas"},
        },
        "systemData": {
            "createdAt": _MADE_AT,
            "createdBy": "Emulator",
            "createdByType": "Application",
            "lastModifiedAt": _MADE_AT,
        },
    }


_DATASTORES = f"{WORKSPACE}/datastores"

ROUTES = [
    Route("GET", _DATASTORES, list_datastores),
    Route("GET", f"{_DATASTORES}/{{datastore}}", get_datastore),
    Route("POST", f"{_DATASTORES}/{{datastore}}/listSecrets", list_secrets),
]
EVENTS: dict[str, Applier] = {}
