"""What a person sees who has started `make serve`: each test is what they do next."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Served

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.long, pytest.mark.browser]

ON_DEMAND, RETRAIN = "finetune-on-demand", "retrain"
TRAINED = re.compile(r"\[chat_completion_finetune\] step \d+/\d+")

Keep = Callable[..., None]


def test_the_form_says_what_is_wrong_and_starts_nothing(
    served: Served, page: Page, keep: Keep
) -> None:
    """A number out of bounds is held back by the form, a name that is none by the API."""
    open_form(served, page)
    keep("form")
    field = page.get_by_label("Percentage")
    field.fill("500")
    page.get_by_role("button", name="Submit").click()
    told = field.evaluate("field => field.validationMessage")
    field.fill("100")
    page.get_by_label("Name prefix").fill("1st")
    page.get_by_role("button", name="Submit").click()
    refusal = page.get_by_text("Error creating flow run: Validation failed").first
    refusal.wait_for()
    page.get_by_label("Name prefix").scroll_into_view_if_needed()
    keep("refused")

    assert "100" in told
    assert "'endpoint.name_prefix'" in refusal.inner_text()
    assert [] == served.runs(ON_DEMAND)


def test_the_schedule_starts_a_run_by_itself(served: Served, page: Page, keep: Keep) -> None:
    """Nobody asked for it, and it is there among the runs, under a name that says what it does."""
    run = served.begun(RETRAIN)
    its_name = page.get_by_role("link", name="finetune tiny-phi3-stand-in on ultrachat").first

    def look() -> bool | None:
        page.goto(f"{served.ui}/v2/runs")  # Anew: the page shows what had begun when it was opened.
        page.wait_for_timeout(5000)
        return its_name.is_visible() or None

    served.wait(look)
    keep("runs")

    assert served.runs(RETRAIN)[-1]["auto_scheduled"], run


def test_a_run_that_was_started_by_hand_is_watched_to_its_report(
    served: Served, page: Page, keep: Keep
) -> None:
    """The form is filled, the log grows, the bar moves, and the report shows its pictures."""
    open_form(served, page)
    page.get_by_label("Conversations").fill("4")
    submit(page)
    run = served.begun(ON_DEMAND)

    page.goto(f"{served.ui}/v2/runs/flow-run/{run}?tab=Logs")
    page.get_by_role("combobox").filter(has_text="Oldest to newest").click()
    page.get_by_role("option", name="Newest to oldest").click()
    page.get_by_text(TRAINED).first.wait_for(timeout=300_000)
    first = page.get_by_text(TRAINED).first.inner_text()
    served.wait(lambda: page.get_by_text(TRAINED).first.inner_text() != first)
    page.wait_for_timeout(2000)  # The lines change places in an animation.
    keep("log")

    page.get_by_role("tab", name="Task Runs").click()
    page.get_by_text(re.compile(r"submit ft-\w{8}… to gpu-cluster")).first.wait_for()
    training = served.wait(lambda: served.artifact(run, "training", " left"))
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("training", exact=True).first.click()
    # The key's page has those of all runs.
    page.locator(f"a[href*='/artifacts/artifact/{training}']").first.click()
    page.get_by_text(re.compile(r"Progress: [\d.]+%")).wait_for()
    page.get_by_text(re.compile(r"Step \d+ of \d+, .+ left")).first.wait_for()
    keep("progress")

    assert "Completed" == served.ended(run), served.said()
    open_report(served, page, run)
    pictures = page.locator("img[src^='data:image/svg']")
    pictures.nth(1).wait_for()
    keep("report")
    keep("loss", pictures.nth(0))
    keep("timeline", pictures.nth(1))

    drawn = [one.evaluate("image => image.naturalWidth") for one in pictures.all()]
    assert [720, 720] == drawn
    replies = page.get_by_role("table").filter(has_text="the data set says")
    assert 4 == replies.locator("tbody tr").count()
    keep("replies", replies)
    page.get_by_text("Nothing is left running.").first.wait_for()
    page.get_by_text("deleted, seen gone at").wait_for()
    assert [] == served.meters("endpoint")


def test_the_run_that_was_scheduled_completed(served: Served) -> None:
    """As if somebody had watched it."""
    assert "Completed" == served.ended(served.begun(RETRAIN)), served.said()


def test_a_run_that_is_cancelled_takes_its_endpoint_along(
    served: Served, page: Page, keep: Keep
) -> None:
    """Cancelled in the UI while the endpoint is up and billed: it is seen gone."""
    open_form(served, page)
    submit(page)
    run = served.begun(ON_DEMAND, 2)
    served.wait(lambda: served.meters("deployment"))

    page.goto(f"{served.ui}/v2/runs/flow-run/{run}")
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name="Cancel").click()
    keep("cancel")
    page.get_by_role("button", name="Cancel Flow Run").click()

    assert "Cancelled" == served.ended(run), served.said()
    served.wait(lambda: not served.meters("endpoint") and not served.meters("deployment"))
    open_report(served, page, run)
    page.get_by_text("Nothing is left running.").first.wait_for()
    keep("cancelled")


def open_form(served: Served, page: Page) -> None:
    """Go where a person goes: the deployment, Run, Custom run."""
    page.goto(f"{served.ui}/v2/deployments")
    page.get_by_role("link", name=ON_DEMAND).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    page.get_by_label("Percentage").wait_for()


def submit(page: Page) -> None:
    """Press Submit; again where Prefect's database was busy, as the UI asks for."""
    for _ in range(5):
        with page.expect_response(re.compile("/create_flow_run$")) as answer:
            page.get_by_role("button", name="Submit").click()
        if answer.value.ok:
            return
        assert 503 == answer.value.status, answer.value.text()
        page.wait_for_timeout(2000)
    raise AssertionError("Prefect answered 503 five times")


def open_report(served: Served, page: Page, run: str) -> None:
    """Go to the run's artifacts, to the report, to its latest edition."""
    served.wait(lambda: served.artifact(run, "run-report"))
    page.goto(f"{served.ui}/v2/runs/flow-run/{run}?tab=Artifacts")
    page.get_by_text("run-report").click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
