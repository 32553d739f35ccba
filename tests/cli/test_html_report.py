"""The page: whole by itself, true in every state, and deaf to what a model or a user wrote."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from cli.html_report import render
from lifecycle.charts import HEIGHT, WIDTH, loss_chart, timeline
from lifecycle.errors import SizeNotAllowed
from lifecycle.report import RunReport

Make = Callable[..., dict[str, Any]]
VOID = {"meta", "line", "path", "circle", "br"}


class Outline(HTMLParser):
    """Checks that elements are closed in order, and gathers what could reach outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop(), self.getpos()


def outline(page: str) -> Outline:
    """The page's elements."""
    found = Outline()
    found.feed(page)
    assert [] == found.open
    return found


def test_the_page_needs_nothing_from_anywhere(make_report: Make) -> None:
    """No script, no font, no image, no style sheet; a policy that forbids them; one link."""
    page = render(make_report())
    found = outline(page)

    assert ["https://ml.azure.com/runs/ft-x-a1"] == found.addresses
    assert set() == found.tags & {"script", "img", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import", page)
    assert "default-src 'none'" in page


def test_what_others_wrote_stays_text(make_report: Make) -> None:
    """A prompt, a reply or a name that is markup is shown, not obeyed."""
    evil = "<script>alert(1)</script>"
    report = make_report(warnings=[evil])
    report["responses"][0] |= {"reply": evil, "before": evil}
    report["model"]["description"] = evil
    report["job"]["studio_url"] = "javascript:alert(1)"
    page = render(report)

    assert "script" not in outline(page).tags
    assert "&lt;b&gt;clock" in page
    assert "javascript:" not in page


def test_a_completed_run_is_told_whole(make_report: Make) -> None:
    """Before and after, the stand-in by its name, the loss curve, time, cost, and what is left."""
    page = render(make_report())

    for said in (
        "A stand-in of 2 layers.",
        "0 % →",
        "95 %",
        "word for word",
        'class="curve',
        "chat_completion_finetune",
        "12.62 USD",
        "Nothing is left running",
        "prefers-color-scheme: dark",
    ):
        assert said in page, said


@pytest.mark.parametrize("outcome", [None, KeyboardInterrupt(), SizeNotAllowed("no <size>")])
def test_a_run_that_was_cut_off_at_its_beginning_has_a_page(
    outcome: BaseException | None,
) -> None:
    """Whatever the report lacks, the page is written."""
    report = RunReport()
    with report.timing("start_prefect"):
        pass
    report.end(outcome)
    page = render(report.as_dict())

    outline(page)
    assert report.state in page
    assert ("no &lt;size&gt;" in page) is isinstance(outcome, SizeNotAllowed)


def test_every_stop_on_the_way_has_a_page(make_report: Make) -> None:
    """A run may end between any two steps: each field may be the last that was filled."""
    whole = make_report()
    empty = RunReport().as_dict()
    filled = [name for name in whole if whole[name]]
    for count in range(len(filled)):
        report = {**empty, **{name: whole[name] for name in filled[:count]}}
        outline(render({**report, "state": "Failed", "ended_at": whole["ended_at"]}))


def test_many_responses_are_bounded(make_report: Make) -> None:
    """A thousand conversations do not make a page that nobody can open."""
    report = make_report()
    report["responses"] *= 1000

    page = render(report)

    assert 100 == page.count('class="talk"')
    assert "And 900 in the JSON report" in page


def test_the_loss_curve_lies_inside_the_drawing() -> None:
    """All losses, none of the other metrics; a loss that is no number is left out."""
    history = {
        "loss": [(1, 3.1), (50, math.nan), (100, 0.004)],
        "eval_loss": [(50, "0.5"), (100, "Infinity"), (150, 0.2)],
        "learning_rate": [(1, 1e-3), (100, 0.0)],
        "train_loss": [(100, 1.0)],
    }
    chart = loss_chart(history)

    assert chart is not None
    assert ["loss", "eval_loss"] == [line.name for line in chart.lines]
    for line in chart.lines:
        assert 2 == len(line.points)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line.points)
        ET.fromstring(f'<path d="{line.path}"/>')
    assert {"0", "4"} <= {tick.label for tick in chart.y_ticks}


@pytest.mark.parametrize("history", [{}, {"loss": [(1, 2.0)]}, {"loss": [(1, "NaN"), (2, "NaN")]}])
def test_no_curve_is_drawn_of_nothing(history: dict[str, Any]) -> None:
    """One point, or none that is a number, is no curve."""
    assert None is loss_chart(history)


def test_a_loss_that_never_changes_is_a_flat_line() -> None:
    """No division by the span that is none."""
    chart = loss_chart({"loss": [(5, 0.0), (5, 0.0)]})

    assert chart is not None


def test_the_timeline_shows_the_jobs_steps_under_the_job(make_report: Make) -> None:
    """In per cent of the run; a step that was not seen to end lasts until the run's end."""
    report = make_report()
    began_at = "2026-11-21T10:01:00+00:00"
    report["job"]["steps"].append(
        {"name": "convert", "status": "Running", "began_at": began_at, "ended_at": None}
    )
    lanes, ticks = timeline(report)
    train = next(lane for lane in lanes if lane.name == "Train")

    assert ["preparing the cluster", "submitting the job", "training"] == [
        bar.label for bar in train.bars if not bar.is_inner
    ]
    assert [(20.0, 40.0, "40 s"), (60.0, 40.0, "40 s")] == [
        (bar.left, bar.width, bar.seconds) for bar in train.bars if bar.is_inner
    ]
    assert "1 min 00 s" in [tick.label for tick in ticks]
