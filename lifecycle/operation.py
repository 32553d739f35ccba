"""One long-running change of a resource, seen through to its end.

The SDK's pollers have no deadline, and give up where one poll fails. Here the deadline is ours. The
operation is followed as long as it can be read; beside it, and instead of it where it cannot, the
resource itself is asked, whose state decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from lifecycle.azure import REFUSED_SECONDS, UNSEEN_SECONDS, translated
from lifecycle.errors import EndpointError, EndpointUnseen, FinetuneError, ServiceError
from lifecycle.patience import within
from lifecycle.waiting import Clock, growing, reporting, wait_until

if TYPE_CHECKING:
    from azure.core.polling import LROPoller

# How often the resource is asked while its operation is followed, which may never say how it ended.
BESIDE_SECONDS = 60.0

_SETTLED = frozenset({"Succeeded", "Failed", "Canceled", "Deleting"})
_SPELLING = {state.lower(): state for state in _SETTLED}


class Change(NamedTuple):
    """What is to be changed, and how to see whether it was.

    Args:
        doing: To follow "while": ``creating the endpoint ultrachat-…``.
        where: The resource's name, or the parameter that names it.
        begin: Sends the request and returns the SDK's poller; None where the change is already
            under way or made, and only its end is awaited.
        look: Returns the SDK's entity, or None where there is no such resource.
        as_wanted: Whether the entity is what the change would have made it.
        failed: The error where it failed, was refused, or is not done in time.
        unseen: The error where Azure agreed to it, and does not find the resource.
        remedy: What to do where it is not done in time.
    """

    doing: str
    where: str
    begin: Callable[[], LROPoller[Any]] | None
    look: Callable[[], Any | None]
    as_wanted: Callable[[Any], bool]
    failed: type[FinetuneError] = EndpointError
    unseen: type[FinetuneError] = EndpointUnseen
    remedy: str = "Look at it in Azure ML studio, or raise the deadline in endpoint.*."


def carry_out(change: Change, *, deadline_seconds: float, clock: Clock) -> Any:
    """Make the change, wait for its end, and return the entity.

    Raises:
        FinetuneError: ``change.failed``: Azure refused it, the operation failed, the deadline
            passed, or Azure has not let the resource be read for :data:`REFUSED_SECONDS`.
            ``change.unseen``: Azure agreed to it, and did not find it for
            :data:`~lifecycle.azure.UNSEEN_SECONDS`.
        ServiceError: Azure did not answer, and the resource does not show the change;
            ``transient``, since the change may be asked for again.
    """
    with within(deadline_seconds, clock):
        operation = _Operation(change, clock)
        operation.begin()
        entity = wait_until(
            reporting(operation.look, change.doing, clock),
            every=operation.pauses(),
            deadline=deadline_seconds,
            clock=clock,
        )
    if entity is None:
        raise operation.too_late(deadline_seconds)
    return entity


def state_of(entity: Any | None) -> str:
    """Return the entity's provisioning state as text (the SDK has an enum), or ``Unknown``."""
    state = getattr(entity, "provisioning_state", None)
    said = str(getattr(state, "value", state) or "Unknown")
    return _SPELLING.get(said.lower(), said)


