"""Find what has outlived its run, and put it away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from lifecycle import sweep as lifecycle
from lifecycle.clients import WorkspaceRef
from lifecycle.courtesy import courtesy
from lifecycle.sweep import SweepResult

from .briefly import briefly
from .runs import owner_of
from .step import step


@step()
def sweep_expired(workspace: WorkspaceRef, apply: bool, grace_minutes: float) -> SweepResult:
    """List what is ours, put away what has outlived its run if *apply* says so, and show it."""
    result = lifecycle.sweep(
        workspace,
        apply,
        datetime.now(UTC),
        owner_of=owner_of,
        grace=timedelta(minutes=grace_minutes),
    )
    logger = get_run_logger()
    for found in result.found:
        done = "deleted" if found.name in result.deleted else found.verdict
        logger.info("%s: %s, %s", found.name, done, found.reason)
    for job in result.jobs:
        verdict = "canceled" if job.name in result.canceled else job.verdict
        logger.info("%s: %s, %s", job.name, verdict, job.reason)
    for cluster in result.clusters:
        logger.warning("%s: %d nodes are up, %s", cluster.name, cluster.nodes, cluster.reason)
    for failure in result.failed:
        logger.error("%s may still be billing: %s", failure.name, failure.error)
    for trouble in result.unread:
        logger.error("Not everything could be looked at: %s", trouble)
    courtesy(
        "keeping the page about the sweep",
        lambda: briefly(
            lambda: create_markdown_artifact(
                _shown(workspace, result), key="sweep", description="What was swept"
            )
        ),
        otherwise=None,
        instead="It is not among the artifacts of the run.",
    )
    return result


def _shown(workspace: WorkspaceRef, result: SweepResult) -> str:
    rows = [
        *(
            (
                "endpoint",
                finding.name,
                "deleted" if finding.name in result.deleted else finding.verdict,
                finding.reason,
            )
            for finding in result.found
        ),
        *(
            (
                "job",
                finding.name,
                "canceled" if finding.name in result.canceled else finding.verdict,
                finding.reason,
            )
            for finding in result.jobs
        ),
        *(
            ("cluster", finding.name, f"{finding.nodes} idle nodes", finding.reason)
            for finding in result.clusters
        ),
        *(("", failure.name, "**FAILED**", failure.error) for failure in result.failed),
        *(("", "", "**NOT READ**", trouble) for trouble in result.unread),
    ]
    mode = "applied" if result.applied else "dry run"
    head = f"Workspace {workspace.name}, {result.swept_at:%Y-%m-%d %H:%M} UTC, {mode}."
    if not rows:
        return f"{head} There is nothing of ours."
    lines = [f"| {' | '.join(_cell(text) for text in row)} |" for row in rows]
    return "\n".join([head, "", "| what | name | verdict | why |", "|---|---|---|---|", *lines])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
