"""The Azure clients of this process: one per workspace, built on first use, shared by all threads.

A step is given a :class:`WorkspaceRef`, which is plain data, and asks here for the client. No
client, credential or token ever leaves the process that built it: a forked child builds its own.

The SDK has no public name for three things that are needed here: the endpoints of the cloud that
it chose, the registry's own HTTP client, and the workspace's data plane. They are reached for in
:func:`cloud`, :func:`registry_get` and :func:`data_plane`, and nowhere else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import Field

from lifecycle.errors import ConfigurationError
from lifecycle.patience import within
from lifecycle.plain import Result

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core import PipelineClient
    from azure.core.credentials import TokenCredential
    from azure.core.rest import HttpRequest, HttpResponse

    from lifecycle.transport import PatientTransport

T = TypeVar("T")

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
READ_SECONDS_VARIABLE = "FINETUNE_READ_SECONDS"
POLLING_SECONDS = 2
# For no longer what informs a person is waited for.
COURTESY_SECONDS = 15.0


class WorkspaceRef(Result):
    """Which workspace and registry to work in, and how to sign in; enough to build any client."""

    subscription_id: str = Field(
        title="Subscription",
        description="Id of the Azure subscription that holds the workspace.",
        examples=["00000000-0000-0000-0000-000000000000"],
    )
    resource_group: str = Field(
        title="Resource group",
        description="Resource group that holds the workspace.",
        examples=["ml-prod"],
    )
    name: str = Field(
        title="Workspace", description="Name of the workspace.", examples=["ml-prod-eastus2"]
    )
    registry: str = Field(
        default="azureml",
        title="Registry",
        description="Registry that holds the foundation model and the pipeline component.",
        examples=["azureml"],
    )
    managed_identity_client_id: str | None = Field(
        default=None,
        title="Managed identity",
        description="Client id of the user-assigned managed identity to sign in with.",
        examples=["11111111-1111-1111-1111-111111111111"],
    )
    allow_interactive_login: bool = Field(
        default=False,
        title="Interactive login",
        description="Whether a browser may be opened when a person is at the terminal.",
        examples=[False],
    )

    @property
    def arm_id(self) -> str:
        """The workspace's resource id in Azure Resource Manager."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )


class Cloud(NamedTuple):
    """The endpoints of the Azure cloud that the SDK works in."""

    name: str
    arm_scope: str
    authority: str
    studio: str


def cloud() -> Cloud:
    """Return the cloud that the SDK chose.

    That is ``AZUREML_CURRENT_CLOUD``, or else the one that ``ARM_CLOUD_METADATA_URL`` describes,
    or else public Azure.

    Raises:
        ConfigurationError: ``ARM_CLOUD_METADATA_URL`` is set and names no cloud. The SDK would
            go on with public Azure: never what a person meant who set it.

    Source: ``azure.ai.ml._azure_environments``.
    """
    return _cache.once("cloud", _find_cloud)


def credential(ref: WorkspaceRef) -> TokenCredential:
    """Return the process's credential: the default chain of azure-identity, with no browser.

    :func:`lifecycle.auth.authenticate` may put another in its place with :func:`use_credential`.
    """
    return _cache.once(_credential_key(ref), lambda: _default_credential(ref))


def use_credential(ref: WorkspaceRef, chosen: TokenCredential) -> None:
    """Make ``chosen`` this process's credential for ``ref``, and drop clients built on another."""
    forget()
    _cache.once(_credential_key(ref), lambda: chosen)


def ml_client(ref: WorkspaceRef) -> MLClient:
    """Return the client of the workspace. It sends nothing until it is used."""
    return _cache.once(("workspace", ref), lambda: _workspace_client(ref))


def registry_client(ref: WorkspaceRef) -> MLClient:
    """Return the client of the registry; building it asks the registry's discovery service."""
    return _cache.once(("registry", ref), lambda: _registry_client(ref))


def registry_get(ref: WorkspaceRef, path: str, params: Mapping[str, str]) -> dict[str, Any]:
    """GET ``path`` below the registry, as JSON, by the SDK's own client and API version.

    The SDK's models drop fields that it does not know (``systemMetadata``); this does not.

    Args:
        ref: Names the registry.
        path: For example ``models/Phi-4/versions/7``.
        params: Further query parameters.

    Raises:
        azure.core.exceptions.HttpResponseError: The registry answered with an error.
    """
    from azure.ai.ml._utils._registry_utils import REGISTRY_DATAPLANE_API_VERSION
    from azure.core.rest import HttpRequest

    client = registry_client(ref)
    url = (
        f"/subscriptions/{client.subscription_id}/resourceGroups/{client.resource_group_name}"
        f"/providers/Microsoft.MachineLearningServices/registries/{ref.registry}/{path}"
    )
    request = HttpRequest(
        "GET",
        url,
        params={"api-version": REGISTRY_DATAPLANE_API_VERSION, **params},
        headers={"Accept": "application/json"},
    )
    return _json(client._service_client_registry_arm.send_request(request))


