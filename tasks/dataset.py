"""Get the data: checked conversations, as files on this machine."""

from __future__ import annotations

import time
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

from lifecycle import dataset as lifecycle
from lifecycle.clients import WorkspaceRef
from lifecycle.conversations.summary import as_markdown, as_text
from lifecycle.courtesy import courtesy
from lifecycle.dataset import DatasetResult, DatasetSpec, Progress
from lifecycle.report import current_report

from .briefly import briefly
from .step import step

_SECONDS_A_LINE = 5.0


@step(run_name="download {dataset.path}")
def download_data(dataset: DatasetSpec, workspace: WorkspaceRef) -> DatasetResult:
    """Write what is asked for of every split; show how far it is, and what came of it."""
    logger = get_run_logger()
    last = time.monotonic()
    bars: dict[str, UUID] | None = {}

    def watch(progress: Progress) -> None:
        nonlocal last, bars
        is_last = progress.rows == progress.of_rows and progress.split in (bars or {})
        if is_last or time.monotonic() - last >= _SECONDS_A_LINE:
            last = time.monotonic()
            logger.info("%s", progress)
            if progress.doing == "writing" and bars is not None:
                bars = _shown(progress, bars)

    report = current_report()
    data = lifecycle.download_data(
        dataset,
        lifecycle.data_directory(),
        workspace=workspace,
        watch=watch,
        go_on=None if report is None else report.go_on,
    )
    logger.info("%s\n%s", data.name, as_text(data, dataset.train_split))
    courtesy(
        "keeping the page about the data",
        lambda: briefly(
            lambda: create_markdown_artifact(
                as_markdown(data, dataset.train_split),
                key="data-set",
                description=f"What {data.name} holds",
            )
        ),
        otherwise=None,
        instead="It is not among the artifacts of the run.",
    )
    return data


def _shown(progress: Progress, bars: dict[str, UUID]) -> dict[str, UUID] | None:
    """Show how far a split is; None where Prefect does not take it, and is not asked again."""

    def show() -> dict[str, UUID]:
        briefly(lambda: show_progress(progress, bars))
        return bars

    return courtesy(
        "showing the progress of the data",
        show,
        otherwise=None,
        instead="It is in the log alone.",
    )


def show_progress(progress: Progress, bars: dict[str, UUID]) -> None:
    """Keep a bar for each split among the run's artifacts.

    Args:
        progress: How far a split is.
        bars: The bars so far, by split; one is added where there is none.
    """
    done = 100 * progress.rows / max(progress.of_rows, 1)
    if progress.split in bars:
        update_progress_artifact(bars[progress.split], done, description=str(progress))
        return
    made = create_progress_artifact(done, description=str(progress))
    assert isinstance(made, UUID)
    bars[progress.split] = made
