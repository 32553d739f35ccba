"""A Prefect that is down, or behind a proxy that says "in an hour", holds nobody up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.objects import StateType as State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed

from lifecycle.report import RunReport, recording
from tasks.briefly import briefly
from tasks.progress import TrainingBar
from tasks.report import Told, show_aftermath, show_report
from tasks.runs import has_begun, has_completed, is_cancelled, is_under_way, logged_by, owner_of

RUN = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"


class _InAnHour(BaseHTTPRequestHandler):
    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(503)
        self.send_header("Retry-After", "3600")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PATCH = _refuse

    def log_request(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunReport]:
    """A run's report, and a Prefect that will answer in an hour; nobody waits a second for it."""
    for name in ("briefly.SECONDS", "runs.LOGS_SECONDS"):
        monkeypatch.setattr(f"tasks.{name}", 0.5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _InAnHour)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    report, url = RunReport(), f"http://127.0.0.1:{server.server_port}/api"
    with temporary_settings({PREFECT_API_URL: url}), recording(report):
        yield report
    server.shutdown()
    server.server_close()


def _bar() -> None:
    bar = TrainingBar(datetime(2026, 11, 21, 10, tzinfo=UTC))
    bar.end("Completed", datetime(2026, 11, 21, 11, tzinfo=UTC))


def _report() -> None:
    ended = RunReport()
    ended.end(None)
    show_report(ended)


@pytest.mark.parametrize(
    ("ask", "unknown", "told"),
    [
        (_bar, None, "The run's page lacks its bar until Prefect takes it again."),
        (_report, None, "It is not among the artifacts of the run."),
        (lambda: is_cancelled(RUN), False, "It is taken for one that may come back."),
        (lambda: has_completed(RUN), True, "An endpoint that is tagged as kept is left alone."),
        (lambda: is_under_way(RUN, "submit_job"), True, "It may be under way."),
        (lambda: has_begun(RUN, "submit_job"), True, "It may be under way."),
        (lambda: owner_of(RUN), None, "It counts as one that Prefect does not know."),
        (lambda: logged_by(RUN, "stream"), [], "Lines of the job's log may be there twice."),
    ],
    ids=["bar", "report", "cancelled", "completed", "under-way", "begun", "owner", "logged"],
)
def test_a_prefect_that_answers_in_an_hour_is_one_warning(
    silent: RunReport, ask: Callable[[], object], unknown: object, told: str
) -> None:
    """Its client would keep to the Retry-After, with the run, and its cleanup, behind it."""
    began = time.monotonic()

    assert unknown == ask()

    assert time.monotonic() - began < 10
    [warning] = silent.warnings
    assert "Prefect has not answered within 0.5 s" in warning
    assert warning.endswith(told)


def test_a_hook_is_not_held_up_by_its_report(
    silent: RunReport, caplog: pytest.LogCaptureFixture
) -> None:
    """It has the run's endpoints to delete, and the runner gives it half a minute."""
    run = FlowRun(id=UUID(RUN), flow_id=UUID(RUN), name="a-run")
    began = time.monotonic()

    show_aftermath(run, Crashed(), Told(), logging.LoggerAdapter(logging.getLogger("prefect.x")))

    assert time.monotonic() - began < 10
    assert 1 == sum("not among the artifacts" in found.message for found in caplog.records)


def test_a_timeout_of_what_is_asked_is_its_own() -> None:
    """It is not taken for our patience's end."""

    def ask() -> State:
        raise TimeoutError("the database")

    with pytest.raises(TimeoutError, match="the database"):
        briefly(ask)
