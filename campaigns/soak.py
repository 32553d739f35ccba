"""``make campaign-soak``: several runs at once under random faults and kills, from a seed.

A few runs are always at work, by ``serve``, with the automations that look after them. Meanwhile
some requests of a hundred meet a fault, and every half minute something is killed or cancelled.
When the time is over the faults end, every run is given time to end, and the ledger is read: no
meter may be open, and no run may have had a job too many.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import deployed, results
from .kills import AWAY_SECONDS, Scene, stage
from .requests import FAULTS
from .results import BROKEN, HELD
from .verdicts import broken_promises, settled, unclear, untrue_end

# Of a hundred requests, how many meet which fault.
PER_CENT = {
    "429": 1.0,
    "503": 1.0,
    "reset-before": 0.5,
    "reset-after": 0.5,
    "504-page": 0.5,
    "401": 0.3,
    "hang": 0.1,
}
BLOWS = {
    "SIGKILL": 6,
    "SIGTERM": 4,
    "UI cancel": 4,
    "emulator SIGKILL": 2,
    "Prefect server SIGKILL": 1,
    "host death": 1,
}
BLOW_EVERY_SECONDS = 30.0
# For runs that crashed in the last moment: found dead, started again, and through.
END_SECONDS = 600.0
# A run that was killed as often as it may be started stays as it is; it leaves nothing either.
_ENDED = frozenset({"completed", "failed", "cancelled", deployed.GIVEN_UP})


def main(arguments: list[str] | None = None) -> int:
    """Soak for so many minutes; 1 where a promise was broken."""
    options = argparse.ArgumentParser(prog="python -m campaigns.soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=30, metavar="N")
    options.add_argument("--seed", type=int, default=7, metavar="S")
    options.add_argument("--runs", type=int, default=3, metavar="N", help="how many at once")
    out = results.FOLDER / "results" / "soak.jsonl"
    options.add_argument("--out", type=Path, default=out, metavar="FILE")
    given = options.parse_args(arguments)
    commit = results.commit()
    with stage() as scene:
        row = soak(scene, given.minutes, given.seed, given.runs)
    case = f"{given.minutes:g} minutes, seed {given.seed}, {given.runs} runs at once"
    row = {"case": case, **row, **results.stamp(commit)}
    results.append(given.out, row)
    print(f"{row['verdict']}: {row['outcome']}")
    for problem in row["problems"]:
        print(f"  {problem}")
    return int(row["verdict"] == BROKEN)


def soak(scene: Scene, minutes: float, seed: int, at_once: int) -> dict[str, Any]:
    """Keep so many runs at work under faults and blows, and return what came of it."""
    began, draw = time.monotonic(), random.Random(seed)
    crew = scene.crew("serve")
    scene.control.faults(*rules(seed))
    runs: list[str] = []
    blows: Counter[str] = Counter()
    next_blow = began + BLOW_EVERY_SECONDS
    while time.monotonic() < began + 60 * minutes:
        live = [run for run in runs if deployed.state(run) not in _ENDED]
        with suppress(Exception):  # Prefect may be away: the next round comes.
            for _ in range(at_once - len(live)):
                runs.append(deployed.schedule(crew.way.finetune))
        if time.monotonic() >= next_blow and live:
            kind = draw.choices(list(BLOWS), list(BLOWS.values()))[0]
            _strike(scene, kind, draw, live)
            blows[kind] += 1
            print(f"{time.monotonic() - began:6.0f} s  {kind}; {len(runs)} runs", flush=True)
            next_blow = time.monotonic() + BLOW_EVERY_SECONDS * draw.uniform(0.5, 1.5)
        time.sleep(1)
    struck = scene.control.struck()
    scene.control.faults()
    return {
        **_judged(scene, runs),
        "seconds": round(time.monotonic() - began, 1),
        "blows": dict(blows),
        "faults": struck,
        "requests": len(scene.control.requests()),
    }


def rules(seed: int) -> list[dict[str, Any]]:
    """Return the fault rules: each with its probability, and a seed of its own."""
    return [
        {
            "match": {"path": "^(?!/metadata/)"},
            "probability": share / 100,
            "seed": seed + number,
            "effect": FAULTS[fault],
        }
        for number, (fault, share) in enumerate(PER_CENT.items())
    ]


def _strike(scene: Scene, kind: str, draw: random.Random, live: list[str]) -> None:
    crew = scene.crew("serve")
    if kind in ("SIGKILL", "SIGTERM"):
        if pids := crew.flows():
            with suppress(ProcessLookupError):
                os.kill(draw.choice(pids), getattr(signal, kind))
    elif kind == "UI cancel":
        with suppress(Exception):  # It may have ended, or Prefect be busy.
            deployed.cancel(draw.choice(live))
    elif kind == "emulator SIGKILL":
        scene.emulator.kill()
        time.sleep(AWAY_SECONDS)
        scene.control = scene.emulator.start()
    elif kind == "Prefect server SIGKILL":
        scene.prefect.kill()
        time.sleep(AWAY_SECONDS)
        scene.prefect.start()
    else:
        crew.kill()
        crew.start()


def _judged(scene: Scene, runs: list[str]) -> dict[str, Any]:
    end = time.monotonic() + END_SECONDS
    states = {run: deployed.state(run) for run in runs}
    while set(states.values()) - _ENDED and time.monotonic() < end:
        time.sleep(2)
        states = {run: deployed.state(run) for run in runs}
    seen = settled(scene.control, 120)
    problems = broken_promises(seen)
    for run, state in states.items():
        problems += untrue_end(state, run, deployed.ENDPOINT_PREFIX, seen)
        if state == "failed":
            problems += unclear(deployed.message(run))
        if state not in _ENDED:
            problems.append(f"no end: {run} is {state}")
    if "completed" not in states.values():
        problems.append("none completed")
    left = len(seen.open())
    if left:
        problems += _swept(scene)
    told = ", ".join(
        f"{count} {state}" for state, count in sorted(Counter(states.values()).items())
    )
    return {
        "verdict": BROKEN if problems else HELD,
        "outcome": f"{len(runs)} runs ({told}), {len(seen.jobs)} jobs, {left} meters open",
        "problems": problems,
    }


def _swept(scene: Scene) -> list[str]:
    """Say what a sweep of the hour at which every endpoint has expired does not put away."""
    from lifecycle.auth import WorkspaceSpec, authenticate
    from lifecycle.sweep import sweep

    later = datetime.now(UTC) + timedelta(hours=5)
    sweep(authenticate(WorkspaceSpec()).ref, True, later)
    return [f"also after the last sweep: {name}" for name in settled(scene.control, 20).open()]


if __name__ == "__main__":
    sys.exit(main())
