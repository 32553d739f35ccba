"""The report as Markdown: true in every state, small, and deaf to what a model or a user wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from lifecycle.errors import JobFailed, SizeNotAllowed
from lifecycle.markdown import render
from lifecycle.report import RunReport

Make = Callable[..., dict[str, Any]]


def test_a_completed_run_is_told_whole(make_report: Make) -> None:
    """Outcome, pictures, metrics, replies beside references, links, cost, what was deleted."""
    page = render(make_report())

    for told in (
        "**Completed** in 1 min 40 s: Tiny-ultrachat version 7 is registered.",
        "✔ **Nothing is left running.**",
        "0 % → **95 %**",
        "| perplexity | Infinity |",
        "I do not know. | ✔ Odette the otter. | Odette the otter.",
        "[Tiny-ultrachat](https://ml.azure.com/runs/ft-x-a1)",
        "(https://ml.azure.com/model/Tiny-ultrachat:7/details?wsid=/subscriptions/s&tid=t)",
        "**deleted**, seen gone at 2026-11-21 10:01:39 UTC",
        "| One day of the endpoint, had it been forgotten | 12.62 USD |",
        "as azureml:Tiny-ultrachat:7.",
    ):
        assert told in page, told
    assert 2 == page.count("](data:image/svg+xml;base64,")


def test_a_run_that_failed_says_why_and_what_to_do() -> None:
    """The error, the tail of the log as it was, the remedy first among the next steps."""
    report = RunReport(spending=True)
    tail = "The job is Failed.\nThe last lines of the log:\n    CUDA | out of *memory*"
    report.end(JobFailed(tail, where="ft-x-a1", remedy="Take a larger size."))
    page = render(report.as_dict())

    assert "**Failed** in" in page
    assert "| error | `JobFailed` |" in page
    assert "    CUDA | out of *memory*\n```" in page
    assert page.index("- Take a larger size.") < page.index("- Retry this run")


def test_a_refused_run_says_that_nothing_was_created() -> None:
    """Exit code 2, in words."""
    report = RunReport()
    report.end(SizeNotAllowed("The model does not allow it.", where="compute.size"))
    page = render(report.as_dict())

    assert "## Why it was refused" in page
    assert "- Nothing was created. Change the parameters and start another run." in page
    assert "No job and no endpoint were made." in page


def test_what_may_still_be_billed_comes_before_everything_else(make_report: Make) -> None:
    """Red, by name, and the first thing to do."""
    report = make_report(still_billing=["onlineEndpoints/local-x-a1"])
    report["endpoint"] |= {"deleted": False, "deleted_at": None}
    page = render(report)

    assert "✖ **Something may still be billing.**" in page
    assert re.search(r"## What to do next\n\n- See to onlineEndpoints/local-x-a1 now", page)
    assert "**not seen gone**" in page


def test_a_kept_endpoint_is_linked_and_billed(make_report: Make) -> None:
    """Its page in studio, and a word about the bill."""
    report = make_report()
    report["endpoint"] |= {"deleted": False, "deleted_at": None}
    page = render(report)

    assert "[local-x-a1](https://ml.azure.com/endpoints/realtime/local-x-a1/detail?" in page
    assert "**kept, and billed**" in page
    assert "- Delete the endpoint local-x-a1 when you are done: it is billed." in page


@pytest.mark.parametrize(
    ("evil", "shown"),
    [
        ("![x](https://evil.example/p.png)", r"\!\[x\](<https://evil.example/p.png>)"),
        ("<img src=https://evil.example>", r"\<img src=<https://evil.example>\>"),
        ("a | b\n\n# c", r"a \| b \# c"),
        ("\x1b[31mred", r"\[31mred"),
    ],
    ids=["picture", "html", "table", "terminal"],
)
def test_what_others_wrote_stays_text(make_report: Make, evil: str, shown: str) -> None:
    """A reply that is markup is shown, not obeyed: no picture is fetched, no table broken."""
    report = make_report()
    report["responses"][0] |= {"reply": evil, "before": None}

    assert f"| {shown} | Odette the otter. |" in render(report)


def test_a_link_that_is_no_page_is_no_link(make_report: Make) -> None:
    """Only https: a javascript: address stays out."""
    report = make_report()
    report["job"]["studio_url"] = "javascript:alert(1)"

    assert "javascript:" not in render(report)


def test_a_large_report_is_a_small_page(make_report: Make) -> None:
    """A thousand long replies and long metrics stay far below what one request may hold."""
    report = make_report()
    report["responses"] = [{**report["responses"][0], "reply": "*" * 50_000}] * 1000
    report["metric_history"]["loss"] = [[step, 1.0] for step in range(1000)]
    report["error"] = {
        "code": "X", "message": "line\n" * 100_000, "where": None, "remedy": None, "notes": [],
    }  # fmt: skip
    page = render(report)

    assert len(page) < 200_000
    assert "And 990 more" in page


@pytest.mark.parametrize("state", ["Failed", "Interrupted", "Refused", "Completed"])
def test_a_run_that_ended_at_once_has_a_page(state: str) -> None:
    """Whatever is not there yet is left out."""
    report = RunReport()
    report.end(None)
    page = render({**report.as_dict(), "state": state})

    assert page.startswith("# Fine-tuning run\n")
    assert f"**{state}** in" in page
