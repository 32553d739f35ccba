"""``make campaign-requests``: every request of a run, hit by every fault, one at a time.

The requests of a clean run were recorded once (``--record``) into ``cases/requests.json``, each as
its method, its path with ``{}`` for what differs between runs, and which of its kind it is. For
each of them, and each fault of :data:`FAULTS`, the flow runs on an emulator with no memory and that
one fault. What is expected, and checked by what the emulator saw: the run completes, or fails with
a clear error; no meter is open; no job too many; what the report and the exit code say is so.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from azureml_emulator.control import Control
from azureml_emulator.settings import REGISTRY_ID, WORKSPACE_ID

from . import results
from .inprocess import Ground, Ran, ground
from .results import BROKEN, HELD, NOT_REACHED
from .verdicts import broken_promises, settled, untruths

CASES = results.FOLDER / "cases" / "requests.json"
LOG = Path("runs/campaigns/requests.log")

# The four that lose an answer do so after the change was made: that is the harder case.
FAULTS: dict[str, dict[str, Any]] = {
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
    "503": {"status": 503},
    "reset-before": {"reset": True},
    "reset-after": {"reset": True, "after": True},
    "hang": {"hang": True, "after": True},
    "504-page": {"status": 504, "after": True, "body": "<html>Gateway Timeout</html>"},
    "401": {
        "status": 401,
        "error": {
            "code": "ExpiredAuthenticationToken",
            "message": "The access token has expired.",
        },
    },
}

_SHORT = {"{workspace}": WORKSPACE_ID, "{registry}": REGISTRY_ID}
_VARIES = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|dcid\..+|[0-9a-f]{64}|\d{9,}|(ft|local)-[a-z2-7]+-a\d+"
)
_WRITES = ("PUT", "POST", "DELETE", "PATCH")


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen cases; 1 where a promise was broken."""
    options = results.parser("requests", __doc__)
    options.add_argument("--record", action="store_true", help="record the list of cases anew")
    given = options.parse_args(arguments)
    with ground(LOG) as stage:
        if given.record:
            record(stage)
            return 0
        return run(stage, results.choice(given))


def cases() -> list[str]:
    """Return the name of each case: what changes something first, the cloud's metadata last."""
    recorded: list[str] = json.loads(CASES.read_text(encoding="utf-8"))
    ordered = sorted(recorded, key=importance)
    return [f"{request} {fault}" for request in ordered for fault in FAULTS]


def run(stage: Ground, chosen: results.Chosen) -> int:
    """Run the chosen cases, write their results, and return 1 where a promise was broken."""
    with stage.emulator():
        stage.run()  # What is made once, such as the data, is not part of a case.
    return results.play_all(cases(), lambda case: play(stage, case), chosen)


def play(stage: Ground, case: str) -> dict[str, Any]:
    """Run the flow with the fault of one case, and return what came of it."""
    request, _, fault = case.rpartition(" ")
    with stage.emulator() as control:
        control.faults({**_rule(request), "effect": FAULTS[fault]})
        began = time.monotonic()
        try:
            ran = stage.run()
        except Exception as error:
            return _row(BROKEN, "crash", began, [f"{type(error).__name__}: {error}"[:500]])
        struck = control.struck()
        return _judged(ran, control, struck, began)


def record(stage: Ground) -> None:
    """Write the requests of a clean run to :data:`CASES`."""
    with stage.emulator():
        stage.run()
    with stage.emulator() as control:
        assert stage.run().code == 0
        seen = [(row["method"], template(row["path"])) for row in control.requests()]
    counted: Counter[tuple[str, str]] = Counter()
    names = []
    for method, path in seen:
        counted[method, path] += 1
        names.append(f"{method} {path}#{counted[method, path]}")
    CASES.write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    print(f"{len(names)} requests, {len(cases())} cases: {CASES}")


def template(path: str) -> str:
    """Return the path with short names for long ids, and ``{}`` for what differs between runs."""
    for short, long in _SHORT.items():
        path = path.replace(long, short)
    return "/".join("{}" if _VARIES.fullmatch(part) else part for part in path.split("/"))


def importance(request: str) -> int:
    """Return 0 for what changes something in the workspace, 3 for the cloud's metadata.

    Between them, 1 for what scores and stores, and 2 for what only reads.
    """
    method, _, path = request.partition(" ")
    if method in _WRITES:
        return 0 if path.startswith("{workspace}") else 1
    return 3 if path.startswith("/metadata/") else 2


def _rule(request: str) -> dict[str, Any]:
    what, _, nth = request.rpartition("#")
    method, _, path = what.partition(" ")
    pattern = re.escape(path).replace(r"\{\}", "[^/]+")
    for short, long in _SHORT.items():
        pattern = pattern.replace(re.escape(short), re.escape(long))
    return {"match": {"method": method, "path": f"^{pattern}$"}, "nth": [int(nth)]}


def _judged(ran: Ran, control: Control, struck: int, began: float) -> dict[str, Any]:
    code = (ran.report["error"] or {}).get("code", "")
    outcome = ran.report["state"] if ran.code == 0 else f"{ran.code} {code}".strip()
    seen = settled(control)
    problems = broken_promises(seen) + untruths(ran.code, ran.report, seen)
    verdict = BROKEN if problems else HELD if struck else NOT_REACHED
    return _row(verdict, outcome, began, problems)


def _row(verdict: str, outcome: str, began: float, problems: list[str]) -> dict[str, Any]:
    seconds = round(time.monotonic() - began, 1)
    return {"verdict": verdict, "outcome": outcome, "seconds": seconds, "problems": problems}


if __name__ == "__main__":
    sys.exit(main())
