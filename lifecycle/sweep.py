"""Endpoints that have outlived their purpose: found by their tags, deleted when asked to.

It needs no memory and no Prefect. What bears no tag of ours does not exist for it, and what it
cannot read for certain it leaves alone and names.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from lifecycle.clients import WorkspaceRef
from lifecycle.deletion import delete_endpoints
from lifecycle.endpoint import CREATED_TAG, EXPIRES_TAG, OWNER_TAG
from lifecycle.leftovers import EndpointSummary, list_ours
from lifecycle.plain import Result
from lifecycle.waiting import SYSTEM_CLOCK, Clock

# However early an endpoint says that it expires, a wrong clock must not delete a new one.
MINIMUM_AGE = timedelta(minutes=5)


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
    """One endpoint that should be gone and may not be."""

    name: str = Field(title="Name", description="The endpoint's name.")
    error: str = Field(title="Error", description="What Azure said last.")


class SweepResult(Result):
    """What a sweep found, and what is left."""

    swept_at: datetime = Field(title="Swept at", description="When, UTC.")
    applied: bool = Field(title="Applied", description="False for a dry run.")
    found: list[Finding] = Field(title="Found", description="Every endpoint of ours.")
    deleted: list[str] = Field(title="Deleted", description="Seen gone.")
    left: list[str] = Field(title="Left", description="Still there, or not seen gone.")
    failed: list[Failure] = Field(
        title="Failed", description="Those of the left that should have been deleted."
    )


def plan_sweep(ref: WorkspaceRef, now: datetime) -> list[Finding]:
    """Look at every endpoint of ours and say what a sweep would do; nothing is changed.

    Args:
        ref: The workspace.
        now: Aware of its time zone.

    Raises:
        ServiceError: Azure does not list the endpoints.
    """
    return [judge(endpoint, now) for endpoint in list_ours(ref)]


def sweep(
    ref: WorkspaceRef, apply: bool, now: datetime, *, clock: Clock = SYSTEM_CLOCK
) -> SweepResult:
    """Delete the endpoints of ours that have expired; without ``apply``, only say which.

    One that cannot be deleted does not keep the others from being deleted; all of them together
    are given :data:`~lifecycle.deletion.DELETE_DEADLINE_SECONDS`.

    Raises:
        ServiceError: Azure does not list the endpoints.
    """
    found = plan_sweep(ref, now)
    due = [finding.name for finding in found if finding.verdict == "delete"] if apply else []
    failed = delete_endpoints(ref, due, clock=clock)
    deleted = [name for name in due if name not in failed]
    return SweepResult(
        swept_at=now,
        applied=apply,
        found=found,
        deleted=deleted,
        left=[finding.name for finding in found if finding.name not in deleted],
        failed=[Failure(name=name, error=error.message) for name, error in failed.items()],
    )


def judge(endpoint: EndpointSummary, now: datetime) -> Finding:
    """Say what a sweep does with one endpoint, from its tags alone."""
    verdict, reason = _verdict(endpoint, now)
    return Finding(
        name=endpoint.name,
        owner=endpoint.owner,
        created_at=endpoint.created_at,
        expires_at=endpoint.expires_at,
        verdict=verdict,
        reason=reason,
    )


def _verdict(endpoint: EndpointSummary, now: datetime) -> tuple[Literal["delete", "leave"], str]:
    if endpoint.keep:
        return "leave", "it is kept on purpose"
    created, expires = _moment(endpoint.created_at), _moment(endpoint.expires_at)
    if not endpoint.owner:
        return "leave", f"its tag {OWNER_TAG} is missing: delete it by hand if it is not wanted"
    if created is None:
        return "leave", f"its tag {CREATED_TAG} is missing or no date with a time zone"
    if expires is None:
        return "leave", f"its tag {EXPIRES_TAG} is missing or no date with a time zone"
    if now < expires:
        return "leave", f"it expires in {_minutes(expires - now)}"
    if now < created + MINIMUM_AGE:
        return "leave", f"it is younger than {_minutes(MINIMUM_AGE)}"
    return "delete", f"it expired {_minutes(now - expires)} ago"


def _moment(text: str | None) -> datetime | None:
    """Read a tag's date; one without a time zone could mean any of 24 hours, and is none."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} minutes"
