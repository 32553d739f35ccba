"""The run's report among its artifacts: on a real Prefect server, and never in the run's way."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run
from prefect.states import Crashed, Running

from flows.finetune import finetune_chat_model
from lifecycle.config import load_config
from lifecycle.errors import JobFailed
from lifecycle.report import RunReport
from tasks import report as task
from tasks.report import Told, show_aftermath, show_report

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


def test_a_run_whose_parameters_are_refused_has_a_report() -> None:
    """The two fields are right, and not beside each other: nothing of the run's own code ran."""
    config = load_config(Path("profiles/local.yaml")).model_dump(mode="json")
    config["endpoint"]["expires_after_minutes"] = 10

    with pytest.raises(ParameterTypeError):
        finetune_chat_model(**config)

    with get_client(sync_client=True) as client:
        [newest] = client.read_artifacts(sort=ArtifactSort.CREATED_DESC, limit=1)
    assert "Failed before its first step." == newest.description
    assert "must exceed" in str(newest.data)


def test_the_last_word_on_a_run_is_of_its_last_attempt() -> None:
    """What an earlier one said is no reason to be silent about trouble."""
    logger = logging.LoggerAdapter(logging.getLogger("prefect"))

    def said(run: FlowRun) -> list[str | None]:
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(sort=ArtifactSort.CREATED_DESC)
        return [one.description for one in found if one.flow_run_id == run.id]

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow(lambda: None, name="a-run"), state=Running())
        show_aftermath(run, Crashed(), Told(), logger)
        show_aftermath(run, Crashed(), Told(), logger)
        assert ["Crashed. No endpoint is left."] == said(run)

        client.set_flow_run_state(run.id, Crashed(), force=True)
        client.set_flow_run_state(run.id, Running(name="Retrying"), force=True)
        show_aftermath(run, Crashed(), Told(), logger)
        show_aftermath(run, Crashed(), Told(trouble="x is there"), logger)

    assert "Crashed. Something may still be billing." == said(run)[0]
    assert 3 == len(said(run))


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
