"""The managed online endpoint of a run: create, deploy, route, keep; delete as in `deletion`.

Every endpoint of ours bears its owner and its expiry from the request that creates it, so that
there is no moment at which a sweep could not tell whose it is. docs/steps/endpoint.md says what
each error means to the person at the keyboard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from lifecycle.azure import find, scrubbed, translated
from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.deletion import (
    DeletedAt,
    confirm_deleted,
    delete_endpoint,
    find_endpoint,
    request_delete,
)
from lifecycle.errors import ConfigurationError, EndpointError, EndpointTaken, ServiceError
from lifecycle.names import (
    ENDPOINT_PREFIX_LENGTH,
    ENDPOINT_PREFIX_PATTERN,
    endpoint_name,
    validate_endpoint_prefix,
)
from lifecycle.operation import Change, carry_out, state_of
from lifecycle.plain import Result, Spec
from lifecycle.waiting import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from azure.ai.ml.entities import IdentityConfiguration, OnlineDeployment, OnlineEndpoint

    from lifecycle.registration import RegisteredModel

__all__ = [
    "CREATED_TAG",
    "EXPIRES_TAG",
    "KEEP_TAG",
    "OWNER_TAG",
    "DeletedAt",
    "DeploymentState",
    "EndpointRef",
    "EndpointSpec",
    "EndpointState",
    "confirm_deleted",
    "create_endpoint",
    "delete_endpoint",
    "deploy",
    "keep_endpoint",
    "plan_endpoint",
    "request_delete",
    "route_traffic",
]

OWNER_TAG = "finetune-owner"
CREATED_TAG = "finetune-created-at"
EXPIRES_TAG = "finetune-expires-at"
KEEP_TAG = "finetune-keep"

_UPDATE_DEADLINE_SECONDS = 600.0
_LOG_TAIL_LINES = 40
_USER_ASSIGNED = (
    "(?i:/subscriptions/[^/]+/resourceGroups/[^/]+/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/[^/]+)"
)

logger = logging.getLogger(__name__)


class EndpointSpec(Spec):
    """The endpoint that serves the trained model for its test, and how long it may live."""

    name_prefix: Annotated[str, AfterValidator(validate_endpoint_prefix)] = Field(
        default="ultrachat",
        title="Name prefix",
        description="What the endpoint's name begins with: 1 to 12 letters, digits and single "
        "dashes, a letter first. The run's id and attempt follow.",
        examples=["ultrachat"],
        json_schema_extra={"maxLength": ENDPOINT_PREFIX_LENGTH, "pattern": ENDPOINT_PREFIX_PATTERN},
    )
    deployment_name: str = Field(
        default="demo",
        title="Deployment name",
        description="Name of the deployment: 3 to 32 letters, digits and single dashes.",
        min_length=3,
        max_length=32,
        pattern="^[A-Za-z](-?[A-Za-z0-9])*$",
        examples=["demo"],
    )
    instance_type: str = Field(
        title="Instance type",
        description="VM size that serves the model; it must be one that the model allows.",
        min_length=1,
        examples=["Standard_NC24ads_A100_v4"],
    )
    instance_count: int = Field(
        default=1,
        title="Instances",
        description="How many instances serve the model.",
        ge=1,
        le=50,
        examples=[1],
    )
    liveness_probe_delay_seconds: int = Field(
        default=600,
        title="Liveness probe delay",
        description="Seconds that the model may take to load before it is probed.",
        ge=1,
        le=3600,
        examples=[600],
    )
    request_timeout_seconds: int = Field(
        default=90,
        title="Request timeout",
        description="Seconds that one request may take; Azure allows 180.",
        ge=1,
        le=180,
        examples=[90],
    )
    create_deadline_minutes: float = Field(
        default=15,
        title="Create deadline",
        description="Minutes that Azure may take to create the endpoint.",
        gt=0,
        le=1440,
        examples=[15],
    )
    deploy_deadline_minutes: float = Field(
        default=60,
        title="Deploy deadline",
        description="Minutes that Azure may take to bring the deployment up.",
        gt=0,
        le=1440,
        examples=[60],
    )
    keep: bool = Field(
        default=False,
        title="Keep",
        description="Leave the endpoint running, and billed, after a test that succeeded; no sweep "
        "deletes it then.",
        examples=[False],
    )
    expires_after_minutes: float = Field(
        default=90,
        title="Expires after",
        description="Minutes after which a sweep may delete the endpoint; longer than the two "
        "deadlines together.",
        gt=0,
        le=10080,
        examples=[90],
    )
    identity: str = Field(
        default="system",
        title="Identity",
        description="Identity of the endpoint and of its deployments: `system`, or the resource "
        "id of a user-assigned managed identity.",
        pattern=f"^(system|{_USER_ASSIGNED})$",
        examples=["system"],
    )

    @model_validator(mode="after")
    def _lives_through_its_deployment(self) -> EndpointSpec:
        needed = self.create_deadline_minutes + self.deploy_deadline_minutes
        if self.expires_after_minutes <= needed:
            raise ValueError(
                f"expires_after_minutes ({self.expires_after_minutes:g}) must exceed "
                f"create_deadline_minutes + deploy_deadline_minutes ({needed:g}): a sweep could "
                "delete the endpoint while it is being deployed."
            )
        return self


class EndpointRef(Result):
    """One endpoint of one attempt of one run: known before it is created."""

    name: str = Field(title="Name", description="The endpoint's name, unique in the region.")
    owner: str = Field(title="Owner", description="Id of the flow run that it belongs to.")
    attempt: int = Field(title="Attempt", description="The flow run's run count.", ge=1)
    created_at: datetime = Field(title="Created at", description="When it was planned, UTC.")
    expires_at: datetime = Field(title="Expires at", description="When a sweep may delete it, UTC.")


class EndpointState(Result):
    """An endpoint as Azure shows it."""

    name: str = Field(title="Name", description="The endpoint's name.")
    provisioning_state: str = Field(title="State", description="Azure's provisioning state.")
    scoring_uri: str | None = Field(title="Scoring URI", description="Where requests go.")
    traffic: dict[str, int] = Field(title="Traffic", description="Percent by deployment.")


class DeploymentState(Result):
    """A deployment as Azure shows it."""

    endpoint_name: str = Field(title="Endpoint", description="The endpoint that it belongs to.")
    name: str = Field(title="Name", description="The deployment's name.")
    provisioning_state: str = Field(title="State", description="Azure's provisioning state.")
    model: str = Field(title="Model", description="Id of the model that it serves.")
    instance_type: str = Field(title="Instance type", description="VM size that serves it.")
    instance_count: int = Field(title="Instances", description="How many instances serve it.")


def plan_endpoint(spec: EndpointSpec, flow_run_id: str, attempt: int, now: datetime) -> EndpointRef:
    """Name the endpoint of this attempt and set its expiry; nothing is sent.

    Args:
        spec: What is asked for.
        flow_run_id: The flow run's UUID.
        attempt: The flow run's ``run_count``, from 1.
        now: Aware of its time zone.
    """
    return EndpointRef(
        name=endpoint_name(spec.name_prefix, flow_run_id, attempt),
        owner=flow_run_id,
        attempt=attempt,
        created_at=now,
        expires_at=now + timedelta(minutes=spec.expires_after_minutes),
    )


def require_lifetime(spec: EndpointSpec, *, deployments: int, requests: int) -> None:
    """Refuse an endpoint that would expire while it is in use: a sweep could delete it then.

    Args:
        spec: What is asked for.
        deployments: How many are made one after the other.
        requests: How many are sent one after the other.

    Raises:
        ConfigurationError: All of it may take longer than ``expires_after_minutes``.
    """
    deploying = spec.create_deadline_minutes + deployments * spec.deploy_deadline_minutes
    needed = deploying + requests * spec.request_timeout_seconds / 60
    if spec.expires_after_minutes <= needed:
        raise ConfigurationError(
            f"the endpoint may be in use for {needed:g} minutes ({deployments} deployments, "
            f"{requests} requests), and would expire after {spec.expires_after_minutes:g}.",
            where="endpoint.expires_after_minutes",
            remedy=f"Set it above {needed:g}, or lower the deadlines or evaluation.conversations.",
        )


def create_endpoint(
    ref: WorkspaceRef, spec: EndpointSpec, endpoint: EndpointRef, *, clock: Clock = SYSTEM_CLOCK
) -> EndpointState:
    """Create the endpoint, tagged, and wait until it is up; adopt it where it is there already.

    Raises:
        EndpointError: Azure refused or failed it, the name is another owner's, or it is not up
            within ``spec.create_deadline_minutes``.
        ServiceError: Azure did not answer. It may come into being all the same: delete it with
            ``create_unanswered=True``.
    """
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    client = ml_client(ref)
    found = find_endpoint(ref, endpoint.name)
    if found is not None and not _is_owned(found, endpoint):
        raise EndpointTaken(
            "An endpoint of this name is there already, and it is not this run's.",
            where=endpoint.name,
        )
    wanted = ManagedOnlineEndpoint(
        name=endpoint.name,
        description=f"Test of flow run {endpoint.owner}, attempt {endpoint.attempt}",
        auth_mode="key",
        tags=_tags(endpoint),
        identity=_identity(spec.identity),
    )
    change = Change(
        doing=f"creating the endpoint {endpoint.name}",
        where=endpoint.name,
        begin=lambda: client.online_endpoints.begin_create_or_update(wanted),
        look=lambda: find_endpoint(ref, endpoint.name),
        as_wanted=lambda entity: _is_owned(entity, endpoint),
    )
    if found is not None and state_of(found) != "Failed":
        logger.info("Endpoint %s is there already: adopted.", endpoint.name)
        change = change._replace(begin=None)
    deadline = spec.create_deadline_minutes * 60
    return _endpoint_state(carry_out(change, deadline_seconds=deadline, clock=clock))


def deploy(
    ref: WorkspaceRef,
    spec: EndpointSpec,
    endpoint: EndpointRef,
    model: RegisteredModel,
    name: str | None = None,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> DeploymentState:
    """Deploy the model to the endpoint and wait until it serves; adopt it where it does already.

    A deployment that failed is left as it is, and is billed: the caller deletes the endpoint.

    Args:
        ref: The workspace.
        spec: Size, instances, probe, timeout and deadline.
        endpoint: The endpoint, which is up.
        model: The registered model.
        name: The deployment's name; ``spec.deployment_name`` where not given.
        clock: Whose time passes.

    Raises:
        EndpointError: Azure refused or failed it, or it is not up within
            ``spec.deploy_deadline_minutes``; the message ends with the tail of its log.
        ServiceError: Azure did not answer; it may be deployed all the same.
    """
    from azure.ai.ml.entities import ManagedOnlineDeployment, OnlineRequestSettings, ProbeSettings

    client = ml_client(ref)
    name = name or spec.deployment_name
    wanted = ManagedOnlineDeployment(
        name=name,
        endpoint_name=endpoint.name,
        model=model.id,
        instance_type=spec.instance_type,
        instance_count=spec.instance_count,
        liveness_probe=ProbeSettings(initial_delay=spec.liveness_probe_delay_seconds),
        request_settings=OnlineRequestSettings(
            request_timeout_ms=spec.request_timeout_seconds * 1000
        ),
    )

    def as_wanted(entity: Any) -> bool:
        return bool(
            entity.model == model.id
            and str(entity.instance_type).lower() == spec.instance_type.lower()
            and entity.instance_count == spec.instance_count
        )

    change = Change(
        doing=f"deploying {model.name} version {model.version} to {endpoint.name}",
        where=f"{endpoint.name}/{name}",
        begin=lambda: client.online_deployments.begin_create_or_update(wanted),
        look=lambda: _deployment(ref, endpoint.name, name),
        as_wanted=as_wanted,
    )
    found = change.look()
    if found is not None and state_of(found) != "Failed" and as_wanted(found):
        logger.info("Deployment %s is there already: adopted.", change.where)
        change = change._replace(begin=None)
    deadline = spec.deploy_deadline_minutes * 60
    try:
        deployed = carry_out(change, deadline_seconds=deadline, clock=clock)
    except EndpointError as error:
        raise EndpointError(
            f"{error.message}\n{_log_tail(ref, endpoint.name, name)}",
            where=error.where,
            remedy=error.remedy,
            transient=error.transient,
        ) from error
    return DeploymentState(
        endpoint_name=endpoint.name,
        name=name,
        provisioning_state=state_of(deployed),
        model=str(deployed.model or model.id),
        instance_type=str(deployed.instance_type or spec.instance_type),
        instance_count=deployed.instance_count or spec.instance_count,
    )


def route_traffic(
    ref: WorkspaceRef,
    endpoint: EndpointRef,
    traffic: Mapping[str, int],
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> EndpointState:
    """Send the endpoint's traffic to its deployments, in percent: ``{"demo": 100}``.

    Tags that others set in the meantime are kept.

    Raises:
        EndpointError: The endpoint is not there, or Azure refused or failed the change.
        ServiceError: Azure did not answer, and the traffic is not as asked.
    """
    return _update(
        ref,
        endpoint,
        f"routing the traffic of {endpoint.name}",
        lambda found: {"tags": found.tags, "traffic": dict(traffic)},
        lambda entity: _routes(entity) == _percents(traffic),
        clock,
    )


def keep_endpoint(
    ref: WorkspaceRef, endpoint: EndpointRef, *, clock: Clock = SYSTEM_CLOCK
) -> EndpointState:
    """Give the endpoint the tag that no sweep touches, as the last thing that a run does with it.

    Not at its birth: a run that dies on the way would leave an endpoint that bills for ever.

    Raises:
        EndpointError: The endpoint is not there, or Azure refused or failed the change.
        ServiceError: Azure did not answer, and the tag is not there.
    """
    return _update(
        ref,
        endpoint,
        f"marking the endpoint {endpoint.name} as kept",
        lambda found: {"tags": {**(found.tags or {}), KEEP_TAG: "true"}, "traffic": found.traffic},
        lambda entity: KEEP_TAG in (entity.tags or {}),
        clock,
    )


def _update(
    ref: WorkspaceRef,
    endpoint: EndpointRef,
    doing: str,
    changes: Callable[[OnlineEndpoint], Mapping[str, Any]],
    as_wanted: Callable[[OnlineEndpoint], bool],
    clock: Clock,
) -> EndpointState:
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    client = ml_client(ref)
    found = find_endpoint(ref, endpoint.name)
    if found is None:
        raise EndpointError("The endpoint is no longer there.", where=endpoint.name)
    wanted = ManagedOnlineEndpoint(
        name=endpoint.name,
        description=found.description,
        auth_mode="key",
        identity=found.identity,
        **changes(found),
    )
    change = Change(
        doing=doing,
        where=endpoint.name,
        begin=lambda: client.online_endpoints.begin_create_or_update(wanted),
        look=lambda: find_endpoint(ref, endpoint.name),
        as_wanted=as_wanted,
    )
    changed = carry_out(change, deadline_seconds=_UPDATE_DEADLINE_SECONDS, clock=clock)
    return _endpoint_state(changed)


def _deployment(ref: WorkspaceRef, endpoint: str, name: str) -> OnlineDeployment | None:
    return find(
        f"reading the deployment {endpoint}/{name}",
        f"{endpoint}/{name}",
        lambda: ml_client(ref).online_deployments.get(name, endpoint),
    )


def _log_tail(ref: WorkspaceRef, endpoint: str, name: str) -> str:
    """Return the end of the deployment's log, or why there is none."""
    try:
        with translated(f"reading the log of {endpoint}/{name}"):
            log = ml_client(ref).online_deployments.get_logs(name, endpoint, _LOG_TAIL_LINES)
    except ServiceError as error:
        return f"Its log could not be read: {error.message}"
    lines = scrubbed(log).strip().splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(["Its log ends:", *lines]) if lines else "Its log is empty."


