"""What has outlived its purpose: found by its tags, deleted or canceled when asked to.

It needs no memory and no Prefect, though it knows more where Prefect tells it of the runs. What
bears no tag of ours it does not touch, and what it cannot read for certain it leaves and names.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from pydantic import Field

from lifecycle.clients import WorkspaceRef
from lifecycle.deletion import delete_endpoints
from lifecycle.endpoint import CREATED_TAG, EXPIRES_TAG, OWNER_TAG
from lifecycle.errors import FinetuneError, ServiceError
from lifecycle.job import cancel_job
from lifecycle.leftovers import EndpointSummary, list_ours
from lifecycle.orphans import ClusterFinding, JobFinding, find_idle_clusters, find_jobs
from lifecycle.owners import GRACE, OwnerOf, is_over, nobody_knows
from lifecycle.plain import Result
from lifecycle.waiting import SYSTEM_CLOCK, Clock

# However early an endpoint says that it expires, a new one is given its time.
MINIMUM_AGE = timedelta(minutes=5)

T = TypeVar("T")


class Finding(Result):
    """One endpoint of ours, and what a sweep makes of it."""

    name: str = Field(title="Name", description="The endpoint's name.")
    owner: str | None = Field(title="Owner", description="Id of the flow run that it belongs to.")
    created_at: str | None = Field(title="Created at", description="As its tag says.")
    expires_at: str | None = Field(title="Expires at", description="As its tag says.")
    verdict: Literal["delete", "leave"] = Field(
        title="Verdict", description="What a sweep that applies does with it."
    )
    reason: str = Field(title="Reason", description="Why, in a few words.")


class Failure(Result):
    """One thing that should be gone and may not be."""

    name: str = Field(title="Name", description="The endpoint's name, or the job's.")
    error: str = Field(title="Error", description="What Azure said last.")


class SweepResult(Result):
    """What a sweep found, and what is left."""

    swept_at: datetime = Field(title="Swept at", description="When, UTC.")
    applied: bool = Field(title="Applied", description="False for a dry run.")
    found: list[Finding] = Field(title="Found", description="Every endpoint of ours.")
    deleted: list[str] = Field(title="Deleted", description="Endpoints seen gone.")
    left: list[str] = Field(title="Left", description="Endpoints still there, or not seen gone.")
    jobs: list[JobFinding] = Field(title="Jobs", description="Every live job of ours.")
    canceled: list[str] = Field(title="Canceled", description="Jobs seen ended.")
    clusters: list[ClusterFinding] = Field(
        title="Clusters", description="Clusters of the workspace with nodes and no job on them."
    )
    failed: list[Failure] = Field(
        title="Failed", description="What should have been deleted or canceled, and was not."
    )
    jobs_known: bool = Field(
        title="Jobs known", description="Whether Azure listed the jobs: else some may be left."
    )
    unread: list[str] = Field(
        title="Unread", description="What Azure did not list, and why; endpoints are not among it."
    )

    def overdue(self) -> list[str]:
        """Return what should be gone and is left, by name: also what a dry run did not touch."""
        endpoints = {finding.name for finding in self.found if finding.verdict == "delete"}
        jobs = {finding.name for finding in self.jobs if finding.verdict == "cancel"}
        return [
            *(_endpoint(name) for name in sorted(endpoints - set(self.deleted))),
            *(_job(name) for name in sorted(jobs - set(self.canceled))),
        ]


def sweep(
    ref: WorkspaceRef,
    apply: bool,
    now: datetime,
    *,
    owner_of: OwnerOf = nobody_knows,
    grace: timedelta = GRACE,
    clock: Clock = SYSTEM_CLOCK,
    pending: set[str] | None = None,
) -> SweepResult:
    """Delete the endpoints, and cancel the jobs, that have outlived their run; or say which.

    What cannot be deleted does not keep the rest from it; the endpoints together are given
    :data:`~lifecycle.deletion.DELETE_DEADLINE_SECONDS`.

    Args:
        ref: The workspace.
        apply: Whether to act; without it nothing is changed.
        now: Aware of its time zone.
        owner_of: What is known of the runs.
        grace: How long ago a run must have ended, and fallen silent.
        clock: Whose time passes.
        pending: Holds at every moment what is to be deleted or canceled, or was asked to be, and
            was not seen gone; for who is interrupted meanwhile.

    Raises:
        ServiceError: Azure does not list the endpoints.
    """
    pending = set() if pending is None else pending
    unlisted: ServiceError | None = None
    endpoints: list[EndpointSummary] = []
    try:
        endpoints = list_ours(ref)
    except ServiceError as error:
        unlisted = error  # Raised when the jobs have been looked at: they bill as well.
    found = [judge(endpoint, now, owner_of, grace) for endpoint in endpoints]
    due = [finding.name for finding in found if finding.verdict == "delete"] if apply else []
    pending.update(_endpoint(name) for name in due)
    undeleted = delete_endpoints(
        ref, due, clock=clock, seen_gone=lambda name: pending.discard(_endpoint(name))
    )
    failed = {name: error.message for name, error in undeleted.items()}
    deleted = [name for name in due if name not in failed]

    unread: list[str] = []
    jobs = _listed(lambda: find_jobs(ref, now, owner_of, grace), unread)
    jobs_known = not unread
    clusters = _listed(lambda: find_idle_clusters(ref), unread)
    canceled = []
    to_cancel = [job.name for job in jobs if job.verdict == "cancel"] if apply else []
    pending.update(_job(name) for name in to_cancel)
    for name in to_cancel:
        try:
            cancel_job(ref, name, clock=clock)
            canceled.append(name)
            pending.discard(_job(name))
        except FinetuneError as error:
            failed[name] = error.message
    if unlisted is not None:
        for name in canceled:
            unlisted.add_note(f"The job {name} was canceled all the same.")
        raise unlisted
    return SweepResult(
        swept_at=now,
        applied=apply,
        found=found,
        deleted=deleted,
        left=[finding.name for finding in found if finding.name not in deleted],
        jobs=jobs,
        canceled=canceled,
        clusters=clusters,
        failed=[Failure(name=name, error=error) for name, error in failed.items()],
        jobs_known=jobs_known,
        unread=unread,
    )


def judge(
    endpoint: EndpointSummary,
    now: datetime,
    owner_of: OwnerOf = nobody_knows,
    grace: timedelta = GRACE,
) -> Finding:
    """Say what a sweep does with one endpoint, from its tags and what is known of its run."""
    verdict, reason = _verdict(endpoint, now, owner_of, grace)
    return Finding(
        name=endpoint.name,
        owner=endpoint.owner,
        created_at=endpoint.created_at,
        expires_at=endpoint.expires_at,
        verdict=verdict,
        reason=reason,
    )


def _endpoint(name: str) -> str:
    return f"onlineEndpoints/{name}"


def _job(name: str) -> str:
    return f"jobs/{name}"


def _listed(find: Callable[[], list[T]], unread: list[str]) -> list[T]:
    try:
        return find()
    except ServiceError as error:
        unread.append(error.message)
        return []


def _verdict(
    endpoint: EndpointSummary, now: datetime, owner_of: OwnerOf, grace: timedelta
) -> tuple[Literal["delete", "leave"], str]:
    if endpoint.keep:
        return "leave", "it is kept on purpose"
    created, expires = _moment(endpoint.created_at), _moment(endpoint.expires_at)
    if not endpoint.owner:
        return "leave", f"its tag {OWNER_TAG} is missing: delete it by hand if it is not wanted"
    if created is None:
        return "leave", f"its tag {CREATED_TAG} is missing or no date with a time zone"
    if expires is None:
        return "leave", f"its tag {EXPIRES_TAG} is missing or no date with a time zone"
    if now < created + MINIMUM_AGE:
        return "leave", f"it is younger than {_minutes(MINIMUM_AGE)}"
    if now >= expires:
        return "delete", f"it expired {_minutes(now - expires)} ago"
    owner = owner_of(endpoint.owner)
    if owner is not None and owner.ended_at is not None and is_over(owner, now, grace):
        return "delete", f"its run is {owner.state} since {_minutes(now - owner.ended_at)}"
    return "leave", f"it expires in {_minutes(expires - now)}"


def _moment(text: str | None) -> datetime | None:
    """Read a tag's date; one without a time zone could mean any of 24 hours, and is none."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} minutes"
