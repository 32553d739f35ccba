"""The charts as pictures that carry all they need: SVG, as a data URI that Prefect's pages show.

They bring a ground of their own, since a page may be light or dark and does not tell a picture.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from .charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH, loss_chart, timeline

_LINES = ("#1666c5", "#d9661f", "#137a43", "#8250c4")
_INK, _SOFT, _GRID, _GROUND = "#191c20", "#5c6570", "#e1e5ea", "#ffffff"
_BARS = {"Failed": "#b3261e", "Interrupted": "#c98a12", "Canceled": "#c98a12"}
_LEGEND_HEIGHT = 26.0

_NAMES_WIDTH, _SPENT_WIDTH, _MARGIN = 216.0, 76.0, 12.0
_ROW, _BAR = 18.0, 10.0
_LONGEST_NAME = 34


def loss_picture(history: Mapping[str, Sequence[Sequence[Any]]]) -> str | None:
    """Draw the losses over the training steps; None where there is nothing to draw.

    Args:
        history: Step and value by metric, as the report has them.
    """
    chart = loss_chart(history)
    if chart is None:
        return None
    parts = []
    for tick in chart.y_ticks:
        parts.append(_rule(LEFT, tick.at, WIDTH - RIGHT, tick.at))
        parts.append(_text(LEFT - 8, tick.at + 4, tick.label, anchor="end"))
    for tick in chart.x_ticks:
        parts.append(_text(tick.at, HEIGHT - 8, tick.label, anchor="middle"))
    across = LEFT
    for line, colour in zip(chart.lines, _LINES, strict=False):
        parts.append(
            f'<path d="{line.path}" fill="none" stroke="{colour}" stroke-width="2" '
            'stroke-linejoin="round"/>'
        )
        words = f"{line.name} {line.last}"
        parts.append(_box(across, HEIGHT + 6, 10, 10, colour))
        parts.append(_text(across + 16, HEIGHT + 15, words, colour=_INK))
        across += 40 + 6.2 * len(words)
    parts.append(_text(across, HEIGHT + 15, "over training steps"))
    return _picture("Loss over the training steps", WIDTH, HEIGHT + _LEGEND_HEIGHT, parts)


def timeline_picture(report: Mapping[str, Any]) -> str:
    """Draw what the run did when, phase by phase, with the steps of its job.

    Args:
        report: The report as JSON, of a run that has ended.
    """
    lanes, ticks = timeline(report)
    left, width = _NAMES_WIDTH, WIDTH - _NAMES_WIDTH - _SPENT_WIDTH - _MARGIN
    rows = sum(1 + len(lane.bars) for lane in lanes)
    bottom = TOP + rows * _ROW
    parts = []
    for tick in ticks:
        across = left + width * tick.at / 100
        parts.append(_rule(across, TOP, across, bottom))
        parts.append(_text(across, bottom + 14, tick.label, anchor="middle"))
    top = TOP
    for lane in lanes:
        parts.append(_text(_MARGIN, top + 13, lane.name, colour=_INK, weight="bold"))
        top += _ROW
        for bar in lane.bars:
            indent = 16.0 if bar.is_inner else 8.0
            parts.append(_text(_MARGIN + indent, top + 13, _cut(bar.label)))
            colour = _BARS.get(bar.state, _LINES[0])
            parts.append(
                _box(
                    left + width * bar.left / 100,
                    top + (_ROW - _BAR) / 2,
                    max(2.0, width * bar.width / 100),
                    _BAR,
                    colour,
                    opacity=0.55 if bar.is_inner else 1.0,
                )
            )
            parts.append(_text(WIDTH - _MARGIN, top + 13, bar.seconds, anchor="end"))
            top += _ROW
    return _picture("What the run did when", WIDTH, bottom + 24, parts)


def data_uri(svg: str) -> str:
    """Return a picture as the address that holds it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _picture(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    return "".join(_whole(title, width, height, parts))


def _whole(title: str, width: float, height: float, parts: Sequence[str]) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="system-ui, sans-serif" '
        f'font-size="11.5" role="img" aria-label={quoteattr(title)}>'
    )
    yield _box(0, 0, width, height, _GROUND)
    yield from parts
    yield "</svg>"


def _box(
    x: float, y: float, width: float, height: float, colour: str, *, opacity: float = 1.0
) -> str:
    seen = "" if opacity == 1.0 else f' fill-opacity="{opacity:g}"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" '
        f'fill="{colour}"{seen}/>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_GRID}"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    colour: str = _SOFT,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