def _is_owned(entity: OnlineEndpoint, endpoint: EndpointRef) -> bool:
    return (entity.tags or {}).get(OWNER_TAG) == endpoint.owner


def _tags(endpoint: EndpointRef) -> dict[str, str]:
    return {
        OWNER_TAG: endpoint.owner,
        CREATED_TAG: endpoint.created_at.astimezone(UTC).isoformat(timespec="seconds"),
        EXPIRES_TAG: endpoint.expires_at.astimezone(UTC).isoformat(timespec="seconds"),
    }


def _identity(identity: str) -> IdentityConfiguration:
    from azure.ai.ml.entities import IdentityConfiguration, ManagedIdentityConfiguration

    if identity == "system":
        return IdentityConfiguration(type="system_assigned")
    return IdentityConfiguration(
        type="user_assigned",
        user_assigned_identities=[ManagedIdentityConfiguration(resource_id=identity)],
    )


def _endpoint_state(entity: OnlineEndpoint) -> EndpointState:
    return EndpointState(
        name=str(entity.name),
        provisioning_state=state_of(entity),
        scoring_uri=entity.scoring_uri,
        traffic=_routes(entity),
    )


def _routes(entity: OnlineEndpoint) -> dict[str, int]:
    return _percents(entity.traffic or {})


def _percents(traffic: Mapping[str, int]) -> dict[str, int]:
    return {name: int(percent) for name, percent in traffic.items() if int(percent)}
