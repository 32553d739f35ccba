"""What is true, as the emulator saw it, and whether a run kept its promises and told the truth."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from azureml_emulator.control import Control

from lifecycle.endpoint import OWNER_TAG
from lifecycle.errors import FinetuneError
from lifecycle.names import endpoint_name
from lifecycle.report import EXIT_CODES, EXIT_STILL_BILLING

# Nodes that nobody works on are given back in this time.
SETTLE_SECONDS = 5.0

# What Python and Prefect raise for a signal.
_SIGNALS = ("KeyboardInterrupt", "TerminationSignal")
_FIRST_ENDPOINT = re.compile("/onlineEndpoints/([^/]+-a1)(?:/|$)")

Row = dict[str, Any]


class Seen(NamedTuple):
    """What the emulator saw.

    Args:
        meters: Every meter ever.
        jobs: Every job ever, oldest first.
        models: Every registered model.
    """

    meters: list[Row]
    jobs: list[Row]
    models: list[Row]

    def open(self) -> list[str]:
        """Return the names of what is billed still."""
        return [meter["resource"] for meter in self.meters if meter["stopped"] is None]


def look(control: Control) -> Seen:
    """Ask the emulator what it saw."""
    inventory = control.inventory()
    return Seen(control.ledger()["meters"], inventory["jobs"], inventory["models"])


def settled(control: Control, seconds: float = SETTLE_SECONDS) -> Seen:
    """Look until no meter is open, for so many seconds at most."""
    end = time.monotonic() + seconds
    while (seen := look(control)).open() and time.monotonic() < end:
        time.sleep(0.1)
    return seen


def broken_promises(seen: Seen, owners: Iterable[str] | None = None) -> list[str]:
    """Return what the guarantees forbid and was seen: a meter left open, a job too many.

    Args:
        seen: What the emulator saw.
        owners: The runs whose jobs are judged; all where not given.
    """
    found = [f"still billed: {_tail(name)}" for name in seen.open()]
    by_owner: dict[str, list[Row]] = {}
    for job in seen.jobs:
        by_owner.setdefault(job["tags"].get(OWNER_TAG, ""), []).append(job)
    for owner, jobs in by_owner.items():
        if owners is None or owner in set(owners):
            found += _too_many(jobs)
    return found


def untruths(code: int, report: Row, seen: Seen) -> list[str]:
    """Return what ``finetune run`` said, by report and exit code, and is not so."""
    state, billing = report["state"], report["still_billing"]
    found = []
    if code != (EXIT_STILL_BILLING if billing else EXIT_CODES.get(state)):
        found.append(f"exit code {code} for {state}, still billing {billing}")
    if billing and not seen.open():
        found.append(f"says that these may be billed, and none is: {billing}")
    if state == "Completed":
        found += _incomplete(report, seen)
    elif not _is_clear(report["error"]):
        found.append(f"{state} with no clear error: {report['error']}")
    if state == "Refused" and (seen.meters or seen.jobs or seen.models):
        found.append("Refused, and something was made")
    live = [job["name"] for job in seen.jobs if job["ended"] is None]
    if live and not billing:
        found.append(f"still running, and not said: {live}")
    return found


def retrained(seen: Seen, run_id: str) -> list[str]:
    """Return what tells that a run did not come back to the job it had."""
    jobs = [job["name"] for job in seen.jobs if job["tags"].get(OWNER_TAG) == run_id]
    is_one = len(jobs) == 1 and jobs[0].endswith("-a1")
    return [] if is_one else [f"it had one job to come back to, and these were: {jobs}"]


def outstayed(seen: Seen, struck: float, seconds: float) -> list[str]:
    """Return the endpoints of the attempt that a blow hit which billed for longer than they may.

    That attempt is each run's first; its endpoint may come into being after the blow.

    Args:
        seen: What the emulator saw.
        struck: When the blow fell, in seconds since 1970.
        seconds: How long they may, from the blow or, where that came later, their birth.
    """
    found = []
    for meter in seen.meters:
        began, stopped = _seconds(meter["began"]), _seconds(meter["stopped"])
        first = _FIRST_ENDPOINT.search(meter["resource"])
        billed = stopped - max(began, struck)
        if first and billed > seconds:
            found.append(f"{first[1]} was billed for {billed:.0f} s more, not {seconds:g}")
    return found


def unclear(message: str) -> list[str]:
    """Return what tells that a failed run does not say an error of ours, by its state's message."""
    names = {kind.__name__ for kind in _kinds(FinetuneError)}
    is_ours = any(f"{name}:" in message for name in names)
    return [] if is_ours else [f"failed with no error of ours: {message[:300]}"]


