"""``finetune_chat_model``: fine-tune a chat model on Azure ML, register, try and put it away."""

# No `from __future__ import annotations`: Prefect loads this file under a module name that pydantic
# cannot look the text of an annotation up in, and every deployed run would fail on its parameters.

import sys
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from flows.hooks import is_put_away, put_away_cancelled, put_away_crashed, tell_failure
from lifecycle.auth import WorkspaceSpec
from lifecycle.clients import WorkspaceRef
from lifecycle.component import TrainingSpec
from lifecycle.compute import ComputeSpec
from lifecycle.dataset import DatasetSpec
from lifecycle.endpoint import EndpointRef, EndpointSpec, plan_endpoint
from lifecycle.errors import EndpointTaken
from lifecycle.evaluation import EvaluationSpec, exchanges, pick_held_out
from lifecycle.job import JobResult, JobSpec
from lifecycle.model import ModelSpec
from lifecycle.preflight import Plan
from lifecycle.prices import rates
from lifecycle.registration import RegisteredModel
from lifecycle.report import RunReport, current_report, recording
from lifecycle.scoring import Conversation
from lifecycle.signals import with_cleanup
from tasks.auth import authenticate
from tasks.component import get_component
from tasks.compute import check_compute, ensure_compute, list_sizes, put_away_cluster
from tasks.dataset import download_data
from tasks.endpoint import (
    ask_earlier_endpoints_away,
    create_endpoint,
    deploy_model,
    invoke_endpoint,
    keep_endpoint,
    put_away_earlier_endpoints,
    put_away_endpoint,
    route_traffic,
)
from tasks.evaluation import evaluate_replies
from tasks.job import put_away_job, stream_job, submit_job
from tasks.metrics import review_metrics
from tasks.model import select_model
from tasks.preflight import check_plan
from tasks.registration import register_model
from tasks.report import show_report
from tasks.runs import tell_still_billing

BASELINE_DEPLOYMENT = "baseline"


@flow(
    name="finetune-chat-model",
    flow_run_name="finetune {model.name} on {dataset.effective_short_name}",
    on_failure=[tell_failure],
    on_cancellation=[put_away_cancelled],
    on_crashed=[put_away_crashed],
)
def finetune_chat_model(
    model: ModelSpec,
    dataset: DatasetSpec,
    compute: ComputeSpec,
    endpoint: EndpointSpec,
    evaluation: EvaluationSpec = EvaluationSpec(),  # noqa: B008 - frozen
    training: TrainingSpec = TrainingSpec(),  # noqa: B008 - frozen
    job: JobSpec = JobSpec(),  # noqa: B008 - frozen
    workspace: WorkspaceSpec = WorkspaceSpec(),  # noqa: B008 - frozen
) -> dict[str, Any] | State[dict[str, Any]]:
    """Fine-tune a chat model, register it, try it on an endpoint, and delete the endpoint.

    Everything that can be refused is refused before anything is created.

    Args:
        model: The foundation model to fine-tune, from the registry.
        dataset: The conversations to learn from.
        compute: The GPU cluster to train on, made if it is not there.
        endpoint: The endpoint on which the new model is tried, and which is deleted then.
        evaluation: What is asked of the new model on that endpoint.
        training: The pipeline component and its parameters; the model's own recommendations apply.
        job: How long the training job may wait and run.
        workspace: The Azure ML workspace; environment and config.json fill what is not given.

    Returns:
        The run's report as JSON; as the data of a state of type COMPLETED and the name
        StillBilling, where the run succeeded and something could not be seen gone. A state
        CANCELLED where a person interrupted a deployed run.
    """
    with recording(current_report() or RunReport()) as report:
        report.flow_run_id = str(flow_run.id)
        try:
            try:
                _run(
                    report, workspace, model, compute, dataset, training, job, endpoint, evaluation
                )
            finally:
                report.end(sys.exception())
                is_put_away(report.flow_run_id)
                tell_still_billing(report.still_billing)
                show_report(report)
        except KeyboardInterrupt:
            if not report.resumable:
                raise
            # Ctrl-C on who serves the flow: a person has ended it, and it is not started again.
            return Cancelled(message="Interrupted by a person.")
        if report.still_billing:
            names = ", ".join(report.still_billing)
            return Completed(
                name="StillBilling", message=f"May still be billing: {names}", data=report.as_dict()
            )
        return report.as_dict()


