"""``make campaign-kills``: whatever can die, killed at every moment, however the flow is run.

The full list is in ``cases/kills.json``: those that cover every pair of kind, moment and way come
first, so that a run that is cut short is the better sample. A moment is a request, which the
emulator holds back for a while. What is expected, and checked by what the emulator saw: no meter is
open within the bound, a run that comes back adopts its job, and the outcome is the true one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from azureml_emulator.control import Control

from . import deployed, results
from .deployed import QUICK, WAYS, Crew
from .results import BROKEN, HELD, NOT_REACHED
from .stage import (
    PROFILE,
    EmulatorProcess,
    Patience,
    PrefectServer,
    awaited,
    ended,
    free_port,
    heed_signals,
)
from .verdicts import (
    broken_promises,
    look,
    outstayed,
    retrained,
    settled,
    unclear,
    untrue_end,
    untruths,
)

CASES = results.FOLDER / "cases" / "kills.json"
LOGS = Path("runs/campaigns")

IN_PROCESS = "in process"
KINDS = (
    "SIGKILL",
    "SIGTERM",
    "SIGINT",
    "double SIGTERM",
    "UI cancel",
    "worker SIGTERM",
    "host death",
    "Prefect server SIGKILL",
    "emulator SIGKILL",
)
_OF_A_CREW = ("UI cancel", "worker SIGTERM", "host death")
_TO_THE_RUN = ("SIGKILL", "SIGTERM", "SIGINT", "double SIGTERM")
# After these a run is to be started again.
_KILLED = ("SIGKILL", "worker SIGTERM", "host death")
# Of these nobody is left who would know; a runner that is told to end ends its runs at once.
_HOSTS_DEATH = ("worker SIGTERM", "host death")
# By these a person ends it for good.
_ENDING = ("SIGINT", "UI cancel")

# More than any request is held back; Azure is given a minute.
READ_SECONDS = 10.0
# Seconds that a server which was killed stays away.
AWAY_SECONDS = 3.0
STRIKE_SECONDS = 240.0
END_SECONDS = 420.0
# The Azure operation in progress, and 60 s; where heartbeats have to be missed first, their time.
BOUND_SECONDS = 90.0
LATE_HEARTBEATS = 3
# Long enough for a signal to land inside, short enough to wait for.
SECONDS = {
    "endpoint.create": 2.0,
    "endpoint.update": 0.2,
    "endpoint.delete": 1.0,
    "endpoint.name_reuse": 0.0,
    "deployment.create": 4.0,
    "deployment.delete": 0.5,
    "compute.create": 0.2,
    "job.queue": 0.5,
    "job.prepare": 0.2,
    "job.step": 0.6,
    "job.finalize": 0.2,
    "job.cancel": 0.5,
}


class Moment(NamedTuple):
    """When to strike.

    Args:
        method: Of the request that marks it.
        path: The end of its path, a regular expression.
        nth: Which of those.
        held: Seconds for which the emulator holds it back.
        after: Seconds from its arrival to the strike.
    """

    method: str
    path: str
    nth: int = 1
    held: float = 0.0
    after: float = 0.3


MOMENTS = {
    "before anything is made": Moment("GET", "/computes/gpu-cluster$", held=2),
    "before the job is submitted": Moment("GET", "/jobs/ft-[^/]+$", held=2),
    "submit in flight": Moment("PUT", "/jobs/ft-[^/]+$", held=2),
    "during the stream": Moment("GET", "/runs/[^/]+/children$", nth=3, after=0.5),
    "registration in flight": Moment("PUT", "/models/[^/]+/versions/[^/]+$", held=2),
    "before create": Moment("GET", "/onlineEndpoints/[^/]+$", held=2),
    "create in flight": Moment("PUT", "/onlineEndpoints/[^/]+$", held=3),
    "during create": Moment("PUT", "/onlineEndpoints/[^/]+$", after=1),
    "before deploy": Moment("GET", "/onlineEndpoints/[^/]+/deployments/[^/]+$", held=2),
    "during deploy": Moment("PUT", "/onlineEndpoints/[^/]+/deployments/[^/]+$", after=1),
    "before invoke": Moment("POST", "/onlineEndpoints/[^/]+/listKeys$", held=2),
    "during invoke": Moment("POST", "^/score/", held=3),
    "deletion in flight": Moment("DELETE", "/onlineEndpoints/[^/]+$", held=2),
    "during cleanup": Moment("DELETE", "/onlineEndpoints/[^/]+$", after=0.5),
}
# What comes in these does not interrupt the cleanup, the run's last act.
_LATE = (MOMENTS["deletion in flight"], MOMENTS["during cleanup"])


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen cases; 1 where a promise was broken."""
    options = results.parser("kills", __doc__)
    options.add_argument("--list", action="store_true", help="write the list of cases anew")
    given = options.parse_args(arguments)
    if given.list:
        CASES.write_text(json.dumps(full_list(), indent=1) + "\n", encoding="utf-8")
        return 0
    with stage() as scene:
        return results.play_all(cases(), scene.play, results.choice(given))


