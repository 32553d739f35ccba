"""What Prefect calls when a run was cancelled or has crashed: what it left in Azure is put away.

``serve`` calls these in its own process and a process worker in a process of the run's supervisor,
so also where the run itself was killed. They come after the run's own cleanup, beside a sweep, and
perhaps twice: what is gone already is no error.
"""

from __future__ import annotations

from datetime import datetime
from logging import LoggerAdapter
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from pydantic import ValidationError

from lifecycle import leftovers
from lifecycle.auth import WorkspaceSpec, authenticate
from lifecycle.clients import WorkspaceRef
from lifecycle.deletion import DELETE_DEADLINE_SECONDS, UNANSWERED_WINDOW_SECONDS
from lifecycle.endpoint import EndpointSpec
from lifecycle.errors import StillBilling
from lifecycle.signals import deferred_signals
from tasks.job import UNANSWERED_SECONDS
from tasks.report import Told, show_aftermath, show_failure
from tasks.runs import has_begun, has_completed, is_under_way, tell_still_billing

_put_away_here: set[str] = set()


def is_put_away(flow_run_id: str) -> None:
    """Say that the run itself, in this very process, has done all that a hook could do."""
    _put_away_here.add(flow_run_id)


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Keep a report of a run whose parameters were refused: its own code never began."""
    show_failure(flow_run, state, flow_run_logger(flow_run, flow))


def put_away_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """See the endpoints of a cancelled run gone and its job ended."""
    _put_away(flow, flow_run, state, cancel_job=True)


def put_away_crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """See the endpoints of a crashed run gone; its job goes on, for the run to come back to.

    The run may be at work again before this is done: what it then makes is its own.
    """
    _put_away(flow, flow_run, state, cancel_job=False, born_until=state.timestamp)


def _put_away(
    flow: Flow[..., Any],
    flow_run: FlowRun,
    state: State[Any],
    *,
    cancel_job: bool,
    born_until: datetime | None = None,
) -> None:
    if str(flow_run.id) in _put_away_here:
        return
    logger, told = flow_run_logger(flow_run, flow), Told()
    with deferred_signals():
        try:
            _see_gone(flow_run, logger, told, cancel_job=cancel_job, born_until=born_until)
        except Exception as trouble:
            problems = trouble.exceptions if isinstance(trouble, ExceptionGroup) else [trouble]
            told.trouble = "; ".join(str(problem) for problem in problems)
            unnamed = [f"resources of run {flow_run.id}"]
            named = [
                name
                for problem in problems
                for name in (problem.resources if isinstance(problem, StillBilling) else unnamed)
            ]
            tell_still_billing(list(dict.fromkeys(named)), flow_run)
            raise
        finally:
            show_aftermath(flow_run, state, told, logger)


def _see_gone(
    flow_run: FlowRun,
    logger: LoggerAdapter[Any],
    told: Told,
    *,
    cancel_job: bool,
    born_until: datetime | None,
) -> None:
    ref = authenticate(WorkspaceSpec.model_validate(flow_run.parameters.get("workspace") or {})).ref
    # The endpoint first: it bills for longer. The job also where endpoints may not even be listed.
    problems = []
    try:
        _see_endpoints_gone(flow_run, ref, logger, told, born_until)
    except Exception as problem:
        problems.append(problem)
    try:
        if cancel_job:
            _see_ended(flow_run, ref, logger, told)
    except Exception as problem:
        problems.append(problem)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ExceptionGroup("Neither the endpoints nor the job could be put away", problems)


def _see_endpoints_gone(
    flow_run: FlowRun,
    ref: WorkspaceRef,
    logger: LoggerAdapter[Any],
    told: Told,
    born_until: datetime | None,
) -> None:
    run_id = str(flow_run.id)
    window = UNANSWERED_WINDOW_SECONDS if is_under_way(run_id, "create_endpoint") else 0.0
    told.endpoints = leftovers.put_away_endpoints(
        ref,
        run_id,
        born_until=born_until,
        spare_kept=has_completed(run_id),
        window_seconds=window,
        operation_seconds=_operation_seconds(flow_run),
    )
    for name in told.endpoints:
        logger.warning("Endpoint %s, which the run left, is deleted", name)


def _see_ended(
    flow_run: FlowRun, ref: WorkspaceRef, logger: LoggerAdapter[Any], told: Told
) -> None:
    run_id = str(flow_run.id)
    # Also where it was answered, Azure may not find yet what it has taken.
    window = UNANSWERED_SECONDS if has_begun(run_id, "submit_job") else 0.0
    told.job = leftovers.put_away_job(ref, run_id, window_seconds=window)
    logger.info("The run's job: %s", told.job or "it has none")
    compute = flow_run.parameters.get("compute") or {}
    if compute.get("delete_after") and compute.get("name"):
        leftovers.put_away_cluster(ref, compute["name"], run_id)


def _operation_seconds(flow_run: FlowRun) -> float:
    """Return how long a deployment in progress may hold the deletion of its endpoint off."""
    try:
        spec = EndpointSpec.model_validate(flow_run.parameters.get("endpoint"))
    except ValidationError:
        return DELETE_DEADLINE_SECONDS
    return 60 * (spec.create_deadline_minutes + spec.deploy_deadline_minutes)
