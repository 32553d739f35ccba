"""The one workspace: its facts, and where its data plane is.

The shape was read in recorded traffic of the live service (Azure/azure-sdk-assets, recordings of
``test_workspace.py``). Whoever asks for another workspace has met the app's 404 already.
"""

from __future__ import annotations

from ..emulator import Applier, Emulator
from ..routing import GROUP, SUBSCRIPTION, WORKSPACE, Call, Reply, Route
from ..settings import (
    PROVIDER,
    RESOURCE_GROUP,
    SUBSCRIPTION_ID,
    TENANT_ID,
    WORKSPACE_ID,
    WORKSPACE_NAME,
)
from ..store import Document
from .identity import PRINCIPAL_ID
from .storage import ACCOUNT

WORKSPACE_GUID = "00000000-0000-4000-8000-0000000000dd"

_GROUP_ID = f"/subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{RESOURCE_GROUP}"
_MADE_AT = "2024-01-15T09:00:00.0000000Z"


def get_workspace(emulator: Emulator, call: Call) -> Reply:
    """Answer with the workspace."""
    return Reply(_workspace(emulator, call.base_url))


def list_workspaces(emulator: Emulator, call: Call) -> Reply:
    """Answer with the list of the one workspace, of its group or of its subscription."""
    return Reply({"value": [_workspace(emulator, call.base_url)]})


def get_discovery(emulator: Emulator, call: Call) -> Reply:
    """Answer with the data plane's addresses by service: all of them are this server."""
    services = ("api", "catalog", "experimentation", "history", "modelmanagement", "pipelines")
    return Reply({**dict.fromkeys(services, call.base_url), "studio": call.base_url})


def mlflow_tracking_uri(base_url: str) -> str:
    """Return the workspace's MLflow URI, in the scheme that azureml-mlflow claims."""
    return f"azureml://{base_url.removeprefix('https://')}/mlflow/v1.0{WORKSPACE_ID}"


def _workspace(emulator: Emulator, base_url: str) -> Document:
    return {
        "id": WORKSPACE_ID,
        "name": WORKSPACE_NAME,
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": emulator.catalog.location,
        "tags": {},
        "etag": None,
        "properties": {
            "friendlyName": WORKSPACE_NAME,
            "description": "The workspace of the Azure ML emulator",
            "storageAccount": f"{_GROUP_ID}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}",
            "keyVault": f"{_GROUP_ID}/providers/Microsoft.Keyvault/vaults/{WORKSPACE_NAME}",
            "applicationInsights": None,
            "hbiWorkspace": False,
            "tenantId": TENANT_ID,
            "imageBuildCompute": None,
            "provisioningState": "Succeeded",
            "managedNetwork": {"isolationMode": "Disabled"},
            "v1LegacyMode": False,
            "creationTime": _MADE_AT,
            "storageHnsEnabled": False,
            "workspaceId": WORKSPACE_GUID,
            "publicNetworkAccess": "Enabled",
            "discoveryUrl": f"{base_url}/discovery",
            "mlFlowTrackingUri": mlflow_tracking_uri(base_url),
            "enableDataIsolation": True,
            "systemDatastoresAuthMode": "accesskey",
        },
        "identity": {
            "type": "SystemAssigned",
            "principalId": PRINCIPAL_ID,
            "tenantId": TENANT_ID,
        },
        "kind": "Default",
        "sku": {"name": "Basic", "tier": "Basic"},
        "systemData": {
            "createdAt": _MADE_AT,
            "createdBy": "Emulator",
            "createdByType": "Application",
            "lastModifiedAt": _MADE_AT,
            "lastModifiedBy": "Emulator",
            "lastModifiedByType": "Application",
        },
    }


ROUTES = [
    Route("GET", WORKSPACE, get_workspace),
    Route("GET", f"{GROUP}{PROVIDER}/workspaces", list_workspaces),
    Route("GET", f"{SUBSCRIPTION}{PROVIDER}/workspaces", list_workspaces),
    Route("GET", "/discovery", get_discovery, auth="none"),
]
EVENTS: dict[str, Applier] = {}
