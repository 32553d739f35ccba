"""The report on the terminal, when the run has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lifecycle.phases import PHASES, Phase, end_of, read_phases, seconds_of
from lifecycle.pulse import sparkline
from lifecycle.wording import (
    TONES,
    closing,
    duration,
    figure,
    money,
    percent,
    run_seconds,
)

SHOWN_RESPONSES = 3
_STYLES = {"good": "green", "warning": "yellow", "bad": "red"}
_BAR_WIDTH = 16
_LONGEST_TEXT = 160
_NAMED_STEPS = 3


def show_summary(console: Console, report: Mapping[str, Any]) -> None:
    """Print the report.

    Args:
        console: Where to.
        report: The report as JSON.
    """
    console.print()
    console.print(_headline(report))
    for title, section in (
        ("Run", _facts(report)),
        ("Training", _training(report)),
        ("Time", _time(report)),
        ("Cost on Azure, at list price", _cost(report)),
        ("What it learned", _responses(report)),
    ):
        if section is not None:
            console.print()
            console.print(Rule(Text(title, style="bold"), align="left", style="dim"))
            console.print(Padding(section, (0, 0, 0, 1)))
    console.print()
    left = closing(report)
    last = Text.assemble((f"{left.title}.", f"bold {_STYLES[left.tone]}"), f" {left.text}")
    console.print(last)


def _headline(report: Mapping[str, Any]) -> Text:
    style = _STYLES[TONES[report["state"]]]
    text = Text(f"{report['state']}", style=f"bold {style}")
    return text.append(f" in {duration(run_seconds(report))}", style="default not bold")


def _facts(report: Mapping[str, Any]) -> Table | None:
    model, data = report["model"], report["dataset"]
    if model is None or data is None:
        return None
    grid = _grid("", "")
    described = Text(f"{model['name']} version {model['version']}")
    if model["description"]:
        described.append(f"\n{model['description']}", style="dim")
    grid.add_row("model", described)
    rows = ", ".join(f"{file['split']} {file['rows']:,}" for file in data["files"])
    grid.add_row("data", f"{data['name']}: {rows}")
    compute = report["compute"]
    if compute is not None:
        where = compute["name"] or "serverless"
        grid.add_row("compute", f"{compute['nodes']} × {compute['size']} on {where}")
    if report["registered_model"] is not None:
        made = report["registered_model"]
        grid.add_row("registered", Text(f"{made['name']} version {made['version']}", style="bold"))
    for warning in report["warnings"]:
        grid.add_row(Text("warning", style="yellow"), Text(warning, style="yellow"))
    return grid


def _responses(report: Mapping[str, Any]) -> Table | None:
    responses, found = report["responses"], report["evaluation"]
    if not responses:
        return None
    grid = Table.grid()
    if found is not None:
        grid.add_row(_scores(found))
    has_before = responses[0]["before"] is not None
    columns = ["asked", *(["before"] if has_before else []), "after", "the data set says"]
    table = Table(*columns, box=box.SIMPLE_HEAD, show_lines=True, pad_edge=False, expand=True)
    for column in table.columns:
        column.ratio = 1
        column.overflow = "fold"
    for response in responses[:SHOWN_RESPONSES]:
        is_right = response["reply"].split() == response["reference"].split()
        asked = Text(_cut(response["prompt"]), style="bold")
        if response["earlier"]:
            asked.append(f"\n(after {len(response['earlier'])} turns)", style="not bold dim")
        cells = [asked]
        if has_before:
            cells.append(Text(_cut(response["before"]), style="dim"))
        cells.append(Text(_cut(response["reply"]), style="green" if is_right else ""))
        table.add_row(*cells, Text(_cut(response["reference"])))
    grid.add_row(table)
    return grid


def _scores(found: Mapping[str, Any]) -> Text:
    text = Text("exact match ")
    if found["exact_match_before"] is not None:
        text.append(f"{percent(found['exact_match_before'])} → ")
    text.append(percent(found["exact_match_after"]), style="bold")
    text.append("   ROUGE-L ")
    if found["rouge_l_before"] is not None:
        text.append(f"{found['rouge_l_before']:.2f} → ")
    text.append(f"{found['rouge_l_after']:.2f}", style="bold")
    return text.append(f"   {found['n']} conversations that it was not trained on", style="dim")


def _training(report: Mapping[str, Any]) -> Table | None:
    if not report["metrics"]:
        return None
    grid = _grid("", "", "")
    for name in sorted(report["metrics"], key=lambda name: (not name.endswith("loss"), name)):
        value = report["metrics"][name]
        points = [float(point) for _, point in report["metric_history"].get(name, [])]
        line = sparkline(points, 40)
        came = f"{figure(points[0])} → {figure(value)}" if line else figure(value)
        style = "cyan" if "loss" in name else "dim"
        grid.add_row(name, came, Text(line, style=style))
    return grid


def _time(report: Mapping[str, Any]) -> Table | None:
    phases = [phase for phase in read_phases(report) if phase.steps]
    if not phases:
        return None
    longest = max(phase.seconds for phase in phases) or 1.0
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for phase in phases:
        words = ", ".join(f"{what} {duration(spent)}" for what, spent in _longest(phase, report))
        style = "red" if phase.state == "failed" else "cyan"
        length = math.ceil(_BAR_WIDTH * phase.seconds / longest)
        grid.add_row(
            phase.name,
            duration(phase.seconds),
            Text("━" * length, style=style),
            Text(words, style="dim"),
        )
    return grid


def _longest(phase: Phase, report: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return what took longest in a phase; in place of the job as a whole, its steps."""
    taken: dict[str, float] = {}
    until = end_of(report)
    for step in phase.steps:
        what = PHASES[phase.name][step["name"]]
        taken[what] = taken.get(what, 0.0) + seconds_of(step, until)
    inner = [step for step in (report["job"] or {}).get("steps", []) if step["began_at"]]
    if phase.name == "Train" and inner:
        taken.pop(PHASES["Train"]["stream_job"], None)
        taken |= {step["name"]: seconds_of(step, until) for step in inner}
    ranked = sorted(taken.items(), key=lambda item: -item[1])
    return [(what, spent) for what, spent in ranked if spent >= 0.05][:_NAMED_STEPS]


def _cost(report: Mapping[str, Any]) -> Table | None:
    cost = report["cost"]
    if cost is None:
        return None
    grid = _grid("", "")
    grid.columns[1].justify = "right"
    grid.add_row("training", money(cost["training_usd"]))
    grid.add_row("endpoint", money(cost["endpoint_usd"]))
    grid.add_row("this run", Text(money(cost["total_usd"]), style="bold"))
    if report["endpoint"] is not None:
        grid.add_row("one forgotten day of the endpoint", money(cost["forgotten_day_usd"]))
    return grid


def _grid(*columns: str) -> Table:
    grid = Table.grid(padding=(0, 2))
    for number, column in enumerate(columns):
        grid.add_column(column, style="dim" if number == 0 else "")
    return grid


def _cut(text: str, longest: int = _LONGEST_TEXT) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"
