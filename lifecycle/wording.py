"""The report in words and figures: the same on the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from .phases import moment

Tone = Literal["good", "warning", "bad"]

JOB_ENDED = frozenset({"Completed", "Failed", "Canceled"})
TONES: Mapping[str, Tone] = {
    "Completed": "good",
    "Failed": "bad",
    "Refused": "warning",
    "Interrupted": "warning",
    "Running": "warning",
}


class Closing(NamedTuple):
    """What the run leaves behind, in a sentence, and how glad of it a person may be."""

    tone: Tone
    title: str
    text: str


def duration(seconds: float) -> str:
    """Return a span as a person says it: ``0.4 s``, ``12 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if not seconds:
        return "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(usd: float | None) -> str:
    """Return a price: ``unknown`` where it is not known, and never 0.00 for a little."""
    if usd is None:
        return "unknown"
    if 0 < usd < 0.01:
        return "< 0.01 USD"
    return f"{usd:,.2f} USD"


def figure(value: float | str) -> str:
    """Return a metric with four digits that count; NaN and infinities as they are written."""
    number = float(value)
    if not math.isfinite(number):
        return str(value)
    if number and abs(number) < 1e-3:
        return f"{number:.2e}"
    return f"{number:,.0f}" if abs(number) >= 1e4 else f"{number:.4g}"


def percent(share: float | None) -> str:
    """Return a share as per cent, a dash where there is none."""
    return "–" if share is None else f"{100 * share:.0f} %"


def clock_time(written: str) -> str:
    """Return a time of the report as the clock on this machine shows it."""
    return f"{moment(written).astimezone():%H:%M:%S}"


def run_seconds(report: Mapping[str, Any]) -> float:
    """Return how long the run took, 0 for one that has not ended."""
    if report["ended_at"] is None:
        return 0.0
    return (moment(report["ended_at"]) - moment(report["began_at"])).total_seconds()


def closing(report: Mapping[str, Any]) -> Closing:
    """Say what is left running: "nothing" only where it was seen.

    Args:
        report: The report as JSON.
    """
    endpoint, job, compute = report["endpoint"], report["job"], report["compute"] or {}
    if report["still_billing"]:
        return Closing(
            "bad",
            "Something may still be billing",
            f"{', '.join(report['still_billing'])}: not seen gone. "
            "Run `finetune sweep --apply`, or delete it in Azure ML studio.",
        )
    if job is None and endpoint is None:
        return Closing("good", "Nothing is left running", "No job and no endpoint were made.")
    kept = endpoint is not None and endpoint["created"] and not endpoint["deleted"]
    unfinished = job is not None and job["status"] not in JOB_ENDED
    nodes = compute.get("min_instances", 0)
    left = [
        *([_kept_endpoint(report)] if kept else []),
        *([f"The job {job['name']} was last seen {job['status']}."] if unfinished else []),
        *([f"The cluster {compute['name']} keeps {nodes} node(s) up."] if nodes else []),
    ]
    if left:
        return Closing("warning", "Left running", " ".join(left))
    seen = [
        f"The job is {job['status']}" if job else "No job was made",
        f"the endpoint was seen gone at {clock_time(endpoint['deleted_at'])}"
        if endpoint and endpoint["deleted"]
        else "no endpoint was made",
    ]
    return Closing("good", "Nothing is left running", f"{', and '.join(seen)}.{_idle(compute)}")


def _kept_endpoint(report: Mapping[str, Any]) -> str:
    cost = report["cost"] or {}
    return (
        f"The endpoint {report['endpoint']['name']} was kept, as asked: "
        f"{money(cost.get('forgotten_day_usd'))} a day until you delete it."
    )


def _idle(compute: Mapping[str, Any]) -> str:
    if not compute.get("name"):
        return ""
    return f" The cluster {compute['name']} gives its nodes back once they are idle."
