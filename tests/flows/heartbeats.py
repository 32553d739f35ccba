"""Signs of life, as a flow's engine gives them, of runs that nobody is at work on."""

from __future__ import annotations

from prefect.events import emit_event

from lifecycle.waiting import growing, wait_until
from tasks.runs import owner_of


def beat(run: str) -> None:
    """Give a sign of life of the run, and wait until Prefect knows of it."""
    emit_event(
        "prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{run}"}
    )

    def heard() -> bool | None:
        owner = owner_of(run)
        return (owner is not None and owner.heartbeat_at is not None) or None

    assert wait_until(heard, every=growing(0.2, 1.0), deadline=30), "Prefect knows of no heartbeat"