class _Operation:
    """A change that is under way, as far as the operation or the resource shows it.

    Args:
        change: What is changed.
        clock: Whose time passes.
    """

    def __init__(self, change: Change, clock: Clock) -> None:
        self._change = change
        self._clock = clock
        self._poller: LROPoller[Any] | None = None
        self._has_begun = change.begin is None
        self._trouble: ServiceError | None = None  # With the request, or its operation.
        self._refusal: ServiceError | None = None  # Of the resource, to be read.
        self._was_seen = False
        self._beside_at = clock.monotonic() + BESIDE_SECONDS
        self._unseen_until = self._refused_until = 0.0

    def begin(self) -> None:
        """Send the request; an answer that was lost is remembered, and the resource asked."""
        change = self._change
        try:
            if change.begin is not None:
                with translated(change.doing, where=change.where):
                    self._poller = change.begin()
                self._has_begun = True
        except ServiceError as error:
            if not error.transient:
                raise self._failed(error) from error
            self._trouble = error
        self._begin_to_look()

    def look(self) -> Any | None:
        """Return the entity once the change is made, and None as long as it is under way."""
        if self._poller is not None:
            if self._poller.done():
                entity = self._result(self._poller)
                self._poller = None
                self._begin_to_look()
                if entity is not None:
                    return entity
            elif self._clock.monotonic() < self._beside_at:
                return None
            self._beside_at = self._clock.monotonic() + BESIDE_SECONDS
        return self._at_the_resource()

    def pauses(self) -> Iterator[float]:
        """Yield the seconds until the next look: few as long as that asks nobody but the poller."""
        for pause in growing(0.02, 0.5):
            if self._poller is None:
                break
            yield pause
        yield from growing(0.5, 5.0)

    def too_late(self, deadline_seconds: float) -> FinetuneError:
        """Return the error of a change that was not made in time."""
        change = self._change
        was_seen = self._was_seen or self._poller is not None
        error = (change.failed if was_seen else change.unseen)(
            f"Not finished within {deadline_seconds / 60:g} minutes: {change.doing}.",
            where=change.where,
            remedy=change.remedy,
        )
        error.__cause__ = self._refusal or self._trouble
        return error

    def _begin_to_look(self) -> None:
        self._unseen_until = self._clock.monotonic() + UNSEEN_SECONDS
        self._refused_until = self._clock.monotonic() + REFUSED_SECONDS

    def _result(self, poller: LROPoller[Any]) -> Any | None:
        """Return what the operation made, or None where the resource has to be asked."""
        try:
            with translated(self._change.doing, where=self._change.where):
                entity = poller.result()
        except ServiceError as error:
            # A status, or nothing that could be read, is the polling's trouble, not the change's.
            if error.status is None and not error.transient:
                raise self._failed(error) from error
            self._trouble = error
            return None
        # Right after its operation succeeded, a resource may still say "Updating".
        return entity if state_of(entity) in ("Succeeded", "Unknown") else None

    def _at_the_resource(self) -> Any | None:
        try:
            entity = self._change.look()
        except ServiceError as error:
            is_refused = error.permanent or error.status in (401, 403, 404)
            if is_refused and self._clock.monotonic() >= self._refused_until:
                raise self._failed(error) from error
            self._refusal = error
            return None
        self._refused_until = self._clock.monotonic() + REFUSED_SECONDS
        if entity is None:
            self._require_to_be_seen()
            return None
        self._was_seen, self._unseen_until = True, self._clock.monotonic() + UNSEEN_SECONDS
        state = state_of(entity)
        if self._poller is not None and not (
            state == "Succeeded" and self._change.as_wanted(entity)
        ):
            return None  # As it was before: what changes it goes on.
        if state not in _SETTLED:
            return None
        if state != "Succeeded":
            raise self._ended(state)
        if self._trouble is not None and not self._change.as_wanted(entity):
            if not self._has_begun:
                raise self._trouble
            return None  # Azure agreed to it: it shows later.
        return entity

    def _require_to_be_seen(self) -> None:
        change = self._change
        if not self._has_begun and self._trouble is not None:
            raise self._trouble
        if self._poller is None and self._clock.monotonic() >= self._unseen_until:
            raise change.unseen(
                f"Azure agreed to it, and {UNSEEN_SECONDS:.0f} seconds later there is no such "
                f"resource: {change.doing}.",
                where=change.where,
            )

    def _failed(self, error: ServiceError) -> FinetuneError:
        return self._change.failed(error.message, where=self._change.where, remedy=error.remedy)

    def _ended(self, state: str) -> FinetuneError:
        said = f": {self._trouble.message}" if self._trouble else "."
        error = self._change.failed(
            f"Azure says {state} after {self._change.doing}{said}", where=self._change.where
        )
        error.__cause__ = self._trouble
        return error
