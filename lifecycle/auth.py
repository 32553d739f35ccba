"""Step 1, *auth*: find the workspace, sign in, and look at the workspace once.

What it returns are facts. The token that proved the sign-in stays where azure-identity keeps it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lifecycle import clients
from lifecycle.azure import scrubbed, translated
from lifecycle.clients import WorkspaceRef
from lifecycle.errors import (
    CredentialError,
    ServiceError,
    WorkspaceNotConfigured,
    WorkspaceNotFound,
)
from lifecycle.loose import as_text
from lifecycle.plain import Result, Spec

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

logger = logging.getLogger(__name__)

INTERACTIVE_SECONDS = 300.0

VARIABLES = {
    "subscription_id": "AZUREML_ARM_SUBSCRIPTION",
    "resource_group": "AZUREML_ARM_RESOURCEGROUP",
    "name": "AZUREML_ARM_WORKSPACE_NAME",
}

# Where the SDK looks for it, in its order, and how far up.
_CONFIG_FILES = (
    ".azureml/config.json",
    ".azureml/project.json",
    "aml_config/config.json",
    "aml_config/project.json",
    "config.json",
    "project.json",
)
_LEVELS_UP = 20
_KEYS = {
    "subscription_id": "subscription_id",
    "resource_group": "resource_group",
    "name": "workspace_name",
}
_SCOPE = re.compile(
    r"/subscriptions/(?P<subscription_id>[^/]+)/resourceGroups/(?P<resource_group>[^/]+)"
    r"/providers/[^/]+/workspaces/(?P<name>[^/]+)/?",
    re.IGNORECASE,
)


class WorkspaceSpec(Spec):
    """Which workspace to work in. All three names, or none: then environment or config.json."""

    subscription_id: str | None = Field(
        default=None,
        min_length=1,
        title="Subscription",
        description="Id of the Azure subscription that holds the workspace.",
        examples=["00000000-0000-0000-0000-000000000000"],
    )
    resource_group: str | None = Field(
        default=None,
        min_length=1,
        max_length=90,
        title="Resource group",
        description="Resource group that holds the workspace.",
        examples=["ml-prod"],
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=260,
        title="Workspace",
        description="Name of the workspace.",
        examples=["ml-prod-eastus2"],
    )
    registry: str = Field(
        default="azureml",
        min_length=1,
        title="Registry",
        description="Registry that holds the foundation model and the pipeline component.",
        examples=["azureml"],
    )
    config_path: str | None = Field(
        default=None,
        min_length=1,
        title="config.json",
        description="A config.json as Azure ML studio gives it, or a folder to look in and above. "
        "Instead of the three names; it wins over the environment.",
        examples=["~/ml-prod/config.json"],
    )
    managed_identity_client_id: str | None = Field(
        default=None,
        min_length=1,
        title="Managed identity",
        description="Client id of the user-assigned managed identity to sign in with.",
        examples=["11111111-1111-1111-1111-111111111111"],
    )
    allow_interactive_login: bool = Field(
        default=False,
        title="Interactive login",
        description="Open a browser when no other credential works and a person is at a terminal.",
        examples=[False],
    )


class WorkspaceResult(Result):
    """The workspace as Azure describes it to the identity that signed in."""

    ref: WorkspaceRef = Field(title="Reference", description="What any step builds its client of.")
    tenant_id: str | None = Field(
        title="Tenant",
        description="Microsoft Entra tenant that gave the token.",
        examples=["22222222-2222-2222-2222-222222222222"],
    )
    region: str | None = Field(title="Region", description="Azure region.", examples=["eastus2"])
    workspace_id: str | None = Field(
        title="Workspace id",
        description="The workspace's own id, a GUID.",
        examples=["33333333-3333-3333-3333-333333333333"],
    )
    mlflow_tracking_uri: str | None = Field(
        title="MLflow tracking URI",
        description="Where the workspace keeps its metrics; begins with azureml://.",
        examples=["azureml://eastus2.api.azureml.ms/mlflow/v1.0/subscriptions/…"],
    )
    discovery_url: str | None = Field(
        title="Discovery URL",
        description="Where the workspace's data plane says its addresses.",
        examples=["https://eastus2.api.azureml.ms/discovery"],
    )
    studio_url: str = Field(
        title="Studio",
        description="The workspace in Azure ML studio.",
        examples=["https://ml.azure.com/home?wsid=…"],
    )


def authenticate(
    spec: WorkspaceSpec, *, deadline_seconds: float = 60, interactive: bool | None = None
) -> WorkspaceResult:
    """Sign in and read the workspace.

    ``DefaultAzureCredential`` is asked for a token of the cloud's Resource Manager. Only where it
    has none, ``spec.allow_interactive_login`` is set and a person is at a terminal, a browser
    opens and has 300 seconds. Nothing else ever opens one, or prints a device code.

    Args:
        spec: Which workspace, and which identity.
        deadline_seconds: How long the credential may take to answer, above 0.
        interactive: Whether a person is at a terminal; found out where not given.

    Raises:
        WorkspaceNotConfigured: No workspace is named, or only part of a name is given.
        CredentialError: No credential gave a token within the deadline.
        WorkspaceNotFound: It does not exist, or this identity may not read it.
        ServiceError: Azure did not answer.
    """
    ref = resolve_workspace(spec)
    cloud = _find_cloud()
    person = person_at_terminal() if interactive is None else interactive
    token = _sign_in(ref, cloud, deadline_seconds, ref.allow_interactive_login and person)
    workspace = _read_workspace(ref)
    tenant_id = _tenant(token)
    tenant = f"&tid={tenant_id}" if tenant_id else ""
    return WorkspaceResult(
        ref=ref,
        tenant_id=tenant_id,
        # What of these is missing costs no more than what it is for: metrics, logs, a name.
        region=as_text(workspace.location),
        workspace_id=as_text(workspace._workspace_id),
        mlflow_tracking_uri=as_text(workspace.mlflow_tracking_uri),
        discovery_url=as_text(workspace.discovery_url),
        studio_url=f"{cloud.studio}/home?wsid={ref.arm_id}{tenant}",
    )


def resolve_workspace(spec: WorkspaceSpec, environ: Mapping[str, str] = os.environ) -> WorkspaceRef:
    """Find which workspace is meant: parameters, then environment, then config.json.

    Each source names the whole workspace or is refused; none completes another.

    Args:
        spec: The parameters.
        environ: Where the three ``AZUREML_ARM_…`` variables are looked up.

    Raises:
        WorkspaceNotConfigured: Nothing names a workspace, or a source names only part of one.
    """
    parameters = _whole(
        {key: getattr(spec, key) for key in VARIABLES},
        {key: f"workspace.{key}" for key in VARIABLES},
    )
    if parameters and spec.config_path:
        raise WorkspaceNotConfigured(
            "The workspace is named, and config_path points to another name for it.",
            where="workspace.config_path",
            remedy="Give either the three names or config_path.",
        )
    names = parameters
    if not names and not spec.config_path:
        names = _whole({key: environ.get(name) for key, name in VARIABLES.items()}, VARIABLES)
    return WorkspaceRef(
        **(names or _from_config_file(spec.config_path)),
        registry=spec.registry,
        managed_identity_client_id=spec.managed_identity_client_id,
        allow_interactive_login=spec.allow_interactive_login,
    )


def person_at_terminal() -> bool:
    """Say whether somebody can read what is asked and answer it: stdin and stderr are terminals."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _find_cloud() -> clients.Cloud:
    with translated("finding the Azure cloud", where="ARM_CLOUD_METADATA_URL"):
        return clients.cloud()


