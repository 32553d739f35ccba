"""Look at the cluster, and make it where there is none."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import compute as lifecycle
from lifecycle import leftovers
from lifecycle.clients import WorkspaceRef
from lifecycle.compute import ComputeResult, ComputeSpec, ComputeState, SizeInfo
from lifecycle.errors import StillBilling
from lifecycle.report import RunReport

from .step import step


@step()
def list_sizes(workspace: WorkspaceRef) -> dict[str, SizeInfo]:
    """List the region's VM sizes, by lower-case name."""
    return lifecycle.list_sizes(workspace)


@step(run_name="look at {compute.label}")
def check_compute(workspace: WorkspaceRef, compute: ComputeSpec) -> ComputeState | None:
    """Look the cluster up; None where it would have to be made."""
    return lifecycle.check_compute(workspace, compute)


@step(run_name="make {compute.label} ready")
def ensure_compute(
    workspace: WorkspaceRef, compute: ComputeSpec, size: SizeInfo, flow_run_id: str
) -> ComputeResult:
    """Return the cluster, made if it is not there."""
    ready = lifecycle.ensure_compute(workspace, compute, size, owner=flow_run_id)
    get_run_logger().info(
        "%s: %d × %s, %d GPUs each, %s",
        ready.name or "Serverless compute",
        ready.nodes,
        ready.size,
        ready.gpus_per_node,
        "created" if ready.created else "already there",
    )
    return ready


def put_away_cluster(
    workspace: WorkspaceRef, report: RunReport, name: str, *, outcome: BaseException | None
) -> None:
    """Delete, when the job has ended, the cluster that the run made; another's is left alone.

    Args:
        workspace: The workspace.
        report: The run; the cluster is named in ``still_billing`` where it cannot be seen gone.
        name: The cluster.
        outcome: The exception in flight, or None.
    """
    assert report.flow_run_id is not None
    logger = get_run_logger()
    try:
        if leftovers.put_away_cluster(workspace, name, report.flow_run_id):
            logger.info("Cluster %s is deleted", name)
        else:
            logger.info("Cluster %s is left: this run did not make it, or others use it", name)
    except StillBilling as problem:
        logger.error("%s", problem)
        report.may_bill(f"computes/{name}")
        report.add_trouble(problem, outcome)
