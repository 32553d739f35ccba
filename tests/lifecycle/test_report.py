"""The report is true wherever a run ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from lifecycle.errors import JobFailed, SizeNotAllowed
from lifecycle.prices import rates
from lifecycle.report import RunReport, current_report, recording

KEYS = {
    "state", "error", "flow_run_id", "workspace", "model", "compute", "dataset", "job", "metrics",
    "registered_model", "endpoint", "responses", "evaluation", "timings", "began_at", "ended_at",
    "training", "metric_history", "cost", "steps",
}  # fmt: skip


def test_the_report_has_the_keys_that_scripts_rely_on() -> None:
    """DESIGN §6: every key is there from the beginning, and it is JSON."""
    document = json.loads(json.dumps(RunReport().as_dict()))

    assert set() == KEYS - set(document)


@pytest.mark.parametrize(
    ("outcome", "spending", "state", "code"),
    [
        (None, True, "Completed", 0),
        (SizeNotAllowed("no"), False, "Refused", 2),
        (SizeNotAllowed("no"), True, "Failed", 1),
        (JobFailed("it failed"), True, "Failed", 1),
        (KeyboardInterrupt(), True, "Interrupted", 130),
        (RuntimeError("a bug"), False, "Failed", 1),
    ],
)
def test_each_end_has_its_state_and_exit_code(
    outcome: BaseException | None, spending: bool, state: str, code: int
) -> None:
    """A refusal after something was created is a failure; what may bill is always exit 3."""
    report = RunReport(spending=spending)
    report.end(outcome)

    assert (state, code) == (report.state, report.exit_code())


def test_what_may_still_bill_outweighs_any_other_end() -> None:
    """An interrupted run whose endpoint was not seen gone does not say that all is clean."""
    report = RunReport(spending=True, still_billing=["onlineEndpoints/x"])
    report.end(KeyboardInterrupt())

    assert "Ctrl-C, or a signal, stopped the run." == (report.error or {})["message"]
    assert ("Interrupted", 3) == (report.state, report.exit_code())


def test_a_cost_that_cannot_be_reckoned_hides_no_end() -> None:
    """A bug in the price would otherwise take the place of what may still be billing."""
    report = RunReport(job={"seconds": "many"}, spending=True, still_billing=["jobs/x"])
    report.rates = rates(
        size="Standard_NC24ads_A100_v4",
        nodes=1,
        low_priority=False,
        instance_type="Standard_NC24ads_A100_v4",
        instance_count=1,
    )

    report.end(JobFailed("it failed"))

    assert ("Failed", 3) == (report.state, report.exit_code())
    assert "could not be reckoned" in report.warnings[0]


def test_timings_add_up_for_a_step_that_is_tried_again() -> None:
    """The second try of a step does not erase the first."""
    report = RunReport()
    for _ in range(2):
        with report.timing("deploy_model"):
            pass

    assert {"deploy_model"} == set(report.timings)


def test_a_run_that_was_asked_to_stop_goes_no_further() -> None:
    """The exception of a signal may be lost in a finalizer; the wish to stop is not."""
    report = RunReport()
    report.go_on()
    report.interrupted = True

    with pytest.raises(KeyboardInterrupt):
        report.go_on()


def test_recording_ends_with_its_block() -> None:
    """A step outside a run fills no report."""
    with recording(RunReport()) as report:
        assert report is current_report()

    assert current_report() is None


def test_steps_are_told_with_their_beginning_and_end() -> None:
    """A timeline needs both; a step that failed, or was cut off, says so."""
    report = RunReport()
    with report.timing("authenticate"):
        assert ["Running", None] == [report.steps[0]["state"], report.steps[0]["ended_at"]]
    for error in (ValueError(), KeyboardInterrupt()):
        with pytest.raises(type(error)), report.timing("stream_job"):
            raise error

    assert ["Completed", "Failed", "Interrupted"] == [step["state"] for step in report.steps]
    assert all(step["began_at"] <= step["ended_at"] for step in report.steps)


def test_the_cost_is_reckoned_when_the_run_ends_however_it_ends() -> None:
    """From the job's seconds, and each deployment's until the endpoint was seen gone."""
    report = RunReport(spending=True)
    report.rates = rates(
        size="Standard_NC24ads_A100_v4",
        nodes=1,
        low_priority=False,
        instance_type="Standard_NC24ads_A100_v4",
        instance_count=1,
    )
    report.job = {"name": "ft-x-a1", "seconds": 3600.0}
    report.plan_endpoint("x-a1", "demo")
    report.deploying("demo", "azureml:m:1")
    assert report.endpoint is not None
    began = datetime.fromisoformat(report.endpoint["deployments"][0]["began_at"])
    report.endpoint_is_gone(began + timedelta(hours=2))
    report.end(JobFailed("later"))

    assert report.cost is not None
    assert (3.673, 7.346) == (report.cost["training_usd"], report.cost["endpoint_usd"])
    assert datetime.fromisoformat(str(report.ended_at)) <= datetime.now(UTC)


def test_a_run_that_made_nothing_has_no_cost() -> None:
    """A refusal is not priced."""
    report = RunReport()
    report.end(SizeNotAllowed("no"))

    assert None is report.cost
