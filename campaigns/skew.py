"""``make campaign-skew``: every answer of a run, other than we expect, one change at a time.

The (method, route) pairs of a clean run were recorded once (``--record``) into ``cases/skew.json``,
each with the changes that make sense of its answers (:mod:`campaigns.changes`). For each of them
the flow runs with that change made to every answer of that route, for the whole run, in front of
an emulator that does not know of it. What is expected, by what the emulator saw: no healthy job is
canceled; no meter is open, or the run says which; where the route is a courtesy, the run completes;
where it is essential, it completes or says with an error of ours what failed.

Waits are real and quick: our clock runs :data:`FACTOR` times as fast as the machine's.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from . import results
from .changes import change, properties, whole
from .front import Answer, Asked
from .inprocess import Ground, Ran, ground
from .requests import template
from .results import BROKEN, HELD, NOT_REACHED
from .verdicts import Seen, broken_promises, settled, untruths

CASES = results.FOLDER / "cases" / "skew.json"
LOG = Path("runs/campaigns/skew.log")
FACTOR = 60.0
# Half an hour of our clock and more; what takes longer hangs.
LONGEST_SECONDS = 240

COURTESIES = {
    r"GET /discovery$": "where the data plane is",
    r"GET /history/": "steps, progress, addresses of logs",
    r"GET /emulator\.blob\.localhost/azureml/ExperimentRun/": "logs",
    r"(GET|POST) /mlflow/": "metrics",
    r".*/vmSizes$": "GPUs of a size, and whether the region has it",
    r".*OperationsStatus/": "how a change goes; beside it the resource is asked",
    r"POST .*/listNodes$": "whether the run's own cluster is idle and can be deleted",
}
"""The routes without which a run goes on, and what they are for."""


class _Hung(BaseException):
    """Raised where a case takes too long."""


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen cases; 1 where a promise was broken."""
    options = results.parser("skew", __doc__)
    options.add_argument("--record", action="store_true", help="record the list of cases anew")
    given = options.parse_args(arguments)
    with ground(LOG) as stage:
        hurry()
        if given.record:
            record(stage)
            return 0
        return run(stage, results.choice(given))


def cases() -> list[str]:
    """Return the name of each case: the changes of a whole answer first."""
    recorded: dict[str, list[str]] = json.loads(CASES.read_text(encoding="utf-8"))
    named = [(route, name) for route, names in recorded.items() for name in names]
    named.sort(key=lambda case: case[1].rpartition(" ")[2] in _OF_A_PROPERTY)
    return [f"{route} | {name}" for route, name in named]


def run(stage: Ground, chosen: results.Chosen) -> int:
    """Run the chosen cases, write their results, and return 1 where a promise was broken."""
    with stage.emulator():
        stage.run()  # What is made once, such as the data, is not part of a case.
    return results.play_all(cases(), lambda case: play(stage, case), chosen)


def play(stage: Ground, case: str) -> dict[str, Any]:
    """Run the flow with the change of one case, and return what came of it."""
    route, _, name = case.partition(" | ")
    made, struck = change(name, _quick), 0

    def changed(asked: Asked, answer: Answer) -> Answer:
        nonlocal struck
        if route_of(asked) != route:
            return answer
        struck += 1
        return made(asked, answer)

    began = time.monotonic()
    with stage.emulator(changed) as control:
        try:
            with _at_most(LONGEST_SECONDS):
                ran = stage.run()
        except (Exception, _Hung) as error:
            return _row(BROKEN, "crash", began, [f"{type(error).__name__}: {error}"[:500]])
        problems = judged(route, ran, settled(control))
    code = (ran.report["error"] or {}).get("code", "")
    outcome = ran.report["state"] if ran.code == 0 else f"{ran.code} {code}".strip()
    return _row(BROKEN if problems else HELD if struck else NOT_REACHED, outcome, began, problems)


def judged(route: str, ran: Ran, seen: Seen) -> list[str]:
    """Return what was promised and is not so."""
    named = " ".join(ran.report["still_billing"])
    problems = [
        problem
        for problem in broken_promises(seen) + untruths(ran.code, ran.report, seen)
        if not (problem.startswith("still billed: ") and problem.split(": ")[1] in named)
        # What cannot be read cannot be seen gone, and "may be billed" is the truth.
        and not (problem.startswith(_MAY_BE_BILLED) and route.startswith("GET {workspace}/"))
    ]
    error = ran.report["error"] or {}
    if is_courtesy(route) and ran.code != 0:
        problems.append(f"a courtesy ended it: {ran.code}, {error.get('message')}")
    canceled = [job["name"] for job in seen.jobs if job["status"] == "Canceled"]
    if canceled and not _is_of_the_job(route):
        problems.append(f"a healthy job was canceled: {canceled}")
    return problems


def is_courtesy(route: str) -> bool:
    """Say whether a run goes on without it."""
    return any(re.match(pattern, route) for pattern in COURTESIES)


def route_of(asked: Asked) -> str:
    """Return method and route of a request, with short names for what differs between runs."""
    return f"{asked.method} {template(asked.path)}"


def record(stage: Ground) -> None:
    """Write the routes of a clean run, with the changes that make sense of each."""
    found: dict[str, dict[str, None]] = {}

    def see(asked: Asked, answer: Answer) -> Answer:
        document = answer.document()
        if answer.status < 400:
            names = found.setdefault(route_of(asked), {})
            names.update(dict.fromkeys([*whole(document), *properties(document)]))
        return answer

    with stage.emulator():
        stage.run()
    with stage.emulator(see):
        assert stage.run().code == 0
    listed = {route: list(names) for route, names in sorted(found.items())}
    CASES.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    print(f"{len(listed)} routes, {len(cases())} cases: {CASES}")


def hurry() -> None:
    """Let our clock run :data:`FACTOR` times as fast, and steps be tried again soon.

    Before the flow is imported, which reads how long steps pause.
    """
    from lifecycle.waiting import SYSTEM_CLOCK
    from tasks import step

    began = datetime.now(UTC)
    clock: Any = SYSTEM_CLOCK
    clock.monotonic = _quick
    clock.now = lambda: began + timedelta(seconds=_quick() - _START * FACTOR)
    clock.sleep = lambda seconds: time.sleep(seconds / FACTOR)
    step.RETRY_DELAYS_SECONDS[:] = [pause / FACTOR for pause in step.RETRY_DELAYS_SECONDS]


_MAY_BE_BILLED = "says that these may be billed, and none is"
_START = time.monotonic()
_OF_A_PROPERTY = frozenset({"removed", "null", "type", "unknown"})


def _quick() -> float:
    return time.monotonic() * FACTOR


def _is_of_the_job(route: str) -> bool:
    """Say whether the job itself could not be read or submitted: the run is over then."""
    return "/jobs/{}" in route or route.startswith(("GET /msi/", "GET /metadata/"))


class _at_most:  # noqa: N801 - reads as a function
    """Raise :class:`_Hung` in the block after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        def hung(number: int, frame: FrameType | None) -> None:
            raise _Hung(f"after {self._seconds:g} s")

        signal.signal(signal.SIGALRM, hung)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _row(verdict: str, outcome: str, began: float, problems: list[str]) -> dict[str, Any]:
    seconds = round(time.monotonic() - began, 1)
    return {"verdict": verdict, "outcome": outcome, "seconds": seconds, "problems": problems}


if __name__ == "__main__":
    sys.exit(main())
