"""What every step has in common: a Prefect task with one retry policy, timed for the report."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import INPUTS, NO_CACHE, RUN_ID
from prefect.client.schemas.objects import State, TaskRun

from lifecycle.errors import FinetuneError, ServiceError
from lifecycle.report import current_report

P = ParamSpec("P")
R = TypeVar("R")

# The last one for a refusal alone: a new role has arrived by then, two minutes after the first try.
RETRY_DELAYS_SECONDS = [2.0, 10.0, 30.0, 80.0]


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Say whether the step is tried again: only an error that calls itself transient is.

    A plain function, since Prefect takes any other callable for "never".
    """
    error = state.result(raise_on_failure=False)
    if not isinstance(error, FinetuneError) or not error.transient:
        return False
    is_refusal = isinstance(error, ServiceError) and error.status == 403
    return is_refusal or task_run.run_count < len(RETRY_DELAYS_SECONDS)


def step(
    *,
    remembered: bool = False,
    retried: bool = True,
    cleanup: bool = False,
    run_name: str | Callable[[], str] | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Turn a function into a Prefect task of the same name.

    Args:
        remembered: Whether its result is kept for this flow run, so that a retry of the run has
            the same one. Only for what is read from Azure, never for what is made or deleted there.
        retried: Whether a transient error is met by trying again.
        cleanup: Whether it runs also when the run has been asked to stop.
        run_name: The task run's name in the UI, with parameters in braces, or what makes it; the
            function's own where not given.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            report = current_report()
            if report is None:
                return function(*args, **kwargs)
            if not cleanup:
                report.go_on()
            with report.timing(function.__name__):
                return function(*args, **kwargs)

        return Task(
            timed,
            name=function.__name__,
            task_run_name=run_name or function.__name__.replace("_", " "),
            retries=len(RETRY_DELAYS_SECONDS) if retried else 0,
            retry_delay_seconds=RETRY_DELAYS_SECONDS if retried else None,
            retry_jitter_factor=0.3 if retried else None,
            retry_condition_fn=is_transient if retried else None,
            cache_policy=INPUTS + RUN_ID if remembered else NO_CACHE,
            persist_result=remembered,
            result_serializer="json" if remembered else None,
        )

    return decorate