def _run(
    report: RunReport,
    workspace: WorkspaceSpec,
    model: ModelSpec,
    compute: ComputeSpec,
    dataset: DatasetSpec,
    training: TrainingSpec,
    job: JobSpec,
    endpoint: EndpointSpec,
    evaluation: EvaluationSpec,
) -> None:
    facts = authenticate(workspace)
    report.workspace = facts.model_dump(mode="json")
    ref, run_id = facts.ref, str(flow_run.id)
    if flow_run.run_count > 1:
        ask_earlier_endpoints_away(ref, run_id)

    # Read-only, nothing spent: side by side.
    selected = select_model.submit(ref, model)
    component = get_component.submit(ref, training)
    sizes = list_sizes.submit(ref)
    cluster = check_compute.submit(ref, compute)
    data = download_data.submit(dataset, ref)
    _together(selected, component, sizes, cluster, data)
    plan = check_plan(
        selected.result(),
        component.result(),
        sizes.result(),
        cluster.result(),
        data.result(),
        compute=compute,
        dataset=dataset,
        training=training,
        endpoint=endpoint,
        evaluation=evaluation,
    )
    asked = pick_held_out(plan.dataset, dataset, evaluation)
    _report_plan(report, plan)

    # From here on Azure is asked to make things: called directly, so that a cancel interrupts the
    # step and no create runs on in a thread after its caller is gone.
    report.spending = True
    ready = ensure_compute(ref, compute, plan.size, run_id)
    report.compute = {
        "name": ready.name,
        "size": ready.size,
        "gpus": ready.gpus_per_node,
        "nodes": ready.nodes,
        "created": ready.created,
        "min_instances": plan.existing_compute.min_instances if plan.existing_compute else 0,
    }
    report.rates = rates(
        size=ready.size,
        nodes=ready.nodes,
        low_priority=ready.tier == "low_priority",
        instance_type=plan.instance_type.name,
        instance_count=endpoint.instance_count,
    )

    def end_training(outcome: BaseException | None) -> None:
        has_ended = put_away_job(ref, report, outcome=outcome)
        if has_ended and compute.delete_after and compute.name is not None:
            put_away_cluster(ref, report, compute.name, outcome=outcome)

    finished = with_cleanup(lambda: _train(report, ref, plan, training, job, run_id), end_training)

    reviewed = review_metrics.submit(facts, finished.name)
    registered = register_model(ref, finished, plan.registered_name)
    report.registered_model = registered.model_dump(mode="json")
    # As JSON, in which a loss that is not a number is text.
    measured = reviewed.result().model_dump(mode="json")
    report.metrics = measured["values"]
    # Without any, the curve stays that the log gave.
    report.metric_history = measured["history"] or report.metric_history

    patience = 60 * (endpoint.create_deadline_minutes + endpoint.deploy_deadline_minutes)
    if flow_run.run_count > 1:
        put_away_earlier_endpoints(ref, report, run_id, operation_seconds=patience)
    # Not before: it expires so many minutes from now.
    planned = plan_endpoint(endpoint, run_id, flow_run.run_count, datetime.now(UTC))
    report.plan_endpoint(planned.name, endpoint.deployment_name)

    def put_away(outcome: BaseException | None) -> None:
        is_ours = not isinstance(outcome, EndpointTaken)
        if is_ours and (outcome is not None or not endpoint.keep):
            put_away_endpoint(ref, report, outcome=outcome, operation_seconds=patience)

    with_cleanup(
        lambda: _try_out(report, ref, plan, asked, endpoint, evaluation, planned, registered),
        put_away,
        last=True,
    )


def _train(
    report: RunReport,
    workspace: WorkspaceRef,
    plan: Plan,
    training: TrainingSpec,
    limits: JobSpec,
    run_id: str,
) -> JobResult:
    submitted = submit_job(workspace, plan, training, run_id)
    report.job = {
        "name": submitted.name,
        "status": submitted.status,
        "attempts": submitted.attempt,
        "display_name": submitted.display_name,
        "studio_url": submitted.studio_url,
    }
    finished = stream_job(workspace, submitted, limits)
    report.job |= {"status": finished.status, "seconds": finished.seconds}
    return finished


def _try_out(
    report: RunReport,
    workspace: WorkspaceRef,
    plan: Plan,
    asked: list[Conversation],
    endpoint: EndpointSpec,
    evaluation: EvaluationSpec,
    planned: EndpointRef,
    registered: RegisteredModel,
) -> None:
    create_endpoint(workspace, endpoint, planned)
    report.endpoint_is_created()
    deployment, timeout = endpoint.deployment_name, endpoint.request_timeout_seconds
    report.deploying(deployment, registered.id)
    deploy_model(workspace, endpoint, planned, registered, deployment)
    route_traffic(workspace, planned, {deployment: 100})
    replies = invoke_endpoint(workspace, planned.name, None, asked, timeout)
    _report_replies(report, asked, replies, None)
    before = None
    if evaluation.baseline:
        foundation = RegisteredModel(
            name=plan.model.name, version=plan.model.version, id=plan.model.id
        )
        report.deploying(BASELINE_DEPLOYMENT, foundation.id)
        deploy_model(workspace, endpoint, planned, foundation, BASELINE_DEPLOYMENT)
        # Said, not left to a default: nobody but us, by its name, is to reach the old model.
        route_traffic(workspace, planned, {deployment: 100, BASELINE_DEPLOYMENT: 0})
        before = invoke_endpoint(workspace, planned.name, BASELINE_DEPLOYMENT, asked, timeout)
        _report_replies(report, asked, replies, before)
    compared = evaluate_replies(asked, replies, before)
    report.evaluation = compared.model_dump(mode="json")
    if endpoint.keep:
        keep_endpoint(workspace, planned)


def _together(*futures: PrefectFuture[Any]) -> None:
    """Wait for all; of several errors the first is raised, with the others as notes."""
    errors: list[BaseException] = []
    for future in futures:
        try:
            future.result()
        except Exception as error:
            errors.append(error)
    if errors:
        for other in errors[1:]:
            errors[0].add_note(f"Also: {other}")
        raise errors[0]


def _report_plan(report: RunReport, plan: Plan) -> None:
    facts = {"name", "version", "id", "description"}
    report.model = plan.model.model_dump(mode="json", include=facts)
    report.dataset = plan.dataset.model_dump(mode="json")
    report.training = {
        "component": plan.component.name,
        "version": plan.component.version,
        "parameters": plan.parameters.values,
    }
    for warning in plan.warnings:
        report.warn(warning)


def _report_replies(
    report: RunReport, asked: list[Conversation], replies: list[str], before: list[str] | None
) -> None:
    report.responses = [
        exchange.model_dump(mode="json") for exchange in exchanges(asked, replies, before)
    ]
