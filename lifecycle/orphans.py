"""What runs left besides endpoints: jobs that nobody comes back for, and nodes without a job."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lifecycle.azure import translated
from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.job import JOB_LIFE, OWNER_TAG, status_of
from lifecycle.logs import ENDED
from lifecycle.owners import GRACE, Owner, OwnerOf, is_over
from lifecycle.plain import Result

if TYPE_CHECKING:
    from azure.ai.ml.entities import AmlCompute, Job

# In these a run does not come back for its job; from CRASHED it may, for a while.
_FINAL = frozenset({"CANCELLED", "FAILED", "COMPLETED"})
# What a job's own run would let it run for, by default: none is left without a bound.
COMES_BACK = timedelta(days=1)


class JobFinding(Result):
    """One live job of ours, and what a sweep makes of it."""

    name: str = Field(title="Job", description="Its name in Azure.")
    owner: str = Field(title="Owner", description="Id of the flow run that it belongs to.")
    status: str = Field(title="Status", description="As Azure says it.")
    verdict: Literal["cancel", "leave"] = Field(
        title="Verdict", description="What a sweep that applies does with it."
    )
    reason: str = Field(title="Reason", description="Why, in a few words.")


class ClusterFinding(Result):
    """One cluster with nodes that are up, none of which has a job. A sweep never touches it."""

    name: str = Field(title="Cluster", description="Its name.")
    size: str = Field(title="VM size", description="Size of a node.")
    nodes: int = Field(title="Nodes", description="How many are up, and billed.", ge=1)
    reason: str = Field(title="Reason", description="Why they are up, and for how long.")


def find_jobs(
    ref: WorkspaceRef, now: datetime, owner_of: OwnerOf, grace: timedelta = GRACE
) -> list[JobFinding]:
    """Return the live jobs with a tag of ours.

    Args:
        ref: The workspace.
        now: Aware of its time zone.
        owner_of: What is known of the runs.
        grace: How long ago a run must have ended.

    Raises:
        ServiceError: Azure does not list them.
    """
    findings = []
    for job in _live_jobs(ref, now):
        owner_id = (job.tags or {}).get(OWNER_TAG, "")
        verdict, reason = _verdict(owner_of(owner_id), now, grace)
        findings.append(
            JobFinding(
                name=str(job.name),
                owner=owner_id,
                status=status_of(job),
                verdict=verdict,
                reason=reason,
            )
        )
    return findings


def find_idle_clusters(ref: WorkspaceRef) -> list[ClusterFinding]:
    """Return the clusters of the workspace, of whomever, with nodes up and no job on any of them.

    Raises:
        ServiceError: Azure does not list them.
    """
    with translated("listing the clusters"):
        clusters: list[Any] = list(ml_client(ref).compute.list(compute_type="amlcompute"))
    found = [_idle(ref, cluster) for cluster in clusters]
    return [finding for finding in found if finding is not None]


def _live_jobs(ref: WorkspaceRef, now: datetime) -> Iterator[Job]:
    with translated("listing the jobs"):
        # In whatever order Azure lists them.
        for job in ml_client(ref).jobs.list(tag=OWNER_TAG):
            if job is None:  # The SDK could not read it.
                continue
            born = job.creation_context.created_at if job.creation_context else None
            # None lives for longer than Azure lets it.
            is_too_old = isinstance(born, datetime) and now - born > JOB_LIFE
            if status_of(job) not in ENDED and not is_too_old:
                yield job


def _verdict(
    owner: Owner | None, now: datetime, grace: timedelta
) -> tuple[Literal["cancel", "leave"], str]:
    if owner is None:
        return "leave", "nothing is known here of its run"
    if owner.ended_at is None:
        return "leave", f"its run is {owner.state}"
    since = f"its run is {owner.state} since {_minutes(now - owner.ended_at)}"
    if owner.state not in _FINAL and not is_over(owner, now, COMES_BACK):
        return "leave", f"{since}, and may come back for it"
    if not is_over(owner, now, grace):
        return "leave", f"{since} only"
    return "cancel", since


def _idle(ref: WorkspaceRef, cluster: AmlCompute) -> ClusterFinding | None:
    with translated(f"listing the nodes of {cluster.name}", where=cluster.name):
        # The SDK takes over the wire's spelling beside its own.
        nodes = [vars(node) for node in ml_client(ref).compute.list_nodes(str(cluster.name))]
    if not nodes or any(node.get("runId") or node.get("run_id") for node in nodes):
        return None
    kept = int(cluster.min_instances or 0)
    if kept:
        reason = f"min_instances keeps {kept} up"
    else:
        reason = f"each goes after {cluster.idle_time_before_scale_down or 120:g} s without a job"
    return ClusterFinding(
        name=str(cluster.name), size=str(cluster.size), nodes=len(nodes), reason=reason
    )


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} minutes"
