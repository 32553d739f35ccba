"""The run's report among its artifacts, whatever became of the run."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from lifecycle.markdown import render
from lifecycle.report import RunReport
from lifecycle.signals import deferred_signals
from lifecycle.wording import closing

KEY = "run-report"


def show_report(report: RunReport) -> None:
    """Keep the report as an artifact of the flow run.

    It is the last thing that a run does, after its cleanup. Where Prefect does not take it, a
    warning says so: it is never how a run ends.

    Args:
        report: The run, which has ended.
    """
    with deferred_signals():
        try:
            document = report.as_dict()
            create_markdown_artifact(
                render(document),
                key=KEY,
                description=f"{report.state}. {closing(document).title}.",
            )
        except Exception as error:
            get_run_logger().warning("The report is not among the artifacts: %r", error)
