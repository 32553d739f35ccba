"""Who the caller is and where the cloud is: managed identity, cloud metadata, registry discovery.

These are the doors through which the SDKs come in; the environment variables that lead to them are
in :mod:`~azureml_emulator.environment`.
"""

from __future__ import annotations

import hmac

from ..emulator import Applier, Emulator
from ..errors import NotFound
from ..routing import Call, Reply, Route
from ..settings import (
    CLOUD_NAME,
    REGISTRY_ID,
    REGISTRY_NAME,
    REGISTRY_RESOURCE_GROUP,
    REGISTRY_SUBSCRIPTION_ID,
    TENANT_ID,
)
from ..tokens import LIFETIME_SECONDS, ML_AUDIENCE, STORAGE_AUDIENCE

PRINCIPAL_ID = "00000000-0000-4000-8000-0000000000bb"
SYSTEM_ASSIGNED_CLIENT_ID = "00000000-0000-4000-8000-0000000000bc"
USER_ASSIGNED_CLIENT_ID = "00000000-0000-4000-8000-0000000000cc"

# Known to every tenant: scripts probe their credential with it, whichever cloud they then work in.
# The emulator's own Resource Manager takes no token for it.
_PUBLIC_ARM = "https://management.azure.com"
# Asked for by the SDK, whichever the cloud, when a registry's model is deployed.
_PUBLIC_ML = "https://ml.azure.com"
_NAMED_BY = ("client_id", "mi_res_id", "object_id", "principal_id")


def get_metadata(emulator: Emulator, call: Call) -> Reply:
    """Answer with the one cloud there is, as ARM's metadata endpoint does.

    azure-ai-ml drops a cloud that lacks the portal, resource manager, login endpoint or storage
    suffix; it makes the audience of Azure ML out of what follows the portal's second dot, so this
    portal gives ``https://ml.azure.localhost``. azureml-mlflow wants audiences, the suffix of SQL
    servers, and a login endpoint without a port, which nobody dials.
    """
    cloud = {
        "name": CLOUD_NAME,
        "portal": "https://portal.azure.localhost/",
        "resourceManager": f"{call.base_url}/",
        "authentication": {
            "loginEndpoint": "https://login.localhost/",
            "audiences": [call.base_url],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "suffixes": {
            "storage": "localhost",
            "sqlServerHostname": "database.localhost",
            "keyVaultDns": "vault.localhost",
            "acrLoginServer": "azurecr.localhost",
        },
    }
    return Reply([cloud])


def get_token(emulator: Emulator, call: Call) -> Reply:
    """Answer with a token for ``?resource=``, as App Service's managed identity endpoint does.

    Source: learn.microsoft.com/azure/app-service/overview-managed-identity, "REST endpoint
    reference"; an answer that is no token is ``{"statusCode", "message"}``.
    """
    header = call.headers.get("x-identity-header", "")
    if not hmac.compare_digest(header.encode(), emulator.tokens.identity_header.encode()):
        return _no_token(401, "The header X-IDENTITY-HEADER is missing or wrong.")
    identities = {call.query[name] for name in _NAMED_BY if name in call.query}
    if not identities <= {USER_ASSIGNED_CLIENT_ID}:
        return _no_token(
            400,
            "No User Assigned or Delegated Managed Identity found for specified "
            "ClientId/ResourceId/PrincipalId.",
        )
    resource = call.query.get("resource", "").rstrip("/")
    known = (call.base_url, ML_AUDIENCE, STORAGE_AUDIENCE, _PUBLIC_ARM, _PUBLIC_ML)
    if resource not in known:
        return _no_token(
            400,
            f"AADSTS500011: The resource principal named {resource or '(none)'} was not found in "
            f"the tenant named {TENANT_ID}.",
        )
    now, lifetime = emulator.now(), call.effects.get("token_lifetime", LIFETIME_SECONDS)
    return Reply(
        {
            "access_token": emulator.tokens.issue(resource, now=now, lifetime=lifetime),
            "expires_on": str(int(now + lifetime)),
            "resource": resource,
            "token_type": "Bearer",
            "client_id": USER_ASSIGNED_CLIENT_ID if identities else SYSTEM_ASSIGNED_CLIENT_ID,
        }
    )


def get_registry_discovery(emulator: Emulator, call: Call) -> Reply:
    """Answer where the registry's data plane is; the address ends in a slash, on which others lean.

    Raises:
        NotFound: There is no such registry.
    """
    name = call.params["registry"]
    if name.lower() != REGISTRY_NAME:
        raise NotFound(f"Registry {name} was not found.", code="UserError")
    return Reply(
        {
            "registryName": REGISTRY_NAME,
            "primaryRegion": emulator.catalog.location,
            "primaryRegionResourceProviderUri": f"{call.base_url}/",
            "resourceId": REGISTRY_ID,
            "resourceGroup": REGISTRY_RESOURCE_GROUP,
            "subscriptionId": REGISTRY_SUBSCRIPTION_ID,
            "additionalRegions": [],
            "registryFqdns": {emulator.catalog.location: {"uri": f"{call.base_url}/"}},
        }
    )


def _no_token(status: int, message: str) -> Reply:
    return Reply({"statusCode": status, "message": message}, status)


ROUTES = [
    Route("GET", "/metadata/endpoints", get_metadata, auth="none"),
    Route("GET", "/msi/token", get_token, auth="own"),
    Route(
        "GET",
        "/registrymanagement/v1.0/registries/{registry}/discovery",
        get_registry_discovery,
        auth="ml",
    ),
]
EVENTS: dict[str, Applier] = {}
