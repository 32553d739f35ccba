"""What a run may have left in Azure, found by its owner tag, and put away by anybody.

The run itself, Prefect's hooks in the parent process, a retry and a sweep all come here. Each may
be the second to come: whatever is gone already is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import Field

from lifecycle.azure import find, translated
from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.deletion import (
    DELETE_DEADLINE_SECONDS,
    delete_endpoints,
    request_delete,
)
from lifecycle.endpoint import CREATED_TAG, EXPIRES_TAG, KEEP_TAG, OWNER_TAG
from lifecycle.errors import ServiceError, StillBilling
from lifecycle.job import CANCEL_SECONDS, UNSUCCESSFUL, JobRef, cancel_job, find_job
from lifecycle.operation import state_of
from lifecycle.patience import within
from lifecycle.plain import Result
from lifecycle.waiting import SYSTEM_CLOCK, Clock, growing, reporting, wait_until

LOOK_AGAIN_SECONDS = 5.0
# What azure-core may pause while a request is made again.
REQUEST_SECONDS = 30.0
_IDLE = frozenset({"idle", "leaving", "unusable", "preempted"})
# How long the nodes of a job that has just ended may still be said to work for it.
RELEASE_SECONDS = 60.0


class EndpointSummary(Result):
    """An endpoint with a tag of ours, its tags as they are written."""

    name: str = Field(title="Name", description="The endpoint's name.")
    provisioning_state: str = Field(title="State", description="Azure's provisioning state.")
    owner: str | None = Field(title="Owner", description="Id of the flow run that it belongs to.")
    created_at: str | None = Field(title="Created at", description="The tag's text.")
    expires_at: str | None = Field(title="Expires at", description="The tag's text.")
    keep: bool = Field(title="Keep", description="Whether the tag that protects it is there.")

    def is_left(self, owner: str, *, spare_kept: bool) -> bool:
        """Say whether it is of this run, and not one that was kept and is to be spared."""
        return self.owner == owner and not (spare_kept and self.keep)

    def is_after(self, moment: datetime) -> bool:
        """Say whether its tag says that it was made later; False where it says no time."""
        try:
            return datetime.fromisoformat(self.created_at or "") > moment
        except (ValueError, TypeError):  # No date, or one without a time zone.
            return False


def list_ours(ref: WorkspaceRef) -> list[EndpointSummary]:
    """List the workspace's endpoints that bear a tag of ours, also those with only some of them.

    Raises:
        ServiceError: Azure answered with an error, or not at all.
    """
    with translated(f"listing the endpoints of {ref.name}"):
        endpoints = list(ml_client(ref).online_endpoints.list())
    return [
        _summary(str(entity.name), state_of(entity), entity.tags)
        for entity in endpoints
        if entity.tags and {OWNER_TAG, CREATED_TAG, EXPIRES_TAG} & set(entity.tags)
    ]


def put_away_endpoints(
    ref: WorkspaceRef,
    owner: str,
    *,
    born_until: datetime | None = None,
    spare_kept: bool = False,
    window_seconds: float = 0.0,
    operation_seconds: float = DELETE_DEADLINE_SECONDS,
    clock: Clock = SYSTEM_CLOCK,
) -> list[str]:
    """Delete every endpoint of a run, of whichever attempt.

    Args:
        ref: The workspace.
        owner: The flow run's id.
        born_until: When the attempt died that is cleaned up after, by the clock of its host: what
            its tag says was made later is of an attempt that is at work. None: all.
        spare_kept: Whether those stay that bear the tag :data:`~lifecycle.endpoint.KEEP_TAG`, which
            a run sets just before its end: it may have died right after.
        window_seconds: For how long an endpoint may still appear, because its create was sent
            just before its run died.
        operation_seconds: How long an operation in progress may hold a deletion off.
        clock: Whose time passes.

    Returns:
        Their names.

    Raises:
        StillBilling: One of them could not be seen gone, or Azure does not list them.
    """
    end = clock.monotonic() + window_seconds
    gone: list[str] = []
    while True:
        names = [
            one.name
            for one in _patiently_listed(ref, owner, clock)
            if one.is_left(owner, spare_kept=spare_kept)
            and not (born_until is not None and one.is_after(born_until))
        ]
        failed = delete_endpoints(ref, names, operation_seconds=operation_seconds, clock=clock)
        if failed:
            first = next(iter(failed.values()))
            first.resources = [f"onlineEndpoints/{name}" for name in failed]
            raise first
        gone += names
        if clock.monotonic() >= end:
            return gone
        clock.sleep(LOOK_AGAIN_SECONDS)


def ask_endpoints_away(ref: WorkspaceRef, owner: str, *, spare_kept: bool = False) -> list[str]:
    """Ask Azure once to delete every endpoint of a run, and await nothing.

    Args:
        ref: The workspace.
        owner: The flow run's id.
        spare_kept: As in :func:`put_away_endpoints`.

    Returns:
        The names of those that there are, whether or not Azure agreed.

    Raises:
        ServiceError: Azure does not list them.
    """
    names = [one.name for one in list_ours(ref) if one.is_left(owner, spare_kept=spare_kept)]
    for name in names:
        with suppress(StillBilling):
            request_delete(ref, name, deadline_seconds=0)
    return names


def put_away_job(
    ref: WorkspaceRef, owner: str, *, window_seconds: float = 0.0, clock: Clock = SYSTEM_CLOCK
) -> str | None:
    """Cancel the newest job of a run and wait until it has ended.

    Args:
        ref: The workspace.
        owner: The flow run's id.
        window_seconds: For how long a job may still appear, because its submit was sent just
            before its run ended; also beside one that failed or was canceled, since that is when
            a run submits another.
        clock: Whose time passes.

    Returns:
        How it ended; None where the run has no job.

    Raises:
        StillBilling: It could not be seen ended, or Azure could not be asked for it.
        ServiceError: Azure refuses for good.
    """
    newest: JobRef | None = None
    trouble: list[ServiceError] = []
    end = clock.monotonic() + window_seconds

    def is_settled() -> bool | None:
        nonlocal newest
        try:
            newest = find_job(ref, owner)
        except ServiceError as error:
            trouble.append(error)
            if error.permanent:
                raise
            return None
        is_live = newest is not None and newest.status not in UNSUCCESSFUL
        return is_live or clock.monotonic() >= end or None

    look = reporting(
        is_settled, f"looking for the job of the run {owner}", clock, why=lambda: _last(trouble)
    )
    deadline = max(window_seconds, CANCEL_SECONDS)
    every = growing(0.5, LOOK_AGAIN_SECONDS)
    if not wait_until(look, every=every, deadline=deadline, clock=clock):
        raise StillBilling(
            f"Whether the run {owner} has a job is not known: {_last(trouble)}",
            resources=[f"jobs of run {owner}"],
        ) from trouble[-1]
    return None if newest is None else cancel_job(ref, newest.name, clock=clock)


def put_away_cluster(
    ref: WorkspaceRef, name: str, owner: str, *, clock: Clock = SYSTEM_CLOCK
) -> bool:
    """Delete the cluster if this run made it and nobody has a job on it.

    Args:
        ref: The workspace.
        name: The cluster.
        owner: The flow run's id.
        clock: Whose time passes.

    Returns:
        Whether it is gone. One that is left shrinks to no node when its jobs have ended.

    Raises:
        StillBilling: It was to be deleted, and could not be seen gone.
    """
    cluster = _Cluster(ref, name, owner)
    every = growing(0.5, LOOK_AGAIN_SECONDS)
    try:
        if wait_until(cluster.is_idle, every=every, deadline=RELEASE_SECONDS, clock=clock):
            gone = wait_until(
                reporting(cluster.is_gone, f"deleting the cluster {name}", clock, why=cluster.why),
                every=every,
                deadline=DELETE_DEADLINE_SECONDS,
                clock=clock,
            )
            if not gone:
                raise ServiceError(f"It was still there after {DELETE_DEADLINE_SECONDS:.0f} s.")
    except ServiceError as error:
        raise StillBilling(
            f"The cluster {name} could not be deleted: {error.message}",
            resources=[f"computes/{name}"],
            where=name,
        ) from cluster.refusal or error
    return cluster.was_deleted


class _Cluster:
    """Looks at a cluster of the run's own, and has it deleted; what may pass is waited out."""

    def __init__(self, ref: WorkspaceRef, name: str, owner: str) -> None:
        self.was_deleted = False
        self.refusal: ServiceError | None = None
        self._compute: Any = ml_client(ref).compute
        self._name = name
        self._owner = owner

    def is_idle(self) -> bool | None:
        """Say that there is nothing to wait for: it is idle, or gone, or another's."""
        return self._patiently(lambda: self._found() is None or not self._is_busy())

    def is_gone(self) -> bool | None:
        def delete() -> bool:
            found = self._found()
            if found is not None and found.provisioning_state != "Deleting":
                doing = f"deleting the cluster {self._name}"
                # The cluster is looked at: what the SDK begins to poll needs no poller.
                with within(REQUEST_SECONDS), translated(doing, where=self._name):
                    self._compute.begin_delete(self._name)
                self.was_deleted = True
            return found is None

        return self._patiently(delete)

    def why(self) -> str:
        """Say what Azure refused last."""
        return self.refusal.message if self.refusal else ""

    def _found(self) -> Any | None:
        """Return the cluster if it is there and the run's."""
        found = find(
            f"reading the cluster {self._name}",
            self._name,
            lambda: self._compute.get(self._name),
        )
        return found if found and (found.tags or {}).get(OWNER_TAG) == self._owner else None

    def _is_busy(self) -> bool:
        with translated(f"listing the nodes of {self._name}", where=self._name):
            # The SDK takes over the wire's spelling beside its own.
            nodes = [vars(node) for node in self._compute.list_nodes(self._name)]
        return any(not _is_idle(node) for node in nodes)

    def _patiently(self, look: Callable[[], bool]) -> bool | None:
        try:
            return look() or None
        except ServiceError as error:
            if error.permanent:
                raise
            self.refusal = error
            return None


