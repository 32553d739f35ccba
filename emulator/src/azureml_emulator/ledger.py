"""The meter: every billable resource ever made, when it began and stopped billing, at what price.

Entries are only ever added: triggers in the database refuse everything else, whoever asks. An
endpoint without a deployment costs nothing, yet it is listed at a price of zero: one that is left
behind is a mistake all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .clock import iso
from .store import Store


class Ledger:
    """The meters, kept in *store*.

    Args:
        store: Where.
        stopped: Called when a meter has stopped: what it metered is free for others.
    """

    def __init__(self, store: Store, stopped: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._stopped = stopped

    def open(
        self, resource: str, kind: str, *, at: float, sku: str, quantity: int, usd_per_hour: float
    ) -> None:
        """Start a meter.

        Args:
            resource: The ARM id (or another unique name) of what is billed.
            kind: ``endpoint``, ``deployment``, ``compute``, ``job``.
            at: When billing begins, seconds since the epoch.
            sku: The VM size, or "" where there is none.
            quantity: Instances or nodes.
            usd_per_hour: Price of one instance.
        """
        last = self._store.execute("SELECT coalesce(max(meter), 0) AS meter FROM ledger")
        details = {"kind": kind, "sku": sku, "quantity": quantity, "usd_per_hour": usd_per_hour}
        self._add(at, "began", last[0]["meter"] + 1, resource, details)

    def close(self, resource: str, *, at: float, reason: str) -> None:
        """Stop every open meter of *resource*; one that is not billed is no error."""
        for meter in self._fold():
            if meter["resource"].lower() == resource.lower() and meter["_stopped"] is None:
                self._add(at, "stopped", meter["meter"], resource, {"reason": reason})
                self._stopped()

    def report(self, *, now: float) -> dict[str, Any]:
        """Return ``{"meters": [...], "open": n, "usd": total}`` as it stands at *now*."""
        meters = []
        for meter in self._fold():
            began, stopped = meter.pop("_began"), meter.pop("_stopped")
            hours = ((now if stopped is None else stopped) - began) / 3600
            meter["began"] = iso(began)
            meter["stopped"] = None if stopped is None else iso(stopped)
            meter["hours"] = round(hours, 6)
            meter["usd"] = round(hours * meter["usd_per_hour"] * meter["quantity"], 6)
            meters.append(meter)
        return {
            "meters": meters,
            "open": sum(meter["stopped"] is None for meter in meters),
            "usd": round(sum(meter["usd"] for meter in meters), 6),
        }

    def _add(
        self, at: float, entry: str, meter: int, resource: str, details: dict[str, Any]
    ) -> None:
        self._store.insert(
            "INSERT INTO ledger (at, entry, meter, resource, details) VALUES (?, ?, ?, ?, ?)",
            at,
            entry,
            meter,
            resource,
            json.dumps(details),
        )

    def _fold(self) -> list[dict[str, Any]]:
        meters: dict[int, dict[str, Any]] = {}
        for row in self._store.execute("SELECT * FROM ledger ORDER BY seq"):
            details = json.loads(row["details"])
            if row["entry"] == "began":
                meters[row["meter"]] = {
                    "meter": row["meter"],
                    "resource": row["resource"],
                    **details,
                    "reason": None,
                    "_began": row["at"],
                    "_stopped": None,
                }
            else:
                meters[row["meter"]] |= {"_stopped": row["at"], "reason": details["reason"]}
        return list(meters.values())
