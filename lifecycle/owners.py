"""The flow run that a resource belongs to, as whoever can ask Prefect knows it.

The life cycle does not know Prefect: what sweeps is given a function that does, or one that knows
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import Field

from lifecycle.plain import Result

# A run that has just ended is still putting away what it made, or is about to be started again.
# Longer than three heartbeats at Prefect's slowest.
GRACE = timedelta(minutes=10)


class Owner(Result):
    """A flow run."""

    state: str = Field(
        title="State", description="Type of its state in Prefect.", examples=["CRASHED"]
    )
    ended_at: datetime | None = Field(
        title="Ended at",
        description="Since when nothing of it is at work, as far as its states go: it has ended, "
        "and may be waiting to be started again; none while it is at work.",
    )
    heartbeat_at: datetime | None = Field(
        title="Heartbeat at", description="When its process last gave a sign of life."
    )


OwnerOf = Callable[[str], Owner | None]
"""Returns what is known of the run with this id, or None."""


def nobody_knows(run_id: str) -> Owner | None:
    """Know nothing of any run, as where there is no Prefect."""
    return None


def is_over(owner: Owner | None, now: datetime, grace: timedelta = GRACE) -> bool:
    """Say whether the run ended some time ago and nothing of it lives.

    A state alone is no proof: a run whose heartbeats were late for a while is Crashed in Prefect,
    and may be at work. So it must have been silent for as long, too.
    """
    if owner is None or owner.ended_at is None:
        return False
    last = max(owner.ended_at, owner.heartbeat_at or owner.ended_at)
    return now - last >= grace
