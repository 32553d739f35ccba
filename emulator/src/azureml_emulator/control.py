"""The control routes, as somebody outside the emulator calls them: faults, time, the ledger."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Control:
    """The control routes of an emulator that listens, in this process or in another.

    Args:
        url: ``https://localhost:PORT``.
        bundle: The file with its certificate authority.

    Raises:
        OSError: From every method, where nobody listens.
    """

    def __init__(self, url: str, bundle: Path) -> None:
        self.url = url
        self._trust = ssl.create_default_context(cafile=str(bundle))

    def ledger(self) -> dict[str, Any]:
        """Return every meter ever, with ``open``, how many still run, and ``usd``, their total."""
        report: dict[str, Any] = self._control("GET", "ledger")
        return report

    def open_meters(self) -> list[str]:
        """Return the names of what is still billed."""
        return [row["resource"] for row in self.ledger()["meters"] if row["stopped"] is None]

    def requests(self, after: int = 0) -> list[dict[str, Any]]:
        """Return every request since the number *after*, oldest first."""
        rows: list[dict[str, Any]] = self._control("GET", f"requests?after={after}")["requests"]
        return rows

    def inventory(self) -> dict[str, list[dict[str, Any]]]:
        """Return the ``jobs`` and registered ``models`` that there are, oldest first."""
        found: dict[str, list[dict[str, Any]]] = self._control("GET", "inventory")
        return found

    def faults(self, *rules: Mapping[str, Any]) -> None:
        """Replace the fault rules; none at all ends every fault."""
        self._control("PUT", "faults", {"rules": list(rules)})

    def struck(self) -> int:
        """Return how many requests the fault rules have struck so far."""
        rules: list[dict[str, Any]] = self._control("GET", "faults")["rules"]
        return sum(rule["struck"] for rule in rules)

    def advance(self, seconds: float) -> None:
        """Move the clock of an emulator that was started with ``latency="manual"``."""
        self._control("POST", "advance", {"seconds": seconds})

    def release(self, kind: str = "", resource: str = "") -> list[dict[str, str]]:
        """Let happen what waits by hand.

        Args:
            kind: ``endpoint.delete`` or the like, or ``endpoint`` for all of its; "" for any.
            resource: An ARM id or the end of one; "" for any.

        Returns:
            ``kind`` and ``resource`` of what has happened.
        """
        what = {"kind": kind, "resource": resource}
        released: list[dict[str, str]] = self._control("POST", "advance", what)["released"]
        return released

    def timeline(self) -> list[dict[str, Any]]:
        """Return what will happen, the earliest first; ``due`` is None for what waits by hand."""
        events: list[dict[str, Any]] = self._control("GET", "timeline")["events"]
        return events

    def _control(self, method: str, name: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310  the emulator
            f"{self.url}/_emulator/{name}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._trust)
        )
        with direct.open(request, timeout=30) as answer:
            return json.load(answer)
