"""Where the lines and bars of the page lie, as plain numbers; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .phases import PHASES, end_of, moment, seconds_of
from .wording import duration, figure

WIDTH, HEIGHT = 720.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 12.0, 28.0
MOST_LINES = 4
_TIME_MARKS = 6
_OF_A_DEPLOYMENT = ("deploy_model", "route_traffic", "invoke_endpoint")
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where it lies, in the drawing's units or in per cent, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One metric: its path in SVG's terms, its points, and its last value."""

    name: str
    path: str
    points: list[tuple[float, float]]
    last: str


@dataclass(frozen=True)
class Chart:
    """Metrics over training steps."""

    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True)
class Bar:
    """A step in time: from where to where, in per cent of the run."""

    label: str
    state: str
    left: float
    width: float
    seconds: str
    is_inner: bool


@dataclass(frozen=True)
class Lane:
    """A phase and its steps."""

    name: str
    bars: list[Bar]


def loss_chart(history: Mapping[str, Sequence[Sequence[Any]]]) -> Chart | None:
    """Lay out the losses over the training steps.

    Args:
        history: Step and value by metric, as the report has them; every one whose name ends in
            ``loss`` is drawn, four at most.

    Returns:
        None where there is nothing to draw.
    """
    series = {}
    for name in sorted(history, key=lambda name: (name != "loss", name)):
        points = [(int(step), float(value)) for step, value in history[name]]
        finite = [(step, value) for step, value in points if math.isfinite(value)]
        if name.endswith("loss") and len(finite) > 1:
            series[name] = finite
    if not series:
        return None
    series = dict(list(series.items())[:MOST_LINES])
    every = [point for points in series.values() for point in points]
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    y_marks = _round_marks(min(0.0, *(value for _, value in every)), max(v for _, v in every))
    low, high = y_marks[0], y_marks[-1]

    def place(step: float, value: float) -> tuple[float, float]:
        across = (step - first) / ((last - first) or 1)
        up = (value - low) / ((high - low) or 1)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    lines = []
    for name, points in series.items():
        placed = [place(*point) for point in points]
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in placed)
        lines.append(Line(name, path, placed, figure(points[-1][1])))
    steps = [mark for mark in _round_marks(first, last) if first <= mark <= last]
    return Chart(
        lines=lines,
        x_ticks=[Tick(place(mark, low)[0], f"{mark:g}") for mark in steps],
        y_ticks=[Tick(place(first, mark)[1], f"{mark:g}") for mark in y_marks],
    )


def timeline(report: Mapping[str, Any]) -> tuple[list[Lane], list[Tick]]:
    """Lay out the run's steps, and those of its job, in time.

    Args:
        report: The report as JSON, of a run that has ended.

    Returns:
        A lane for each phase that was begun, and the marks of the axis.
    """
    start, end = moment(report["began_at"]), end_of(report)
    whole = max((end - start).total_seconds(), 0.001)
    lanes = []
    for phase, words in PHASES.items():
        bars = [
            _bar(entry, words[entry["name"]] + _aside(entry, report), entry["state"], start, end)
            for entry in report["steps"]
            if entry["name"] in words
        ]
        if phase == "Train":
            bars += [
                _bar(entry, entry["name"], entry["status"], start, end, is_inner=True)
                for entry in (report["job"] or {}).get("steps", [])
                if entry["began_at"]
            ]
        if bars:
            lanes.append(Lane(phase, bars))
    apart = next((step for step in _TIME_STEPS if whole / step <= _TIME_MARKS), _TIME_STEPS[-1])
    marks = [number * apart for number in range(int(whole // apart) + 1)]
    return lanes, [
        Tick(round(100 * mark / whole, 3), duration(mark) if mark >= 60 else f"{mark} s")
        for mark in marks
    ]


def _aside(entry: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Name the deployment that a step is about, where it is another than the new model's."""
    endpoint = report["endpoint"] or {}
    began = moment(entry["began_at"])
    asked = [
        one["name"] for one in endpoint.get("deployments", []) if moment(one["began_at"]) <= began
    ]
    if entry["name"] not in _OF_A_DEPLOYMENT or not asked or asked[-1] == endpoint["deployment"]:
        return ""
    return f" ({asked[-1]})"


def _bar(
    entry: Mapping[str, Any],
    label: str,
    state: str,
    start: datetime,
    end: datetime,
    *,
    is_inner: bool = False,
) -> Bar:
    spent, whole = seconds_of(entry, end), (end - start).total_seconds() or 1.0
    left = 100 * (moment(entry["began_at"]) - start).total_seconds() / whole
    left = min(max(left, 0.0), 100.0)
    return Bar(
        label=label,
        state=state,
        left=round(left, 3),
        width=round(min(100 * spent / whole, 100 - left), 3),
        seconds=duration(spent),
        is_inner=is_inner,
    )


def _round_marks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers, evenly apart, from at or below *low* to at or above *high*."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if span / (power * factor) <= about)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
