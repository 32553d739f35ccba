"""The report in words and figures: the same on the terminal, on the page and in Prefect."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from .phases import moment

Tone = Literal["good", "warning", "bad"]

_UNSEEN = re.compile(
    r"[^\S\n]+|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_ADDRESS = re.compile(r"(https://[^\s<>|`\\]*[^\s<>|`\\.,;:!?()\[\]])")

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


def excerpt(text: str, most: int = 240) -> str:
    """Cut *text* to one line, without what would move a terminal's cursor."""
    line = " ".join(_UNSEEN.sub(" ", text[: most * 2]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def plain(text: str, most: int = 600) -> str:
    """Return an excerpt of *text* with nothing in it that Markdown would read as its own.

    An address stays one that can be clicked.
    """
    parts = _ADDRESS.split(excerpt(text, most))
    return "".join(
        f"<{part}>" if number % 2 else re.sub(r"([\\`*_{}\[\]<>|#!&~])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


def clock_time(written: str) -> str:
    """Return the time of day of a moment of the report, in UTC as all times are shown."""
    return f"{moment(written).astimezone(UTC):%H:%M:%S} UTC"


def date_time(written: str) -> str:
    """Return a moment of the report with its date, in UTC."""
    return f"{moment(written).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


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


def next_steps(report: Mapping[str, Any]) -> list[str]:
    """Say what a person may do now, the most urgent first.

    Args:
        report: The report as JSON, of a run that has ended.
    """
    endpoint, made, error = report["endpoint"], report["registered_model"], report["error"]
    steps = []
    if report["still_billing"]:
        steps.append(
            f"See to {', '.join(report['still_billing'])} now: run `finetune sweep --apply`, or "
            "delete it in Azure ML studio."
        )
    if error is not None and error["remedy"]:
        steps.append(error["remedy"])
    if report["state"] == "Refused":
        steps.append("Nothing was created. Change the parameters and start another run.")
    elif report["state"] == "Failed":
        steps.append(
            "Retry this run once that is mended: it takes what is finished and comes back to a job "
            "that is live or complete. With other parameters, start another run."
        )
    elif report["state"] == "Interrupted":
        steps.append("Start another run when you want one; a retry of this one is one, too.")
    elif made is not None:
        steps.append(
            f"Serve the new model where it is needed, as azureml:{made['name']}:{made['version']}."
        )
        if endpoint is not None and endpoint["created"] and not endpoint["deleted"]:
            steps.append(f"Delete the endpoint {endpoint['name']} when you are done: it is billed.")
        if (report["evaluation"] or {}).get("exact_match_before", 0) is None:
            steps.append("Set evaluation.baseline to see what the training changed.")
    return steps


def studio_links(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the pages in Azure ML studio: of the ``job``, the ``model``, the ``endpoint``.

    The job's is Azure's own; the others follow studio's addresses as its documentation shows them.
    Only what a browser opens as a page, and of an endpoint only while it is there.
    """
    links = {}
    job, made, endpoint = report["job"], report["registered_model"], report["endpoint"]
    home = urlsplit((report["workspace"] or {}).get("studio_url") or "")

    def page(path: str) -> str:
        return home._replace(path=quote(path, safe="/:")).geturl().replace(")", "%29")

    if job and (job["studio_url"] or "").startswith("https://"):
        links["job"] = job["studio_url"].replace(")", "%29")
    if home.scheme == "https":
        if made:
            links["model"] = page(f"/model/{made['name']}:{made['version']}/details")
        if endpoint and endpoint["created"] and not endpoint["deleted"]:
            links["endpoint"] = page(f"/endpoints/realtime/{endpoint['name']}/detail")
    return links