def _is_idle(node: Mapping[str, Any]) -> bool:
    """Say whether Azure says of a node that it works for no job; else it may for somebody's."""
    said = node.get("nodeState") or node.get("node_state") or ""
    state = str(getattr(said, "value", said)).lower()
    return not (node.get("runId") or node.get("run_id")) and state in _IDLE


def _patiently_listed(ref: WorkspaceRef, owner: str, clock: Clock) -> list[EndpointSummary]:
    """List our endpoints; an error is waited out, and names the run where it stays."""
    trouble: list[ServiceError] = []

    def look_once() -> list[EndpointSummary] | None:
        try:
            found = list_ours(ref)
        except ServiceError as error:
            trouble.append(error)
            # Nothing is waited for that only a person can change.
            return [] if error.permanent else None
        trouble.clear()
        return found

    look = reporting(
        look_once,
        f"listing the endpoints of the run {owner}",
        clock,
        why=lambda: _last(trouble),
    )
    listed = wait_until(
        look, every=growing(0.5, LOOK_AGAIN_SECONDS), deadline=DELETE_DEADLINE_SECONDS, clock=clock
    )
    if listed is None or trouble:
        raise StillBilling(
            f"The endpoints of the run {owner} cannot be listed: {_last(trouble)}",
            resources=[f"onlineEndpoints of run {owner}"],
        ) from trouble[-1]
    return listed


def _last(trouble: list[ServiceError]) -> str:
    return trouble[-1].message if trouble else ""


def _summary(name: str, state: str, tags: Mapping[str, str]) -> EndpointSummary:
    return EndpointSummary(
        name=name,
        provisioning_state=state,
        owner=tags.get(OWNER_TAG),
        created_at=tags.get(CREATED_TAG),
        expires_at=tags.get(EXPIRES_TAG),
        keep=KEEP_TAG in tags,
    )
