"""The run's report among its artifacts: on a real Prefect server, and never in the run's way."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow, get_client
from prefect.runtime import flow_run

from lifecycle.errors import JobFailed
from lifecycle.report import RunReport
from tasks import report as task
from tasks.report import show_report

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_the_report_is_an_artifact_of_its_run() -> None:
    """Whoever opens the run finds it, with how it ended in the list already."""

    @flow
    def failed() -> str:
        report = RunReport(spending=True)
        report.end(JobFailed("It is Failed.", where="ft-x-a1"))
        show_report(report)
        return str(flow_run.id)

    run_id = failed()

    with get_client(sync_client=True) as client:
        [found] = [one for one in client.read_artifacts() if str(one.flow_run_id) == run_id]
    assert ("run-report", "markdown") == (found.key, found.type)
    assert "Failed. Nothing is left running." == found.description
    assert "`JobFailed`" in str(found.data)


def test_a_prefect_that_does_not_take_it_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """How the run ended stays what it was."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(task, "create_markdown_artifact", refuse)

    @flow
    def done() -> str:
        report = RunReport()
        report.end(None)
        show_report(report)
        return report.state

    assert "Completed" == done()
    assert 1 == sum("not among the artifacts" in found.message for found in caplog.records)
