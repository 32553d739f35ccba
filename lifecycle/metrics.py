"""Step 8, *metrics*: what training and evaluation measured, read from the workspace's MLflow.

Plain MLflow at ``https://``, signed with a token of ours for each request. The azureml-mlflow
plugin, which ``azureml://`` would bring in, makes a credential chain of its own that ends in a
browser and a device code; docs/steps/metrics.md tells the choice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from lifecycle import clients
from lifecycle.auth import WorkspaceResult
from lifecycle.azure import scrubbed, translated
from lifecycle.clients import WorkspaceRef
from lifecycle.courtesy import courtesy
from lifecycle.errors import ServiceError
from lifecycle.plain import Result
from lifecycle.waiting import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.rest_utils import MlflowHostCreds

CHARTS = 24
CHART_POINTS = 200

_PAGE = 200
_MOST_PAGES = 100
_PAUSES = (2.0, 5.0)
_LONGEST_SECONDS = 60.0
_SETTINGS = {
    # MLflow reports its use to its makers unless told not to, from the import on.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # It would try for many minutes: seven times, and wait two for each answer.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}

logger = logging.getLogger(__name__)


class MetricsResult(Result):
    """The metrics of a job and its steps. NaN and infinities are kept, as text in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    values: dict[str, float] = Field(
        title="Values",
        description="The last value of each metric; of the run that began last, if several log it.",
        examples=[{"train_loss": 0.71, "eval_loss": 0.83}],
    )
    history: dict[str, list[tuple[int, float]]] = Field(
        title="History",
        description=f"Step and value of each metric that changed, {CHART_POINTS} points at most.",
    )
    by_run: dict[str, dict[str, float]] = Field(
        title="By run", description="The last values by display name of the job or step."
    )


def review_metrics(
    ref: WorkspaceRef,
    workspace: WorkspaceResult,
    job_name: str,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> MetricsResult:
    """Read the metrics of a job and of all its steps; a courtesy, which a run can do without.

    Args:
        ref: The workspace.
        workspace: What :func:`lifecycle.auth.authenticate` found, for its MLflow address.
        job_name: The job.
        clock: Whose time passes between two tries.

    Returns:
        All last values, and the history of the first 24 metrics by name that were logged over
        several steps; nothing, and a warning, where MLflow does not give them.
    """
    return courtesy(
        f"reading the metrics of {job_name}",
        lambda: _patiently_read(ref, workspace, job_name, clock),
        otherwise=MetricsResult(values={}, history={}, by_run={}),
        instead="The report shows none but what the log gave.",
    )


def _patiently_read(
    ref: WorkspaceRef, workspace: WorkspaceResult, job_name: str, clock: Clock
) -> MetricsResult:
    """Read the metrics, some times where it may pass; not where they are refused."""
    end = clock.monotonic() + _LONGEST_SECONDS

    def in_time() -> None:
        if clock.monotonic() > end:
            raise ServiceError(
                f"MLflow did not give the metrics of {job_name} within {_LONGEST_SECONDS:.0f} s."
            )

    for pause in _PAUSES:
        try:
            return _read(ref, workspace, job_name, in_time)
        except ServiceError as error:
            if not error.transient or error.status == 403:
                raise
            logger.info("%s Trying again in %.0f s.", error.message, pause)
            clock.sleep(pause)
    return _read(ref, workspace, job_name, in_time)


def _read(
    ref: WorkspaceRef,
    workspace: WorkspaceResult,
    job_name: str,
    in_time: Callable[[], None],
) -> MetricsResult:
    """Read the metrics; *in_time* raises where it has taken too long.

    Raises:
        ServiceError: MLflow did not answer, or with an error, or no token could be had.
    """
    with _translated(job_name):
        store = _store(ref, workspace.mlflow_tracking_uri)
        runs = _runs(store, job_name)
        origin = {name: run for run in runs for name in run.data.metrics}
        history = {}
        for name in sorted(origin)[:CHARTS]:
            in_time()
            points = _history(store, origin[name].info.run_id, name)
            if len(points) > 1:
                history[name] = thinned(points)
    return MetricsResult(
        values={name: run.data.metrics[name] for name, run in sorted(origin.items())},
        history=history,
        by_run=_by_name(runs),
    )


def configure_mlflow() -> None:
    """Set what MLflow reads from the environment, also at its import; what a user set stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most :data:`CHART_POINTS` of the points, the first and the last among them."""
    if len(points) <= CHART_POINTS:
        return points
    stride = (len(points) - 1) / (CHART_POINTS - 1)
    return [points[round(number * stride)] for number in range(CHART_POINTS)]


def _store(ref: WorkspaceRef, tracking_uri: str | None) -> RestStore:
    """Return MLflow's own REST client with a token of ours.

    It asks for the token at each request, so that none expires, and none lies in the environment
    (``MLFLOW_TRACKING_TOKEN``), where child processes and other threads would find it.
    """
    configure_mlflow()
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.rest_utils import MlflowHostCreds

    if tracking_uri is None:
        raise ServiceError("The workspace does not say where its MLflow is.")
    host = tracking_uri.replace("azureml://", "https://", 1)
    if not host.startswith("https://"):
        raise ServiceError(f"{host[:80]} is no https address, and must not see a token.")
    scope = clients.cloud().arm_scope
    credential = clients.credential(ref)

    def signed() -> MlflowHostCreds:
        with translated("getting a token for MLflow"):
            return MlflowHostCreds(host, token=credential.get_token(scope).token)

    return RestStore(signed)


def _runs(store: RestStore, job_name: str) -> list[Run]:
    """Return the job's run and, by the tag that Azure ML sets, all runs below it, oldest first."""
    from mlflow.entities import ViewType

    job = store.get_run(job_name)
    if job.info.run_id != job_name:
        raise ServiceError(
            f"MLflow's answer is not the run {job_name}.", where=job_name, transient=True
        )
    below = _pages(
        lambda token: store.search_runs(
            [job.info.experiment_id],
            f"tags.mlflow.rootRunId = '{job_name}'",
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=_PAGE,
            page_token=token,
        )
    )
    steps = [run for run in below if run.info.run_id != job_name]
    return [job, *sorted(steps, key=lambda run: run.info.start_time or 0)]


def _history(store: RestStore, run_id: str, name: str) -> list[tuple[int, float]]:
    points = _pages(lambda token: store.get_metric_history(run_id, name, page_token=token))
    return sorted((int(point.step), float(point.value)) for point in points)


def _pages(page: Callable[[str | None], Any]) -> Iterator[Any]:
    token, seen = None, set[str]()
    while len(seen) < _MOST_PAGES:
        found = page(token)
        yield from found
        token = found.token
        if not token or token in seen:
            return
        seen.add(token)


def _by_name(runs: list[Run]) -> dict[str, dict[str, float]]:
    named: dict[str, dict[str, float]] = {}
    for run in runs:
        name = run.data.tags.get("mlflow.runName") or run.info.run_name or run.info.run_id
        if run.data.metrics:
            named[name if name not in named else f"{name} ({run.info.run_id})"] = dict(
                run.data.metrics
            )
    return named


@contextmanager
def _translated(job_name: str) -> Iterator[None]:
    """Turn what MLflow raises into ours; it wraps a failed request in its own exception."""
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except (MlflowException, ValueError) as error:
        status = error.get_http_status_code() if isinstance(error, RestException) else None
        raise ServiceError(
            f"MLflow failed to give the metrics of {job_name}: {scrubbed(str(error))[:400]}",
            status=status,
            where=job_name,
            transient=status is None or status in (408, 429) or status >= 500,
        ) from error