def get_once(
    ref: WorkspaceRef, url: str, params: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """GET a JSON object, with no second try: for what can be done without.

    Args:
        ref: Says who asks.
        url: A path of Azure Resource Manager, or an address of the workspace's data plane.
        params: Query parameters, with the ``api-version`` where Resource Manager is asked.

    Raises:
        ValueError: ``url`` is neither.
        azure.core.exceptions.AzureError: No answer within 15 s, or an error.
    """
    from azure.core.rest import HttpRequest

    if not url.startswith(("/", "https://")):
        raise ValueError(f"{url[:60]!r} is neither a path nor an https address")
    arm, client = _cache.once(("once", ref), lambda: _arm_pipeline(ref))
    request = HttpRequest(
        "GET",
        f"{arm}{url}" if url.startswith("/") else url,
        params=params,
        headers={"Accept": "application/json"},
    )
    read_timeout = min(COURTESY_SECONDS, _timeouts()["read_timeout"])
    return _json(client.send_request(request, retry_total=0, read_timeout=read_timeout))


def data_plane(ref: WorkspaceRef) -> DataPlane:
    """Return the client of the workspace's data plane (run history, logs)."""
    return _cache.once(("data plane", ref), lambda: _data_plane(ref))


def observe(see: Callable[[Any], None] | None) -> None:
    """Let ``see`` look at every answer from now on, and drop the clients that were built without.

    Args:
        see: Called with azure-core's ``PipelineResponse``, on the thread that sent the request;
            None for nobody.
    """
    _observed.clear()
    if see is not None:
        _observed["raw_response_hook"] = see
    forget()


def forget() -> None:
    """Drop every client and credential of this process; the next call builds new ones."""
    _cache.clear()


class DataPlane:
    """Authenticated GETs that the SDK has no method for, on azure-core's own pipeline.

    Args:
        base_url: The ``api`` address that the workspace's discovery service gives.
        credential: Gives the tokens that sign the requests.
        scope: What the tokens are for: that of Azure Resource Manager, as in the SDK's own run
            history client.
    """

    def __init__(self, base_url: str, credential: TokenCredential, scope: str) -> None:
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy

        self.base_url = base_url.rstrip("/")
        self._signed = _pipeline(self.base_url, BearerTokenCredentialPolicy(credential, scope))
        self._plain = _pipeline(self.base_url)

    def get_json(self, url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """GET a JSON object.

        Args:
            url: A path below the data plane (``history/v1.0…``), or an address on its own host.
            params: Query parameters.

        Raises:
            ValueError: ``url`` is on another host, which must not see the token.
            azure.core.exceptions.AzureError: No answer, or an error.
        """
        from azure.core.rest import HttpRequest

        address = url if url.startswith("https://") else f"{self.base_url}/{url.lstrip('/')}"
        if urlsplit(address).netloc != urlsplit(self.base_url).netloc:
            raise ValueError(f"{urlsplit(address).netloc} is not the workspace's data plane")
        request = HttpRequest("GET", address, params=params, headers={"Accept": "application/json"})
        with within(COURTESY_SECONDS):
            return _json(self._signed.send_request(request))

    def get_text(self, url: str, offset: int = 0) -> bytes:
        """GET a log from byte ``offset`` on; empty where nothing was written since.

        Sent without a token: a log's address carries its own signature, and the storage behind
        it refuses a request that has both.

        Args:
            url: Address of the log, as the run's details give it.
            offset: Bytes that are known already, 0 or more.

        Raises:
            azure.core.exceptions.AzureError: No answer, or an error.
        """
        from azure.core.rest import HttpRequest

        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with within(COURTESY_SECONDS):
            response = self._plain.send_request(HttpRequest("GET", url, headers=headers))
        if response.status_code == 416:
            return b""
        response.raise_for_status()
        content = response.content
        return content if response.status_code == 206 else content[offset:]

    def close(self) -> None:
        """Close the connections."""
        self._signed.close()
        self._plain.close()


class _Cache:
    """What this process has built, each thing once, also when two threads ask at a time."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._built: dict[Hashable, Any] = {}

    def once(self, key: Hashable, build: Callable[[], T]) -> T:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._built:
                self._built[key] = build()
            return cast(T, self._built[key])

    def clear(self) -> None:
        with self._guard:
            self._locks.clear()
            self._built.clear()

    def start_afresh(self) -> None:
        """Give a forked child locks that no thread of its parent holds."""
        self.__init__()  # type: ignore[misc]


_cache = _Cache()
_observed: dict[str, Callable[[Any], None]] = {}
os.register_at_fork(after_in_child=_cache.start_afresh)


def _find_cloud() -> Cloud:
    from azure.ai.ml._azure_environments import (
        EndpointURLS,
        _get_cloud_details,
        _get_default_cloud_name,
    )
    from azure.ai.ml.constants._common import AZUREML_CLOUD_ENV_NAME, ArmConstants

    name = _get_default_cloud_name()
    metadata_url = os.environ.get(ArmConstants.METADATA_URL_ENV_NAME)
    if metadata_url and not os.environ.get(AZUREML_CLOUD_ENV_NAME):
        raise ConfigurationError(
            f"No Azure cloud is described at {metadata_url}.",
            where=ArmConstants.METADATA_URL_ENV_NAME,
            remedy=f"Check that it answers, or name the cloud in {AZUREML_CLOUD_ENV_NAME}.",
        )
    details = _get_cloud_details(name)
    return Cloud(
        name=name,
        arm_scope=details[EndpointURLS.RESOURCE_MANAGER_ENDPOINT].strip("/") + "/.default",
        authority=details[EndpointURLS.ACTIVE_DIRECTORY_ENDPOINT].strip("/"),
        studio=details[EndpointURLS.AML_RESOURCE_ID].strip("/"),
    )


def _credential_key(ref: WorkspaceRef) -> Hashable:
    return ("credential", ref.managed_identity_client_id, ref.allow_interactive_login)


def _default_credential(ref: WorkspaceRef) -> TokenCredential:
    from azure.identity import DefaultAzureCredential

    options: dict[str, Any] = {
        # AZURE_TOKEN_CREDENTIALS could name these, and both open a window.
        "exclude_interactive_browser_credential": True,
        "exclude_broker_credential": True,
        **_timeouts(),
    }
    if ref.managed_identity_client_id:
        options["managed_identity_client_id"] = ref.managed_identity_client_id
    if "AZURE_AUTHORITY_HOST" not in os.environ:
        options["authority"] = cloud().authority
    return DefaultAzureCredential(**options)


def _workspace_client(ref: WorkspaceRef) -> MLClient:
    from azure.ai.ml import MLClient

    return MLClient(
        credential(ref),
        subscription_id=ref.subscription_id,
        resource_group_name=ref.resource_group,
        workspace_name=ref.name,
        cloud=cloud().name,
        **_client_options(),
    )


def _registry_client(ref: WorkspaceRef) -> MLClient:
    from azure.ai.ml import MLClient

    return MLClient(
        credential(ref), registry_name=ref.registry, cloud=cloud().name, **_client_options()
    )


def _client_options() -> dict[str, Any]:
    return {
        # One for all the clients that the SDK makes, so that they share their connections.
        "transport": _cache.once("transport", _transport),
        "show_progress": False,
        "enable_telemetry": False,
        "polling_interval": POLLING_SECONDS,
        **_timeouts(),
        # What azure-core's CustomHookPolicy takes.
        **_observed,
    }


def _transport() -> PatientTransport:
    from lifecycle.transport import PatientTransport

    return PatientTransport(**_timeouts())


def _timeouts() -> dict[str, Any]:
    """Return how long a connection and an answer are waited for: azure-core would wait 300 s."""
    given = os.environ.get(READ_SECONDS_VARIABLE)
    try:
        read = float(given) if given else READ_SECONDS
    except ValueError:
        read = 0.0
    if not 0 < read < float("inf"):
        raise ConfigurationError(
            f"{given!r} is no number of seconds above 0.", where=READ_SECONDS_VARIABLE
        )
    return {"connection_timeout": CONNECT_SECONDS, "read_timeout": read}


def _data_plane(ref: WorkspaceRef) -> DataPlane:
    from azure.core.rest import HttpRequest

    workspace: Any = ml_client(ref).workspaces.get(ref.name)
    discovery_url: str = workspace.discovery_url
    with _pipeline(discovery_url) as plain:
        addresses = _json(plain.send_request(HttpRequest("GET", discovery_url)))
    return DataPlane(addresses["api"], credential(ref), cloud().arm_scope)


def _arm_pipeline(ref: WorkspaceRef) -> tuple[str, PipelineClient[HttpRequest, HttpResponse]]:
    from azure.core.pipeline.policies import BearerTokenCredentialPolicy

    scope = cloud().arm_scope
    arm = scope.removesuffix("/.default")
    return arm, _pipeline(arm, BearerTokenCredentialPolicy(credential(ref), scope))


def _pipeline(base_url: str, *signing: Any) -> PipelineClient[HttpRequest, HttpResponse]:
    from azure.core import PipelineClient
    from azure.core.pipeline import policies

    return PipelineClient(
        base_url,
        policies=[
            policies.RequestIdPolicy(),
            policies.UserAgentPolicy(sdk_moniker="azureml-finetune-flows"),
            policies.RetryPolicy(),
            *signing,
            policies.CustomHookPolicy(**_observed),
            policies.HttpLoggingPolicy(),
        ],
        transport=_transport(),
    )


def _json(response: HttpResponse) -> dict[str, Any]:
    from azure.core.exceptions import DecodeError

    response.raise_for_status()
    try:
        return cast(dict[str, Any], response.json())
    except ValueError as error:
        raise DecodeError(message="The answer is not JSON.", response=response) from error