def _whole(values: Mapping[str, str | None], called: Mapping[str, str]) -> dict[str, str]:
    """Return the three names, or none of them.

    Raises:
        WorkspaceNotConfigured: Some are given and some are not.
    """
    given = {key: value for key, value in values.items() if value}
    missing = [called[key] for key in values if key not in given]
    if given and missing:
        raise WorkspaceNotConfigured(
            f"{_listed(called[key] for key in given)} given, but not {_listed(missing)}.",
            where=missing[0],
            remedy="Set all three, or none of them.",
        )
    return given


def _listed(names: Any) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else str(last)


def _from_config_file(path: str | None) -> dict[str, str]:
    """Read the names from config.json: *path*, or where the SDK looks, from *path* or here upwards.

    The SDK's own reader makes text of whatever it finds: a null becomes the subscription "None".

    Raises:
        WorkspaceNotConfigured: There is none, or it does not name a workspace.
    """
    file = _find_config_file(path)
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WorkspaceNotConfigured(
            f"{file} cannot be read: {type(error).__name__}: {error}.", where=str(file)
        ) from error
    if not isinstance(document, dict):
        raise WorkspaceNotConfigured(
            f"{file} is no object with {_listed(_KEYS.values())}.", where=str(file)
        )
    scope = document.get("Scope")  # As the SDK's first version wrote it.
    if scope:
        found = _SCOPE.fullmatch(scope) if isinstance(scope, str) else None
        if found is None:
            raise WorkspaceNotConfigured(
                f"Scope in {file} is not the id of a workspace: {_as_json(scope)}.",
                where=str(file),
            )
        return found.groupdict()
    wrong = [
        f"{key} is {_as_json(document[key])}" if key in document else f"{key} is missing"
        for key in _KEYS.values()
        if not isinstance(document.get(key), str) or not document[key].strip()
    ]
    if wrong:
        raise WorkspaceNotConfigured(
            f"{file} does not name a workspace: {_listed(wrong)}; each must be text.",
            where=str(file),
        )
    return {name: document[key] for name, key in _KEYS.items()}


