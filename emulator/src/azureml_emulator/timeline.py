"""What will happen, and when: a durable list of events that survives a restart.

A service schedules an event and names, in its ``EVENTS`` table, the function that applies it. An
event may carry a long-running operation, which ends when the event has been applied. An event that
is due at no moment (``math.inf``) waits to be released by hand.
"""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import dataclass
from typing import Any

from .store import Store


@dataclass(frozen=True)
class Event:
    """One thing that happens to one resource.

    Args:
        id: Its number; events due at the same moment happen in this order.
        due: When, in seconds since the epoch.
        kind: The key in a service's ``EVENTS``.
        subject: The resource's key.
        payload: What the function that applies it needs to know; JSON.
        operation: The long-running operation that ends with it, if any.
    """

    id: int
    due: float
    kind: str
    subject: str
    payload: dict[str, Any]
    operation: str | None


class Timeline:
    """The list of events, kept in *store*."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(
        self,
        due: float,
        kind: str,
        subject: str,
        payload: dict[str, Any] | None = None,
        operation: str | None = None,
    ) -> None:
        """Schedule an event for the moment *due*."""
        self._store.insert(
            "INSERT INTO events (due, kind, subject, payload, operation) VALUES (?, ?, ?, ?, ?)",
            due,
            kind,
            subject,
            json.dumps(payload or {}),
            operation,
        )

    def next(self) -> Event | None:
        """Return the earliest event that has not happened, or None."""
        rows = self._store.execute(
            "SELECT * FROM events WHERE state = 'pending' ORDER BY due, id LIMIT 1"
        )
        return _event(rows[0]) if rows else None

    def pending(self) -> list[Event]:
        """Return every event that has not happened, the earliest first."""
        rows = self._store.execute("SELECT * FROM events WHERE state = 'pending' ORDER BY due, id")
        return [_event(row) for row in rows]

    def release(self, event: Event, *, due: float) -> None:
        """Let *event*, which waits by hand, be due at that moment."""
        assert event.due == math.inf, event
        self._store.execute("UPDATE events SET due = ? WHERE id = ?", due, event.id)

    def done(self, event: Event) -> None:
        """Say that *event* has happened."""
        self._store.execute("UPDATE events SET state = 'done' WHERE id = ?", event.id)

    def cancel(self, subject: str, *, kind_prefix: str = "") -> None:
        """Drop what was to happen to *subject*, only kinds that begin with *kind_prefix*."""
        self._store.execute(
            "UPDATE events SET state = 'dropped' "
            "WHERE state = 'pending' AND subject = ? AND substr(kind, 1, ?) = ?",
            subject,
            len(kind_prefix),
            kind_prefix,
        )


def _event(row: sqlite3.Row) -> Event:
    payload = json.loads(row["payload"])
    return Event(row["id"], row["due"], row["kind"], row["subject"], payload, row["operation"])
