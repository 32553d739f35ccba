"""Refuse what can be refused before anything is spent."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import preflight
from lifecycle.component import ComponentResult, TrainingSpec
from lifecycle.compute import ComputeSpec, ComputeState, SizeInfo
from lifecycle.dataset import DatasetResult, DatasetSpec
from lifecycle.endpoint import EndpointSpec
from lifecycle.evaluation import EvaluationSpec
from lifecycle.model import ModelResult
from lifecycle.preflight import Plan

from .step import step


@step()
def check_plan(
    model: ModelResult,
    component: ComponentResult,
    sizes: dict[str, SizeInfo],
    cluster: ComputeState | None,
    data: DatasetResult,
    *,
    compute: ComputeSpec,
    dataset: DatasetSpec,
    training: TrainingSpec,
    endpoint: EndpointSpec,
    evaluation: EvaluationSpec,
) -> Plan:
    """Check what was found against what is asked for; nothing is read, nothing is made."""
    plan = preflight.check(
        model,
        component,
        sizes,
        cluster,
        data,
        compute=compute,
        dataset=dataset,
        training=training,
        endpoint=endpoint,
        evaluation=evaluation,
    )
    logger = get_run_logger()
    for warning in plan.warnings:
        logger.warning("%s", warning)
    logger.info("Nothing stands in the way of %s", plan.display_name)
    return plan
