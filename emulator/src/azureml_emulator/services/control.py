"""The emulator's own routes, under ``/_emulator/``: ledger, requests, inventory, faults, time."""

from __future__ import annotations

import math
from typing import Any

from ..clock import ManualClock, iso
from ..emulator import CLOCK, Applier, Emulator
from ..errors import BadRequest
from ..routing import Call, Reply, Route
from ..timeline import Event
from .artifacts import MODEL
from .runs import RUN


def get_ledger(emulator: Emulator, call: Call) -> Reply:
    """Answer with every meter, as :meth:`~azureml_emulator.ledger.Ledger.report` gives it."""
    return Reply(emulator.ledger.report(now=emulator.now()))


def get_requests(emulator: Emulator, call: Call) -> Reply:
    """Answer with the requests since the number ``?after=`` (0 if not given), oldest first."""
    after = call.number("after", 0)
    rows = emulator.store.execute("SELECT * FROM requests WHERE seq > ? ORDER BY seq", after)
    return Reply({"requests": [dict(row) for row in rows]})


def get_inventory(emulator: Emulator, call: Call) -> Reply:
    """Answer with the jobs that there ever were, and the registered models, oldest first.

    A job has ``name``, ``status``, ``tags``, ``created`` and ``ended`` (null while it is live); a
    model ``name``, ``version``, ``job`` and ``tags``.
    """
    jobs = [
        {
            "name": run["id"],
            "status": run["status"],
            "tags": run["tags"],
            "created": iso(run["created"]),
            "ended": None if run["ended"] is None else iso(run["ended"]),
        }
        for run in emulator.store.list(RUN)
        if run["parent"] is None
    ]
    models = [
        {
            "name": model["id"].split("/")[-3],
            "version": model["name"],
            "job": model["properties"]["jobName"],
            "tags": model["properties"]["tags"],
        }
        for model in emulator.store.list(MODEL)
    ]
    return Reply({"jobs": jobs, "models": models})


def get_faults(emulator: Emulator, call: Call) -> Reply:
    """Answer with the fault rules and how often each has matched."""
    return Reply({"rules": emulator.faults.rules()})


def put_faults(emulator: Emulator, call: Call) -> Reply:
    """Replace the fault rules with ``{"rules": [...]}``; what the old ones did passes at once."""
    rules = call.json().get("rules")
    if not isinstance(rules, list):
        raise BadRequest('The body must be {"rules": [...]}.', target="rules")
    emulator.faults.replace(rules)
    emulator.aftermath.clear()
    return Reply({"rules": emulator.faults.rules()})


def get_timeline(emulator: Emulator, call: Call) -> Reply:
    """Answer with what will happen, the earliest first; ``due`` is null for what waits by hand."""
    events = [
        {
            "kind": event.kind,
            "resource": event.subject,
            "due": None if event.due == math.inf else iso(event.due),
        }
        for event in emulator.timeline.pending()
    ]
    return Reply({"now": iso(emulator.now()), "events": events})


def advance(emulator: Emulator, call: Call) -> Reply:
    """Move the clock, or let happen what waits by hand.

    ``{"seconds": s}`` moves the clock forward; only under ``--latency manual``. ``{"kind": k,
    "resource": r}``, or one of the two, releases the events of that kind (``endpoint.delete``, or
    ``endpoint`` for all of its) and of that resource, an ARM id or the end of one.
    """
    body = call.json()
    if unknown := sorted(set(body) - {"seconds", "kind", "resource"}):
        raise BadRequest(f"Unknown fields {unknown}; known: seconds, kind, resource.")
    if set(body) & {"kind", "resource"}:
        if "seconds" in body:
            raise BadRequest("Say either seconds, or the kind and resource of what waits by hand.")
        return _release(emulator, body)
    return _advance(emulator, body.get("seconds"))


def _release(emulator: Emulator, body: dict[str, Any]) -> Reply:
    kind, resource = body.get("kind", ""), body.get("resource", "")
    if not isinstance(kind, str) or not isinstance(resource, str):
        raise BadRequest("kind and resource must be text.")
    with emulator.store.transaction():
        chosen = [one for one in emulator.timeline.pending() if _waits(one, kind, resource)]
        for event in chosen:
            emulator.timeline.release(event, due=emulator.now())
    emulator.settle()
    released = [{"kind": event.kind, "resource": event.subject} for event in chosen]
    return Reply({"now": emulator.now(), "released": released})


def _waits(event: Event, kind: str, resource: str) -> bool:
    of_kind = not kind or f"{event.kind}.".startswith(f"{kind}.")
    end = f"/{resource.lstrip('/')}".lower()
    of_resource = not resource or f"/{event.subject}".lower().endswith(end)
    return event.due == math.inf and of_kind and of_resource


def _advance(emulator: Emulator, seconds: Any) -> Reply:
    if not isinstance(emulator.clock, ManualClock):
        raise BadRequest("The clock runs by itself; start the emulator with --latency manual.")
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 <= seconds < math.inf:
        raise BadRequest(f"seconds must be a number, 0 or more, not {seconds!r}.")
    emulator.clock.advance(seconds)
    emulator.store.put(CLOCK, CLOCK, {"now": emulator.clock.now()})
    emulator.settle()
    return Reply({"now": emulator.clock.now()})


ROUTES = [
    Route("GET", "/_emulator/ledger", get_ledger, auth="none"),
    Route("GET", "/_emulator/requests", get_requests, auth="none"),
    Route("GET", "/_emulator/inventory", get_inventory, auth="none"),
    Route("GET", "/_emulator/faults", get_faults, auth="none"),
    Route("PUT", "/_emulator/faults", put_faults, auth="none"),
    Route("GET", "/_emulator/timeline", get_timeline, auth="none"),
    Route("POST", "/_emulator/advance", advance, auth="none", exclusive=False),
]
EVENTS: dict[str, Applier] = {}
