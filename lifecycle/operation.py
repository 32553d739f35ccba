"""One long-running change of an endpoint or deployment, seen through to its end.

The SDK's pollers have no deadline, and give up where one poll fails. Here the deadline is ours,
and after anything that leaves the outcome open the resource itself is asked: its state decides,
not the request that was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lifecycle.azure import UNSEEN_SECONDS, translated
from lifecycle.errors import EndpointError, EndpointUnseen, ServiceError
from lifecycle.waiting import Clock, growing, reporting, wait_until

if TYPE_CHECKING:
    from azure.core.polling import LROPoller

_SETTLED = frozenset({"Succeeded", "Failed", "Canceled", "Deleting"})


class Change(NamedTuple):
    """What is to be changed, and how to see whether it was.

    Args:
        doing: To follow "while": ``creating the endpoint ultrachat-…``.
        where: The resource's name.
        begin: Sends the request and returns the SDK's poller; None where the change is already
            under way or made, and only its end is awaited.
        look: Returns the SDK's entity, or None where there is no such resource.
        as_wanted: Whether the entity is what the change would have made it.
    """

    doing: str
    where: str
    begin: Callable[[], LROPoller[Any]] | None
    look: Callable[[], Any | None]
    as_wanted: Callable[[Any], bool]


def carry_out(change: Change, *, deadline_seconds: float, clock: Clock) -> Any:
    """Make the change, wait for its end, and return the entity, which is ``Succeeded``.

    Raises:
        EndpointUnseen: Azure agreed to it, and did not find it for
            :data:`~lifecycle.azure.UNSEEN_SECONDS`.
        EndpointError: Azure refused it, the operation failed, or the deadline passed.
        ServiceError: Azure did not answer, and the resource does not show the change;
            ``transient``, since the change may be asked for again.
    """
    end = clock.monotonic() + deadline_seconds
    trouble: ServiceError | None = None
    if change.begin is not None:
        poller = None
        try:
            with translated(change.doing, where=change.where):
                poller = change.begin()
                entity = _result(poller, change.doing, deadline_seconds, clock)
            # Right after its operation succeeded, a resource may still say "Updating".
            if state_of(entity) == "Succeeded":
                return entity
        except ServiceError as error:
            if error.transient:
                trouble = error
            # Right after it, a resource may also not be found yet.
            elif poller is None or error.status != 404:
                raise EndpointError(
                    error.message, where=change.where, remedy=error.remedy
                ) from error
    return _settled(change, trouble, end - clock.monotonic(), deadline_seconds, clock)


def state_of(entity: Any | None) -> str:
    """Return the entity's provisioning state as text (the SDK has an enum), or ``Unknown``."""
    state = getattr(entity, "provisioning_state", None)
    return str(getattr(state, "value", state) or "Unknown")


def _result(
    poller: LROPoller[Any], doing: str, deadline_seconds: float, clock: Clock
) -> Any | None:
    """Return the operation's result, or None where the deadline passed; the poller polls."""
    done = wait_until(
        reporting(lambda: poller.done() or None, doing, clock),
        every=growing(0.02, 0.5),
        deadline=deadline_seconds,
        clock=clock,
    )
    return poller.result() if done else None


def _settled(
    change: Change,
    trouble: ServiceError | None,
    seconds_left: float,
    deadline_seconds: float,
    clock: Clock,
) -> Any:
    unseen_until = clock.monotonic() + UNSEEN_SECONDS
    was_seen = False

    def look() -> Any | None:
        nonlocal unseen_until, was_seen
        try:
            entity = change.look()
        except ServiceError as error:
            if error.transient:
                return None
            raise
        if entity is None:
            if trouble is not None:
                raise trouble
            if clock.monotonic() >= unseen_until:
                raise EndpointUnseen(
                    f"Azure agreed to it, and {UNSEEN_SECONDS:.0f} seconds later there is no such "
                    f"resource: {change.doing}.",
                    where=change.where,
                )
            return None
        unseen_until, was_seen = clock.monotonic() + UNSEEN_SECONDS, True
        return entity if state_of(entity) in _SETTLED else None

    entity = wait_until(
        reporting(look, change.doing, clock),
        every=growing(0.5, 5.0),
        deadline=max(seconds_left, 0.0),
        clock=clock,
    )
    if entity is None:
        kind = EndpointError if was_seen else EndpointUnseen
        raise kind(
            f"Not finished within {deadline_seconds / 60:g} minutes: {change.doing}.",
            where=change.where,
            remedy="Look at it in Azure ML studio, or raise the deadline in endpoint.*.",
        ) from trouble
    if state_of(entity) != "Succeeded":
        said = f": {trouble.message}" if trouble else "."
        raise EndpointError(
            f"Azure says {state_of(entity)} after {change.doing}{said}",
            where=change.where,
        ) from trouble
    if trouble is not None and not change.as_wanted(entity):
        raise trouble
    return entity
