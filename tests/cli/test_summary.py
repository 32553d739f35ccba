"""The report on the terminal: complete, true in every state, and calm about what is missing."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from cli import html_report
from cli.summary import show_summary
from lifecycle import markdown
from lifecycle.wording import closing, duration, figure, money

Make = Callable[..., dict[str, Any]]


def shown(report: dict[str, Any]) -> str:
    """What the terminal shows."""
    console = Console(file=io.StringIO(), width=110)
    show_summary(console, report)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_completed_run_is_told_whole(make_report: Make) -> None:
    """What was used, how it went, what it would have cost, what it learned, what is left."""
    text = shown(make_report())

    for said in (
        "Completed in 1 min 40 s",
        "A stand-in of 2 layers.",
        "Tiny-ultrachat version 7",
        "3 → 0.02",
        "█▃▁",
        "chat_completion_finetune 40 s",
        "12.62 USD",
        "exact match 0 % → 95 %   ROUGE-L 0.10 → 0.98",
        "Odette the otter.",
        "Nothing is left running.",
    ):
        assert said in text, said


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is eight hours behind UTC, and whose day is another."""
    monkeypatch.setenv("TZ", "XXX+8")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
def test_one_moment_is_the_same_wherever_it_is_read(make_report: Make) -> None:
    """On the terminal, on the page and in Prefect: UTC, and labelled so."""
    report = make_report()
    moment = "seen gone at 10:01:39 UTC"

    assert moment in " ".join(shown(report).split())
    assert moment in html_report.render(report)
    assert "2026-11-21 10:00:00 UTC" in html_report.render(report)
    assert moment in markdown.render(report)
    assert "seen gone at 2026-11-21 10:01:39 UTC" in markdown.render(report)


@pytest.mark.parametrize("state", ["Failed", "Interrupted", "Refused"])
def test_a_run_that_came_to_nothing_is_told_too(make_report: Make, state: str) -> None:
    """No section stands empty, none is missing that there is something to say in."""
    nothing = dict.fromkeys(
        ("model", "compute", "dataset", "training", "job", "registered_model", "endpoint"), None
    )
    text = shown(
        make_report(
            state=state,
            **nothing,
            metrics={},
            metric_history={},
            responses=[],
            evaluation=None,
            cost=None,
            steps=[],
        )
    )

    assert f"{state} in 1 min 40 s" in text
    assert "What it learned" not in text
    assert "No job and no endpoint were made." in text


def test_without_a_baseline_there_is_no_before(make_report: Make) -> None:
    """No column of blanks for what was never asked."""
    report = make_report()
    report["responses"][0]["before"] = None
    report["evaluation"] |= {"exact_match_before": None, "rouge_l_before": None}
    text = shown(report)

    assert "before" not in text
    assert "exact match 95 %" in text


@pytest.mark.parametrize(
    ("changes", "title", "words"),
    [
        ({}, "Nothing is left running", "the endpoint was seen gone at"),
        (
            {"still_billing": ["onlineEndpoints/local-x-a1"]},
            "Something may still be billing",
            "onlineEndpoints/local-x-a1",
        ),
        (
            {"endpoint": {"name": "e", "created": True, "deleted": False, "deleted_at": None}},
            "Left running",
            "12.62 USD a day",
        ),
        (
            {"endpoint": {"name": "e", "created": False, "deleted": False, "deleted_at": None}},
            "Nothing is left running",
            "no endpoint was made",
        ),
        ({"job": {"name": "ft-x-a1", "status": "Running"}}, "Left running", "last seen Running"),
        (
            {"compute": {"name": "gpu-cluster", "min_instances": 2}},
            "Left running",
            "gpu-cluster keeps 2 node(s) up",
        ),
        ({"endpoint": None, "job": None}, "Nothing is left running", "No job and no endpoint"),
    ],
)
def test_nothing_is_said_to_be_gone_that_was_not_seen_gone(
    make_report: Make, changes: dict[str, Any], title: str, words: str
) -> None:
    """The sentence that people trust follows from what the run saw, and from nothing else."""
    left = closing(make_report(**changes))

    assert title == left.title
    assert words in left.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (125, "2 min 05 s"),
     (3725, "1 h 02 min")],
)  # fmt: skip
def test_a_span_is_said_as_a_person_says_it(seconds: float, words: str) -> None:
    """Tenths where they matter, and no 60 seconds."""
    assert words == duration(seconds)


def test_figures_and_prices_never_look_like_nothing() -> None:
    """A small price is not free, an unknown one is not zero, an infinite metric is shown."""
    assert ["< 0.01 USD", "unknown", "0.00 USD", "1,234.50 USD"] == [
        money(usd) for usd in (0.001, None, 0.0, 1234.5)
    ]
    assert ["4.87e-06", "0", "0.4213", "NaN", "12,346"] == [
        figure(value) for value in (4.87e-6, 0.0, 0.42131, "NaN", 12345.6)
    ]