def untrue_end(state: str, run_id: str, endpoint_prefix: str, seen: Seen) -> list[str]:
    """Return what the state of a deployed run says that is not so.

    Args:
        state: Its type in Prefect, in lower case.
        run_id: The flow run's id.
        endpoint_prefix: Of the names of its endpoints.
        seen: What the emulator saw.
    """
    jobs = [job for job in seen.jobs if job["tags"].get(OWNER_TAG) == run_id]
    found = [f"{state}, and its job goes on: {job['name']}" for job in jobs if job["ended"] is None]
    if state != "completed":
        return found
    if not jobs or jobs[-1]["status"] != "Completed":
        found.append(f"completed, and its job is not: {jobs}")
    if not any(model["tags"].get(OWNER_TAG) == run_id for model in seen.models):
        found.append("completed, and no model of its own is registered")
    name = endpoint_name(endpoint_prefix, run_id, 1).removesuffix("1")
    if not any(_tail(meter["resource"]).startswith(name) for meter in seen.meters):
        found.append("completed, and it never had an endpoint")
    return found


def _incomplete(report: Row, seen: Seen) -> list[str]:
    """Return what a completed run says that it has done, and nobody saw."""
    job, model, endpoint = report["job"], report["registered_model"], report["endpoint"]
    found = []
    if not any((one["name"], one["status"]) == (job["name"], "Completed") for one in seen.jobs):
        found.append(f"the job {job['name']} is not Completed")
    known = (model["name"], model["version"], job["name"])
    if not any((one["name"], one["version"], one["job"]) == known for one in seen.models):
        found.append(f"the model {model['name']} is not registered")
    ends = [
        meter["stopped"]
        for meter in seen.meters
        if meter["kind"] == "endpoint" and _tail(meter["resource"]) == endpoint["name"]
    ]
    if not ends:
        found.append(f"the endpoint {endpoint['name']} never was")
    if endpoint["deleted"] and None in ends:
        found.append(f"the endpoint {endpoint['name']} is there")
    if not all(response["reply"] for response in report["responses"] or [{"reply": ""}]):
        found.append("nothing was replied")
    return found


def _is_clear(error: Row | None) -> bool:
    """Say whether it is one of our errors, which have a remedy, or tells of a signal."""
    if error is None or not error["message"]:
        return False
    if error["code"] in _SIGNALS:
        return True
    return error["code"] in _codes(FinetuneError) and bool(error.get("remedy"))


def _codes(kind: type[FinetuneError]) -> set[str]:
    return {one.code for one in _kinds(kind)}


def _kinds(kind: type[FinetuneError]) -> set[type[FinetuneError]]:
    return {kind}.union(*(_kinds(below) for below in kind.__subclasses__()))


def _seconds(text: str | None) -> float:
    """Read a moment of the ledger; one that has not come is never."""
    return math.inf if text is None else datetime.fromisoformat(text).timestamp()


def _too_many(jobs: list[Row]) -> list[str]:
    found = []
    for earlier, later in pairwise(jobs):
        if earlier["status"] == "Completed":
            found.append(f"{later['name']} was submitted after {earlier['name']} had completed")
        elif earlier["ended"] is None or later["created"] < earlier["ended"]:
            found.append(f"{later['name']} was submitted while {earlier['name']} was live")
    return found


def _tail(resource: str) -> str:
    return resource.rstrip("/").rpartition("/")[2]
