"""The report as Markdown with its pictures inside: what the page of a flow run shows.

Prefect's pages let tables, ``<details>`` and pictures with a ``data:`` address through, and no
inline SVG, style or script. Whatever a model, a data set or a person wrote is escaped: a reply must
not draw a picture from somewhere, or a table of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from .pictures import data_uri, loss_picture, timeline_picture
from .wording import (
    closing,
    date_time,
    duration,
    figure,
    money,
    next_steps,
    percent,
    plain,
    run_seconds,
    studio_links,
)

SHOWN_RESPONSES = 10
_LONGEST_REPLY = 700
_LONGEST_MESSAGE = 6_000
_MARKS = {"good": "✔", "warning": "⚠", "bad": "✖"}


def render(report: Mapping[str, Any]) -> str:
    """Return the page for a report of any state.

    Args:
        report: The report as JSON, of a run that has ended.
    """
    sections = (
        _outcome(report),
        _error(report),
        _section("What to do next", [f"- {plain(step)}" for step in next_steps(report)]),
        _training(report),
        _replies(report),
        _time(report),
        _cost(report),
        _used_and_made(report),
    )
    return "\n".join(line for section in sections for line in section)


def _section(title: str, lines: Iterable[str]) -> list[str]:
    body = list(lines)
    return [f"## {title}", "", *body, ""] if body else []


def _outcome(report: Mapping[str, Any]) -> Iterator[str]:
    model, data, left = report["model"], report["dataset"], closing(report)
    what = plain(model["name"]) if model else "Fine-tuning run"
    yield f"# {what} on {plain(data['name'])}" if data else f"# {what}"
    yield ""
    said = f"**{report['state']}** in {duration(run_seconds(report))}"
    made = report["registered_model"]
    if made:
        said += f": {plain(made['name'])} version {plain(made['version'])} is registered"
    yield f"{said}."
    yield ""
    yield f"{_MARKS[left.tone]} **{left.title}.** {plain(left.text)}"
    yield ""
    found, cost = report["evaluation"], report["cost"]
    cells = {}
    if found:
        cells["Exact match"] = _came(
            percent(found["exact_match_before"]),
            percent(found["exact_match_after"]),
            found["exact_match_before"] is not None,
        )
        before = found["rouge_l_before"]
        cells["ROUGE-L"] = _came(
            f"{before or 0:.2f}", f"{found['rouge_l_after']:.2f}", before is not None
        )
        cells["Asked about"] = f"{found['n']} conversations"
    if cost:
        cells["Cost, at list price"] = f"**{money(cost['total_usd'])}**"
    if cells:
        yield from _table(list(cells), [list(cells.values())])
        yield ""
    for warning in report["warnings"]:
        yield f"- ⚠ {plain(warning)}"
    if report["warnings"]:
        yield ""


def _came(before: str, after: str, has_before: bool) -> str:
    return f"{before} → **{after}**" if has_before else f"**{after}**"


def _error(report: Mapping[str, Any]) -> list[str]:
    error = report["error"]
    if error is None:
        return []
    titles = {"Refused": "Why it was refused", "Completed": "What went wrong at the end"}
    rows = [["error", _code(error["code"])]]
    if error["where"]:
        rows.append(["where", plain(error["where"])])
    # The message's first line says it; what follows is the tail of a log.
    first, *rest = error["message"][:_LONGEST_MESSAGE].split("\n")
    rows.append(["what", plain(first, 2000)])
    rows += [["note", plain(note, 1000)] for note in error["notes"]]
    lines = [*_table(["", ""], rows), ""]
    if rest:
        text = "\n".join(rest)
        fence = "`" * (3 + max((len(run) for run in re.findall("`+", text)), default=0))
        lines += [f"{fence}text", text, fence]
    return _section(titles.get(report["state"], "Why it ended"), lines)


def _training(report: Mapping[str, Any]) -> list[str]:
    lines = []
    picture = loss_picture(report["metric_history"])
    if picture is not None:
        lines += [f"![loss over the training steps]({data_uri(picture)})", ""]
    metrics = report["metrics"]
    if metrics:
        ranked = sorted(metrics, key=lambda name: (not name.endswith("loss"), name))
        rows = [[plain(name), figure(metrics[name])] for name in ranked]
        lines += [*_table(["metric", "last value"], rows, "l", "r"), ""]
    training = report["training"]
    if training and lines:
        parameters = sorted(training["parameters"].items())
        rows = [[plain(name), plain(str(value))] for name, value in parameters]
        lines += _folded(
            f"Parameters of {training['component']}, version {training['version']}",
            _table(["parameter", "value"], rows),
        )
    return _section("Training", lines)


def _replies(report: Mapping[str, Any]) -> list[str]:
    responses = report["responses"]
    if not responses:
        return []
    has_before = responses[0]["before"] is not None
    head = ["asked", *(["before training"] if has_before else []), "after", "the data set says"]
    rows = []
    for response in responses[:SHOWN_RESPONSES]:
        is_right = response["reply"].split() == response["reference"].split()
        rows.append(
            [
                f"**{_reply(response['prompt'])}**",
                *([_reply(response["before"] or "")] if has_before else []),
                f"{'✔ ' if is_right else ''}{_reply(response['reply'])}",
                _reply(response["reference"]),
            ]
        )
    lines = [
        "Asked through the endpoint, about conversations that it was not trained on.",
        "",
        *_table(head, rows),
    ]
    more = len(responses) - len(rows)
    if more:
        lines += ["", f"And {more} more."]
    return _section("What it learned", lines)


def _reply(text: str) -> str:
    return plain(text, _LONGEST_REPLY) or "(nothing)"


def _time(report: Mapping[str, Any]) -> list[str]:
    if not report["steps"]:
        return []
    picture = data_uri(timeline_picture(report))
    return _section("Where the time went", [f"![what the run did when]({picture})"])


def _cost(report: Mapping[str, Any]) -> list[str]:
    cost = report["cost"]
    if cost is None:
        return []
    rows = [
        ["Training", money(cost["training_usd"])],
        ["Endpoint", money(cost["endpoint_usd"])],
        ["**This run**", f"**{money(cost['total_usd'])}**"],
    ]
    if report["endpoint"]:
        forgotten = "One day of the endpoint, had it been forgotten"
        rows.append([forgotten, money(cost["forgotten_day_usd"])])
    said = [f"- {plain(line)}" for line in cost["assumptions"]]
    return _section("Cost on Azure", [*_table(["", ""], rows, "l", "r"), "", *said])


def _used_and_made(report: Mapping[str, Any]) -> list[str]:
    model, job, compute = report["model"], report["job"], report["compute"]
    made, endpoint, links = report["registered_model"], report["endpoint"], studio_links(report)
    rows = []
    if report["workspace"]:
        rows.append(["workspace", plain(report["workspace"]["ref"]["name"]), "used"])
    if model:
        rows.append(["foundation model", _code(model["id"]), "used"])
    if compute:
        where = f"{compute['nodes']} × {compute['size']} on {compute['name'] or 'serverless'}"
        rows.append(["compute", plain(where), "made" if compute["created"] else "used"])
    if job:
        name = _link(job["display_name"], links.get("job"))
        rows.append(["training job", f"{name} {_code(job['name'])}", job["status"]])
    if made:
        name = _link(f"{made['name']} version {made['version']}", links.get("model"))
        rows.append(["registered model", name, "made"])
    if endpoint:
        rows.append(
            ["endpoint", _link(endpoint["name"], links.get("endpoint")), _fate(report, endpoint)]
        )
    for file in (report["dataset"] or {}).get("files", []):
        rows.append(["data", f"{plain(file['split'])}, {file['rows']:,} rows", "used"])
    if report["flow_run_id"]:
        rows.append(["flow run", _code(report["flow_run_id"]), ""])
    return _section("What was used, made and deleted", _table(["", "", ""], rows) if rows else [])


def _fate(report: Mapping[str, Any], endpoint: Mapping[str, Any]) -> str:
    if endpoint["deleted"]:
        return f"**deleted**, seen gone at {date_time(endpoint['deleted_at'])}"
    if f"onlineEndpoints/{endpoint['name']}" in report["still_billing"]:
        return "**not seen gone**"
    return "**kept, and billed**" if endpoint["created"] else "not made"


def _link(text: str, url: str | None) -> str:
    return plain(text) if url is None else f"[{plain(text)}]({url})"


def _code(text: str) -> str:
    return f"`{text.replace('`', '').replace('|', '')}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *sides: str) -> list[str]:
    marks = ["--:" if side == "r" else "---" for side in sides or ["l"] * len(head)]
    return [f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    # Inside an element's own line Markdown's escapes are text.
    return ["<details>", f"<summary>{escape(title)}</summary>", "", *lines, "", "</details>"]
