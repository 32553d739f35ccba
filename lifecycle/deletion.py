"""An endpoint deleted for certain: asked for first, confirmed after, and named where it is not.

A delete that Azure accepted can still fail (under a lock, or behind a running operation), and one
that was refused can be granted a minute later. So the last word is always a GET that says 404.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import Field

from lifecycle.azure import find, translated
from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.errors import ServiceError, StillBilling
from lifecycle.operation import state_of
from lifecycle.patience import within
from lifecycle.plain import Result
from lifecycle.waiting import SYSTEM_CLOCK, Clock, growing, reporting, wait_until

if TYPE_CHECKING:
    from azure.ai.ml.entities import OnlineEndpoint

# How long a create that was sent and not seen to its end may still take effect.
UNANSWERED_WINDOW_SECONDS = 60.0
DELETE_DEADLINE_SECONDS = 600.0

# However long Azure asks to wait, while something is billed it is asked again after so long.
_LONGEST_PAUSE_SECONDS = 30.0

logger = logging.getLogger(__name__)


class DeletedAt(Result):
    """An endpoint that is gone, as a GET confirmed."""

    name: str = Field(title="Name", description="The endpoint's name.")
    deleted_at: datetime = Field(title="Deleted at", description="When a GET said 404, UTC.")


def delete_endpoint(
    ref: WorkspaceRef,
    name: str,
    *,
    create_unanswered: bool = False,
    deadline_seconds: float = DELETE_DEADLINE_SECONDS,
    clock: Clock = SYSTEM_CLOCK,
) -> DeletedAt:
    """Delete the endpoint, with all its deployments, and see it gone. Repeat it as you like.

    Args:
        ref: The workspace.
        name: The endpoint; one that is not there is deleted already.
        create_unanswered: Its create was sent, and neither refused nor seen to its end: a 404 is
            believed only after :data:`UNANSWERED_WINDOW_SECONDS`.
        deadline_seconds: For all of it.
        clock: Whose time passes.

    Raises:
        StillBilling: It could not be seen gone; it is named in ``resources``.
    """
    end = clock.monotonic() + deadline_seconds
    was_there = request_delete(ref, name, deadline_seconds=deadline_seconds, clock=clock)
    return confirm_deleted(
        ref,
        name,
        create_unanswered=create_unanswered and not was_there,
        deadline_seconds=max(end - clock.monotonic(), 0.0),
        clock=clock,
    )


def delete_endpoints(
    ref: WorkspaceRef,
    names: Iterable[str],
    *,
    deadline_seconds: float = DELETE_DEADLINE_SECONDS,
    operation_seconds: float = 0.0,
    clock: Clock = SYSTEM_CLOCK,
    seen_gone: Callable[[str], None] = lambda name: None,
) -> dict[str, StillBilling]:
    """Delete endpoints side by side, and return the error of each that was not seen gone.

    One that cannot be deleted does not keep the others from it. Args are those of
    :func:`request_delete`, for all of them together; *seen_gone* is called with each name when it
    is.
    """
    names = list(names)
    began = clock.monotonic()
    failed: dict[str, StillBilling] = {}

    def left(seconds: float) -> float:
        return max(began + seconds - clock.monotonic(), 0.0)

    # Ask once for all of them first: each takes Azure half a minute, and they go side by side.
    for name in names:
        try:
            request_delete(ref, name, deadline_seconds=0, clock=clock)
        except StillBilling as error:
            failed[name] = error
    for name in names:
        try:
            if name in failed:
                request_delete(
                    ref,
                    name,
                    deadline_seconds=left(deadline_seconds),
                    operation_seconds=left(operation_seconds),
                    clock=clock,
                )
                del failed[name]
            longest = max(deadline_seconds, operation_seconds)
            confirm_deleted(ref, name, deadline_seconds=left(longest), clock=clock)
            seen_gone(name)
        except StillBilling as error:
            failed[name] = error
    return failed


def request_delete(
    ref: WorkspaceRef,
    name: str,
    *,
    deadline_seconds: float = DELETE_DEADLINE_SECONDS,
    operation_seconds: float = 0.0,
    clock: Clock = SYSTEM_CLOCK,
) -> bool:
    """Ask Azure to delete the endpoint, and return as soon as it has agreed or there is none.

    Whatever may pass is waited out, a refusal for want of a right among it; what Azure will say
    until a person changes something, as under a lock, is not.

    Args:
        ref: The workspace.
        name: The endpoint.
        deadline_seconds: How long Azure may take to agree.
        operation_seconds: How long, where that is more, an operation in progress, such as a
            deployment, may hold the deletion off.
        clock: Whose time passes.

    Returns:
        Whether Azure refused at first since it was at work on it: the create, answered or not,
        has then taken effect.

    Raises:
        StillBilling: Azure did not agree within the deadline, or refuses for good.
    """
    refusals: list[ServiceError] = []
    began = clock.monotonic()
    patience = deadline_seconds

    def ask() -> bool | None:
        return _ask_to_delete(ref, name, refusals, clock, began + patience) or None

    def why() -> str:
        return refusals[-1].message

    look = reporting(ask, f"asking Azure to delete the endpoint {name}", clock, why=why)
    for pause in growing(0.5, 5.0):
        if look():
            break
        if _is_busy(refusals[-1]) and operation_seconds > patience:
            patience = operation_seconds
            logger.warning(
                "Azure cannot delete the endpoint %s while it is at work on it; it is asked again "
                "for up to %.0f min. %s",
                name,
                patience / 60,
                why(),
            )
        waited = clock.monotonic() - began
        if waited >= patience:
            raise _still_billing(
                name, f"Azure did not agree to delete it in {waited:.0f} seconds.", refusals
            )
        asked = min(refusals[-1].retry_after or 0.0, _LONGEST_PAUSE_SECONDS)
        clock.sleep(min(max(pause, asked), patience - waited))
    return any(refusal.status == 409 for refusal in refusals)


def confirm_deleted(
    ref: WorkspaceRef,
    name: str,
    *,
    create_unanswered: bool = False,
    deadline_seconds: float = DELETE_DEADLINE_SECONDS,
    clock: Clock = SYSTEM_CLOCK,
) -> DeletedAt:
    """Wait until a GET says that the endpoint is gone; ask again where its delete has failed.

    Once it was seen there, the next 404 is believed. Args and errors are those of
    :func:`delete_endpoint`.
    """
    refusals: list[ServiceError] = []
    window = UNANSWERED_WINDOW_SECONDS if create_unanswered else 0.0
    end = clock.monotonic() + deadline_seconds
    believed_from = clock.monotonic() + window
    seen = ""

    def gone() -> bool | None:
        nonlocal seen, believed_from
        try:
            with within(max(end - clock.monotonic(), 0.0), clock):
                found = find_endpoint(ref, name)
        except ServiceError as error:
            refusals.append(error)
            return None
        if found is None:
            seen = "Its create was not seen to its end, and may still take effect"
            return clock.monotonic() >= believed_from or None
        seen = f"It was {state_of(found)}"
        believed_from = clock.monotonic()
        if state_of(found) != "Deleting":
            _ask_to_delete(ref, name, refusals, clock, end)
        return None

    def why() -> str:
        return refusals[-1].message if refusals else seen

    look = reporting(gone, f"deleting the endpoint {name}", clock, why=why)
    if not wait_until(look, every=growing(0.25, 5.0), deadline=deadline_seconds, clock=clock):
        seen = seen or "Azure did not say"
        raise _still_billing(name, f"{seen} after {deadline_seconds:.0f} seconds.", refusals)
    logger.info("Endpoint %s is deleted.", name)
    return DeletedAt(name=name, deleted_at=clock.now())


def find_endpoint(ref: WorkspaceRef, name: str) -> OnlineEndpoint | None:
    """Return the endpoint as the SDK shows it, or None where there is none."""
    return find(
        f"reading the endpoint {name}", name, lambda: ml_client(ref).online_endpoints.get(name)
    )


def _ask_to_delete(
    ref: WorkspaceRef, name: str, refusals: list[ServiceError], clock: Clock, end: float
) -> bool:
    """Send the DELETE and say whether Azure agreed; remember why where it did not.

    Raises:
        StillBilling: It will not, whenever it is asked.
    """
    try:
        with (
            # The resource is looked at, so that what the SDK begins to poll needs no poller.
            within(max(end - clock.monotonic(), 0.0), clock),
            translated(f"deleting the endpoint {name}", where=name),
        ):
            ml_client(ref).online_endpoints.begin_delete(name)
    except ServiceError as error:
        if error.gone:
            return True
        refusals.append(error)
        if error.permanent:
            raise _still_billing(name, "Azure refuses to delete it.", refusals) from error
        return False
    return True


def _is_busy(refusal: ServiceError) -> bool:
    """Say whether Azure refused because it is at work on the endpoint."""
    return refusal.status == 409 and refusal.transient


def _still_billing(name: str, problem: str, refusals: list[ServiceError]) -> StillBilling:
    last = refusals[-1] if refusals else None
    remedy, said = StillBilling.default_remedy, f" {last.message}" if last else ""
    error = StillBilling(
        f"The endpoint {name} may still be billed. {problem}{said}",
        resources=[f"onlineEndpoints/{name}"],
        where=name,
        remedy=f"{last.remedy} Then: {remedy}" if last and last.permanent else remedy,
    )
    error.__cause__ = last
    return error
