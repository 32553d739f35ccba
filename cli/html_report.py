"""The report as one page of HTML that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lifecycle.charts import HEIGHT, LEFT, RIGHT, WIDTH, loss_chart, timeline
from lifecycle.wording import (
    TONES,
    closing,
    date_time,
    duration,
    figure,
    money,
    percent,
    run_seconds,
)

SHOWN_RESPONSES = 100
OPEN_RESPONSES = 4


def render(report: Mapping[str, Any]) -> str:
    """Return the page for a report of any state.

    Args:
        report: The report as JSON, of a run that has ended.
    """
    from jinja2 import Environment, StrictUndefined

    template = files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "date_time": date_time,
        "duration": duration,
        "figure": figure,
        "money": money,
        "percent": percent,
    }
    lanes, ticks = timeline(report)
    return environment.from_string(template).render(
        report=report,
        tone=TONES[report["state"]],
        seconds=run_seconds(report),
        closing=closing(report),
        chart=loss_chart(report["metric_history"]),
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT},
        lanes=lanes,
        ticks=ticks,
        shown=report["responses"][:SHOWN_RESPONSES],
        open_responses=OPEN_RESPONSES,
        # Only a link that a browser opens as a page; Azure gives no other.
        studio=_https((report["job"] or {}).get("studio_url")),
    )


def _https(url: str | None) -> str | None:
    return url if url and url.startswith("https://") else None
