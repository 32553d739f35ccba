"""Create, deploy, invoke and, whatever happened, delete the endpoint."""

from __future__ import annotations

from textwrap import shorten

from prefect import get_run_logger

from lifecycle import endpoint as lifecycle
from lifecycle import leftovers, scoring
from lifecycle.clients import WorkspaceRef
from lifecycle.endpoint import (
    DeletedAt,
    DeploymentState,
    EndpointRef,
    EndpointSpec,
    EndpointState,
)
from lifecycle.errors import EndpointError, EndpointUnseen, ServiceError, StillBilling
from lifecycle.registration import RegisteredModel
from lifecycle.report import RunReport
from lifecycle.scoring import Conversation

from .runs import has_completed
from .step import step


@step(run_name="create {endpoint.name}")
def create_endpoint(
    workspace: WorkspaceRef, spec: EndpointSpec, endpoint: EndpointRef
) -> EndpointState:
    """Create the endpoint, tagged with its owner and expiry."""
    state = lifecycle.create_endpoint(workspace, spec, endpoint)
    get_run_logger().info(
        "Endpoint %s is up; it expires at %s", state.name, endpoint.expires_at.isoformat()
    )
    return state


@step(run_name="deploy {model.name} to {endpoint.name}")
def deploy_model(
    workspace: WorkspaceRef,
    spec: EndpointSpec,
    endpoint: EndpointRef,
    model: RegisteredModel,
    name: str,
) -> DeploymentState:
    """Deploy the model under *name* and wait until it serves."""
    state = lifecycle.deploy(workspace, spec, endpoint, model, name)
    get_run_logger().info(
        "Deployment %s serves on %d × %s", state.name, state.instance_count, state.instance_type
    )
    return state


@step(run_name="route traffic of {endpoint.name}")
def route_traffic(
    workspace: WorkspaceRef, endpoint: EndpointRef, traffic: dict[str, int]
) -> EndpointState:
    """Send the endpoint's traffic to its deployments, in percent."""
    return lifecycle.route_traffic(workspace, endpoint, traffic)


@step(run_name="keep {endpoint.name}")
def keep_endpoint(workspace: WorkspaceRef, endpoint: EndpointRef) -> EndpointState:
    """Mark the endpoint as kept on purpose: no sweep deletes it."""
    state = lifecycle.keep_endpoint(workspace, endpoint)
    get_run_logger().warning("Endpoint %s is kept, and goes on being billed", state.name)
    return state


@step(run_name="invoke {endpoint_name}")
def invoke_endpoint(
    workspace: WorkspaceRef,
    endpoint_name: str,
    deployment: str | None,
    conversations: list[Conversation],
    timeout_seconds: float,
) -> list[str]:
    """Send the conversations one by one and return the replies, each shown in the log.

    Args:
        workspace: The workspace.
        endpoint_name: The endpoint.
        deployment: The deployment to ask, or None to let the traffic rules decide.
        conversations: One or more.
        timeout_seconds: What the deployment allows one request.
    """
    replies: list[str] = []
    with scoring.connection(workspace, endpoint_name, deployment, timeout_seconds) as ask:
        for number, asked in enumerate(conversations, start=1):
            replies.append(ask(scoring.build_request(asked.messages)))
            get_run_logger().info(
                "%d of %d: %s → %s",
                number,
                len(conversations),
                _shortened(asked.prompt),
                _shortened(replies[-1]),
                extra={"progress": (number, len(conversations))},
            )
    return replies


@step(retried=False, cleanup=True, run_name="delete {name}")
def delete_endpoint(
    workspace: WorkspaceRef, name: str, *, create_unanswered: bool = False
) -> DeletedAt:
    """See the endpoint gone that Azure has agreed to delete; StillBilling where it is not."""
    return lifecycle.confirm_deleted(workspace, name, create_unanswered=create_unanswered)


def put_away_endpoint(
    workspace: WorkspaceRef,
    report: RunReport,
    *,
    outcome: BaseException | None,
    operation_seconds: float,
) -> None:
    """Delete the run's endpoint at its end, without hiding how the run ended.

    Azure is asked to delete before Prefect is asked for anything: a Prefect server that is gone
    costs the task run in the UI, never the deletion.

    Args:
        workspace: The workspace.
        report: The run; the endpoint is named in ``still_billing`` until it was seen gone.
        outcome: The exception in flight, or None. Where the endpoint could not be seen gone, a
            note is added to it; without one, the report's ``error`` says so.
        operation_seconds: How long an operation in progress may hold the deletion off.
    """
    assert report.endpoint is not None
    logger, name = get_run_logger(), report.endpoint["name"]
    is_known = report.endpoint["created"] or (
        isinstance(outcome, EndpointError) and not isinstance(outcome, EndpointUnseen)
    )
    report.may_bill(f"onlineEndpoints/{name}")
    logger.info("Deleting endpoint %s; Ctrl-C waits until it is gone", name)
    try:
        was_there = lifecycle.request_delete(workspace, name, operation_seconds=operation_seconds)
        unanswered = not (is_known or was_there)
        try:
            gone = delete_endpoint(workspace, name, create_unanswered=unanswered)
        except StillBilling:
            raise
        except Exception as error:
            logger.warning("The task delete_endpoint could not run: %r", error)
            gone = lifecycle.confirm_deleted(workspace, name, create_unanswered=unanswered)
        report.endpoint_is_gone(gone.deleted_at)
    except StillBilling as problem:
        logger.error("%s", problem)
        report.add_trouble(problem, outcome)


def ask_earlier_endpoints_away(workspace: WorkspaceRef, run_id: str) -> None:
    """Ask Azure, at once, to delete what earlier attempts of this run left; nothing is awaited."""
    logger = get_run_logger()
    try:
        spare_kept = has_completed(run_id)
        for name in leftovers.ask_endpoints_away(workspace, run_id, spare_kept=spare_kept):
            logger.warning("Deleting endpoint %s, left by an earlier attempt", name)
    except ServiceError as problem:
        logger.warning("What earlier attempts left cannot be listed now: %s", problem)


def put_away_earlier_endpoints(
    workspace: WorkspaceRef, report: RunReport, run_id: str, *, operation_seconds: float
) -> None:
    """See what earlier attempts of this run left gone; what stays is named in ``still_billing``."""
    try:
        leftovers.put_away_endpoints(
            workspace,
            run_id,
            spare_kept=has_completed(run_id),
            operation_seconds=operation_seconds,
        )
    except StillBilling as problem:
        get_run_logger().error("%s", problem)
        for name in problem.resources:
            report.may_bill(name)
        report.add_trouble(problem, None)


def _shortened(text: str) -> str:
    return shorten(text, 120, placeholder=" …")
