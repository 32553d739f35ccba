"""The emulator's own routes, under ``/_emulator/``: ledger, requests, faults, time."""

from __future__ import annotations

import math

from ..clock import ManualClock
from ..emulator import CLOCK, Applier, Emulator
from ..errors import BadRequest
from ..routing import Call, Reply, Route


def get_ledger(emulator: Emulator, call: Call) -> Reply:
    """Answer with every meter, as :meth:`~azureml_emulator.ledger.Ledger.report` gives it."""
    return Reply(emulator.ledger.report(now=emulator.now()))


def get_requests(emulator: Emulator, call: Call) -> Reply:
    """Answer with the requests since the number ``?after=`` (0 if not given), oldest first."""
    after = call.number("after", 0)
    rows = emulator.store.execute("SELECT * FROM requests WHERE seq > ? ORDER BY seq", after)
    return Reply({"requests": [dict(row) for row in rows]})


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


def advance(emulator: Emulator, call: Call) -> Reply:
    """Move the clock forward by ``{"seconds": s}``; only under ``--latency manual``."""
    if not isinstance(emulator.clock, ManualClock):
        raise BadRequest("The clock runs by itself; start the emulator with --latency manual.")
    seconds = call.json().get("seconds")
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise BadRequest(f"seconds must be a number, 0 or more, not {seconds!r}.")
    emulator.clock.advance(seconds)
    emulator.store.put(CLOCK, CLOCK, {"now": emulator.clock.now()})
    emulator.settle()
    return Reply({"now": emulator.clock.now()})


ROUTES = [
    Route("GET", "/_emulator/ledger", get_ledger, auth="none"),
    Route("GET", "/_emulator/requests", get_requests, auth="none"),
    Route("GET", "/_emulator/faults", get_faults, auth="none"),
    Route("PUT", "/_emulator/faults", put_faults, auth="none"),
    Route("POST", "/_emulator/advance", advance, auth="none", exclusive=False),
]
EVENTS: dict[str, Applier] = {}
