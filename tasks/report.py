"""The run's report among its artifacts, whatever became of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from logging import LoggerAdapter
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import ArtifactSort

from lifecycle.courtesy import courtesy
from lifecycle.markdown import render
from lifecycle.report import RunReport
from lifecycle.signals import deferred_signals
from lifecycle.wording import closing, plain

from .briefly import briefly, look_up

KEY = "run-report"


def show_report(report: RunReport) -> None:
    """Keep the report as an artifact of the flow run.

    It is the last thing that a run does, after its cleanup. Where Prefect does not take it, a
    warning says so: it is never how a run ends.

    Args:
        report: The run, which has ended.
    """

    def show() -> None:
        document = report.as_dict()
        text, title = render(document), closing(document).title
        briefly(
            lambda: create_markdown_artifact(text, key=KEY, description=f"{report.state}. {title}.")
        )

    with deferred_signals():
        courtesy(
            "keeping the run's report",
            show,
            otherwise=None,
            instead="It is not among the artifacts of the run.",
        )


@dataclass
class Told:
    """What was put away of a run that could not do so itself.

    Args:
        endpoints: Its endpoints, which were seen gone.
        job: How its training job ended; None where it has none, or was left to go on.
        trouble: What could not be seen gone, if anything.
    """

    endpoints: list[str] = field(default_factory=list)
    job: str | None = None
    trouble: str | None = None


def show_aftermath(run: FlowRun, state: State[Any], told: Told, logger: LoggerAdapter[Any]) -> None:
    """Keep a report of a run whose process ended before it could keep one itself.

    Args:
        run: The run.
        state: How it ended.
        told: What was put away.
        logger: Where a report that Prefect does not take is told.
    """
    left = "No endpoint is left" if state.is_crashed() else "Nothing is left running"
    if told.trouble:
        left = "Something may still be billing"
    said = _aftermath(run, state, told, left)
    _keep(run, f"{state.name}. {left}.", said, logger, always=told.trouble is not None)


def show_failure(run: FlowRun, state: State[Any], logger: LoggerAdapter[Any]) -> None:
    """Keep a report of a run that failed before it could, as where its parameters were refused.

    Args:
        run: The run.
        state: How it ended.
        logger: Where a report that Prefect does not take is told.
    """
    text = "\n".join(
        [
            f"# {plain(run.name)}",
            "",
            f"**{state.name}.** It ended before its first step.",
            "",
            f"✖ {plain(state.message or '', 2000)}",
        ]
    )
    _keep(run, f"{state.name} before its first step.", text, logger)


def _keep(
    run: FlowRun, description: str, text: str, logger: LoggerAdapter[Any], *, always: bool = False
) -> None:
    """Keep a report, unless this attempt of the run has kept one itself."""
    of_run = ArtifactFilter(
        key=ArtifactFilterKey(any_=[KEY]), flow_run_id=ArtifactFilterFlowRunId(any_=[run.id])
    )

    def keep(client: SyncPrefectClient) -> None:
        states = client.read_flow_run_states(run.id)
        began = max(state.timestamp for state in states if not state.is_final())
        kept = client.read_artifacts(artifact_filter=of_run, sort=ArtifactSort.CREATED_DESC)
        is_told = any(one.created is not None and one.created >= began for one in kept)
        if is_told and not always:
            return
        client.create_artifact(
            ArtifactCreate(
                key=KEY,
                type="markdown",
                description=description,
                data=text,
                flow_run_id=run.id,
            )
        )

    try:
        look_up(keep)
    except Exception as error:
        logger.warning("The report is not among the artifacts: %r", error)


def _aftermath(run: FlowRun, state: State[Any], told: Told, left: str) -> str:
    gone = [f"- The endpoint {plain(name)} was left, and is deleted." for name in told.endpoints]
    goes_on = "it goes on, for the run to come back to" if state.is_crashed() else "there is none"
    return "\n".join(
        [
            f"# {plain(run.name)}",
            "",
            f"**{state.name}.** Its process ended before it could report. What it had left was put "
            "away from outside.",
            "",
            f"{'✖' if told.trouble else '✔'} **{left}.** {plain(told.trouble or '', 2000)}",
            "",
            *(gone or ["- It left no endpoint."]),
            f"- Its training job: {plain(told.job or goes_on)}.",
        ]
    )
