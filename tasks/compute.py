"""Look at the cluster, and make it where there is none."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import compute as lifecycle
from lifecycle.clients import WorkspaceRef
from lifecycle.compute import ComputeResult, ComputeSpec, ComputeState, SizeInfo

from .step import step


@step()
def list_sizes(workspace: WorkspaceRef) -> dict[str, SizeInfo]:
    """List the region's VM sizes, by lower-case name."""
    return lifecycle.list_sizes(workspace)


@step(run_name="check {compute.name}")
def check_compute(workspace: WorkspaceRef, compute: ComputeSpec) -> ComputeState | None:
    """Look the cluster up; None where it would have to be made."""
    return lifecycle.check_compute(workspace, compute)


@step(run_name="ensure {compute.name}")
def ensure_compute(workspace: WorkspaceRef, compute: ComputeSpec, size: SizeInfo) -> ComputeResult:
    """Return the cluster, made if it is not there."""
    ready = lifecycle.ensure_compute(workspace, compute, size)
    get_run_logger().info(
        "%s: %d × %s, %d GPUs each, %s",
        ready.name or "Serverless compute",
        ready.nodes,
        ready.size,
        ready.gpus_per_node,
        "created" if ready.created else "already there",
    )
    return ready
