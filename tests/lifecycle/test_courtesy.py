"""What a run can do without costs it a warning, and nothing else."""

from __future__ import annotations

import logging

import pytest

from lifecycle.courtesy import courtesy
from lifecycle.errors import ServiceError
from lifecycle.report import RunReport, recording

INSTEAD = "The report shows no metrics."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ServiceError("Azure answered 403 while reading the metrics of ft-1."),
            "Azure answered 403 while reading the metrics of ft-1.",
        ),
        (KeyError("runId"), "KeyError while reading the metrics: 'runId'."),
        (
            ValueError("https://store/x?sig=abcdef failed"),
            "ValueError while reading the metrics: https://store/x?sig=*** failed.",
        ),
        (RecursionError(), "RecursionError while reading the metrics."),
    ],
)
def test_a_courtesy_that_fails_is_one_warning(
    error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever was raised; in the log and the report, without secrets, however often it fails."""
    report = RunReport()

    def ask() -> int:
        raise error

    with recording(report), caplog.at_level(logging.WARNING):
        found = [
            courtesy("reading the metrics", ask, otherwise=-1, instead=INSTEAD) for _ in range(3)
        ]

    assert [-1, -1, -1] == found
    assert [f"{said} {INSTEAD}"] == report.warnings
    assert [f"{said} {INSTEAD}"] == [record.getMessage() for record in caplog.records]


def test_ctrl_c_is_no_failed_courtesy() -> None:
    """A person who interrupts a courtesy interrupts the run."""

    def ask() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        courtesy("reading the metrics", ask, otherwise=-1, instead=INSTEAD)