def _as_json(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _find_config_file(path: str | None) -> Path:
    start = Path(path or ".").expanduser()
    if start.is_file():
        return start
    if start.exists():
        folders = [start.absolute(), *start.resolve().parents][: _LEVELS_UP + 1]
        for name in _CONFIG_FILES:
            for folder in folders:
                if (folder / name).is_file():
                    return folder / name
        looked = f"There is no config.json in {start} or above"
    else:
        looked = f"There is no {start}"
    raise WorkspaceNotConfigured(
        f"{looked}."
        if path
        else "Nothing names a workspace: neither parameters nor environment, "
        "and there is no config.json here or in a folder above.",
        where="workspace.config_path" if path else "workspace",
    )


def _sign_in(
    ref: WorkspaceRef, cloud: clients.Cloud, deadline_seconds: float, browser: bool
) -> str:
    """Return a token, and leave the credential that gave it to the clients of this process."""
    try:
        try:
            credential = clients.credential(ref)
        except ValueError as error:  # AZURE_TOKEN_CREDENTIALS names none, or a bad authority.
            raise CredentialError(f"{error}", where="AZURE_TOKEN_CREDENTIALS") from error
        return _probe("No credential", credential, cloud.arm_scope, deadline_seconds)
    except CredentialError as error:
        if not browser:
            raise
        logger.warning("%s Opening a browser.", error.message)
    from azure.identity import InteractiveBrowserCredential

    chosen = InteractiveBrowserCredential(
        authority=os.environ.get("AZURE_AUTHORITY_HOST", cloud.authority),
        timeout=int(INTERACTIVE_SECONDS),
    )
    token = _probe("No browser login", chosen, cloud.arm_scope, INTERACTIVE_SECONDS)
    clients.use_credential(ref, chosen)
    return token


def _probe(who: str, credential: TokenCredential, scope: str, seconds: float) -> str:
    """Ask for a token on a thread of its own: some credentials hang, and none takes a deadline."""
    answer: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(credential.get_token(scope).token)
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, name="credential-probe", daemon=True).start()
    try:
        got = answer.get(timeout=seconds)
    except queue.Empty:
        raise CredentialError(f"{who} gave a token for {scope} within {seconds:g} s.") from None
    if isinstance(got, Exception):
        said = " ".join(scrubbed(str(got)).split())[:1500].rstrip(".")
        raise CredentialError(f"{who} gave a token for {scope}: {said}.") from (
            got if scrubbed(str(got)) == str(got) else None
        )
    return got


def _read_workspace(ref: WorkspaceRef) -> Any:
    doing = f"reading the workspace {ref.name} in {ref.resource_group}"
    try:
        with translated(doing, where="workspace", not_found=WorkspaceNotFound):
            return clients.ml_client(ref).workspaces.get(ref.name)
    except ServiceError as error:
        if error.status not in {401, 403}:
            raise
        raise WorkspaceNotFound(
            error.message, where="workspace", transient=error.transient
        ) from error


def _tenant(token: str) -> str | None:
    """Return the token's ``tid`` claim; None where the token is opaque to us."""
    import jwt

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    tenant = claims.get("tid")
    return str(tenant) if tenant else None
