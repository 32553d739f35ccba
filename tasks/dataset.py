"""Get the data as JSON lines."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import dataset as lifecycle
from lifecycle.dataset import DatasetResult, DatasetSpec

from .step import step


@step(run_name="download {dataset.path}")
def download_data(dataset: DatasetSpec) -> DatasetResult:
    """Write a percentage of every split as JSON lines, and show a few rows in the log."""
    data = lifecycle.download_data(dataset, lifecycle.data_directory())
    logger = get_run_logger()
    for file in data.files:
        logger.info("%s: %d rows in %s", file.split, file.rows, file.path)
    logger.info("A look at %s:\n%s", data.name, lifecycle.preview(data))
    return data