def cases() -> list[str]:
    """Return the names of the committed cases, ``way | kind | moment``."""
    found: list[str] = json.loads(CASES.read_text(encoding="utf-8"))
    return found


def full_list() -> list[str]:
    """Return every case there is: first one for each kind and moment, the ways taking turns."""
    first: list[str] = []
    rest: list[str] = []
    for row, kind in enumerate(KINDS):
        ways = [way for way in (IN_PROCESS, *WAYS) if way != IN_PROCESS or kind not in _OF_A_CREW]
        for column, moment in enumerate(MOMENTS):
            for place, way in enumerate(ways):
                is_first = place == (row + column) % len(ways)
                (first if is_first else rest).append(f"{way} | {kind} | {moment}")
    return [*first, *rest]


class MissedError(Exception):
    """Raised when the moment did not come, so that nothing was struck."""


class Scene:
    """One warm emulator, one warm Prefect server, and a crew for each way that is asked for."""

    def __init__(self, folder: Path, prefect: PrefectServer, emulator: EmulatorProcess) -> None:
        self.prefect = prefect
        self.emulator = emulator
        self.control: Control = emulator.start()
        self.environ = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            **emulator.environ(),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": prefect.url,
            "FINETUNE_CACHE": str(folder / "cache"),
            "FINETUNE_READ_SECONDS": str(READ_SECONDS),
        }
        os.environ.update(self.environ)
        self._folder = folder
        self._crews: dict[str, Crew] = {}

    def play(self, case: str) -> dict[str, Any]:
        """Start a run, strike at its moment, and return what came of it."""
        way, kind, moment = case.split(" | ")
        began = time.monotonic()
        self._tidy()
        try:
            self.mark(MOMENTS[moment])
            if way == IN_PROCESS:
                outcome, problems = self._in_process(kind, MOMENTS[moment])
            else:
                outcome, problems = self._deployed(self.crew(way), kind, MOMENTS[moment])
        except MissedError as missed:
            self.control.faults()
            return _row(NOT_REACHED, "no strike", began, [str(missed)])
        except Patience as late:
            outcome, problems = "no end", [str(late)[:500]]
        self.control.faults()
        return _row(BROKEN if problems else HELD, outcome, began, problems)

    def mark(self, moment: Moment) -> None:
        """Have the emulator tell when the moment has come, and hold its request back."""
        self.control.faults(
            {
                "match": {"method": moment.method, "path": moment.path},
                "nth": [moment.nth],
                "effect": {"delay": moment.held},
            }
        )

    def crew(self, way: str) -> Crew:
        """Return who runs flows in this way, at work and looked after."""
        if way not in self._crews:
            LOGS.mkdir(parents=True, exist_ok=True)
            self._crews[way] = Crew(WAYS[way], self.environ, LOGS / f"kills-{way}.log")
            self._crews[way].deploy()
            deployed.automate([crew.way for crew in self._crews.values()])
        return self._crews[way]

    def close(self) -> None:
        """Stop everything."""
        for crew in self._crews.values():
            crew.stop()
        self.emulator.stop()

    def _in_process(self, kind: str, moment: Moment) -> tuple[str, list[str]]:
        path = self._folder / "report.json"
        path.unlink(missing_ok=True)
        before = {job["name"] for job in look(self.control).jobs}
        process = self._start(path)
        self._await_strike(moment, process)
        if process.poll() is not None:
            raise MissedError(f"the run ended with {process.returncode} first")
        struck = time.time()
        self._strike(kind, [process.pid], None, "")
        code = ended(process, END_SECONDS)
        if kind == "SIGKILL":
            if code != -signal.SIGKILL:
                raise MissedError(f"the run ended with {code} first")
            time.sleep(moment.held)  # What it had sent takes effect yet.
            return "killed", self._after_expiry()
        seen = settled(self.control, 20)
        mine = [job for job in seen.jobs if job["name"] not in before]
        report = json.loads(path.read_text(encoding="utf-8"))
        problems = broken_promises(seen) + untruths(code, report, seen._replace(jobs=mine))
        problems += outstayed(seen, struck, BOUND_SECONDS)
        if kind in _TO_THE_RUN and code == 0 and moment not in _LATE:
            problems.append(f"{kind} was to end it, and it completed")
        return f"{code} {report['state']}", problems

    def _start(self, report: Path) -> subprocess.Popen[bytes]:
        words = [word for setting in QUICK for word in ("--set", setting)]
        command = [sys.executable, "-m", "cli", "run", "--config", str(PROFILE), *words]
        LOGS.mkdir(parents=True, exist_ok=True)
        with (LOGS / "kills-run.log").open("a") as log:
            return subprocess.Popen(
                [*command, "--report", str(report)],
                env={**self.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _deployed(self, crew: Crew, kind: str, moment: Moment) -> tuple[str, list[str]]:
        run = deployed.schedule(crew.way.finetune)
        try:
            self._await_strike(moment, None)
        except MissedError:
            deployed.cancel(run)  # It must not meet the next case's moment.
            self._end(run)
            raise
        pids = crew.flows()
        if kind in _TO_THE_RUN and not pids:
            deployed.cancel(run)
            self._end(run)
            raise MissedError("its process had ended")
        wall = time.time()
        self._strike(kind, pids, crew, run)
        struck = time.monotonic()
        end = self._end(run)
        if kind in _KILLED and end == "completed" and deployed.attempts(run) < 2:
            raise MissedError("the run had completed")
        bound = BOUND_SECONDS
        if kind in _HOSTS_DEATH:
            bound += LATE_HEARTBEATS * deployed.HEARTBEAT_SECONDS
        seen = settled(self.control, max(bound - (time.monotonic() - struck), 20.0))
        problems = broken_promises(seen, [run]) + outstayed(seen, wall, bound)
        problems += untrue_end(end, run, deployed.ENDPOINT_PREFIX, seen)
        problems += self._unlike(kind, moment, run, end)
        if kind not in _ENDING and kind != "emulator SIGKILL":
            problems += retrained(seen, run)
        return end, problems

    def _unlike(self, kind: str, moment: Moment, run: str, end: str) -> list[str]:
        """Say how the end of a run differs from the one that it was to have."""
        wanted = {"cancelled"} if kind in _ENDING else {"completed"}
        if kind in _ENDING and moment in _LATE:
            wanted.add("completed")  # Its cleanup is not interrupted, and is its last act.
        if kind == "emulator SIGKILL" and end == "failed":
            return unclear(deployed.message(run))
        return [] if end in wanted else [f"{end}, not {' or '.join(sorted(wanted))}"]

    def _end(self, run: str) -> str:
        """Wait until the run has ended for good: one that crashed is started again."""
        ends = ("cancelled", "completed", "failed", deployed.GIVEN_UP)
        return awaited(
            lambda: now if (now := deployed.state(run)) in ends else None,
            END_SECONDS,
            lambda: f"{' or '.join(ends)}: {run} is {deployed.state(run)}",
            every=1.0,
        )

    def _await_strike(self, moment: Moment, process: subprocess.Popen[bytes] | None) -> None:
        def look_for_it() -> bool | None:
            if process is not None and process.poll() is not None:
                raise MissedError(f"the run ended with {process.returncode} first")
            return self.control.struck() > 0 or None

        try:
            awaited(look_for_it, STRIKE_SECONDS, lambda: f"{moment}")
        except Patience as late:
            if process is not None:
                process.kill()
            raise MissedError(str(late)) from late
        time.sleep(moment.after)

    def _strike(self, kind: str, pids: list[int], crew: Crew | None, run: str) -> None:
        signals = {
            "SIGKILL": [signal.SIGKILL],
            "SIGTERM": [signal.SIGTERM],
            "SIGINT": [signal.SIGINT],
            "double SIGTERM": [signal.SIGTERM, signal.SIGTERM],
        }
        if kind in signals:
            for number in signals[kind]:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(0.3)
        elif kind == "Prefect server SIGKILL":
            self.prefect.kill()
            time.sleep(AWAY_SECONDS)
            self.prefect.start()
        elif kind == "emulator SIGKILL":
            self.emulator.kill()
            time.sleep(AWAY_SECONDS)
            self.control = self.emulator.start()
            self.control.faults()
        elif kind == "UI cancel":
            deployed.cancel(run)
        elif crew is not None:
            if kind == "worker SIGTERM":
                crew.stop(90)
            else:
                crew.kill()
            crew.start()

    def _tidy(self) -> None:
        """Put away what a case that was broken or missed has left: the next one is not to blame."""
        if settled(self.control, 20).open():
            self._after_expiry()

    def _after_expiry(self) -> list[str]:
        """Sweep as of the minute when the endpoints of now have expired; the job ends by itself."""
        from lifecycle.auth import WorkspaceSpec, authenticate
        from lifecycle.config import load_config
        from lifecycle.sweep import sweep

        awaited(
            lambda: None if any(job["ended"] is None for job in look(self.control).jobs) else True,
            60,
            lambda: "the job ends by itself",
        )
        ref = authenticate(WorkspaceSpec()).ref
        minutes = load_config(PROFILE, QUICK).endpoint.expires_after_minutes + 1
        swept = sweep(ref, True, datetime.now(UTC) + timedelta(minutes=minutes))
        problems = [f"not swept: {failure.name}: {failure.error}" for failure in swept.failed]
        return problems + broken_promises(settled(self.control, 20))


def _row(verdict: str, outcome: str, began: float, problems: list[str]) -> dict[str, Any]:
    seconds = round(time.monotonic() - began, 1)
    return {"verdict": verdict, "outcome": outcome, "seconds": seconds, "problems": problems}


@contextmanager
def stage() -> Iterator[Scene]:
    """Give the scene, and stop everything after."""
    heed_signals()
    with tempfile.TemporaryDirectory(prefix="finetune-campaign-") as name:
        folder = Path(name)
        latency = folder / "latency.yaml"
        latency.write_text(json.dumps(SECONDS))
        prefect = PrefectServer(folder / "prefect", free_port())
        emulator = EmulatorProcess(folder / "emulator", free_port(), str(latency))
        try:
            prefect.start()
            scene = Scene(folder, prefect, emulator)
            try:
                yield scene
            finally:
                scene.close()
        finally:
            prefect.stop()
            emulator.stop()


if __name__ == "__main__":
    sys.exit(main())
