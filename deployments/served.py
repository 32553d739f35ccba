"""``python -m deployments.served``: run what is scheduled of prefect.yaml's deployments, here.

A part of :mod:`deployments.serve`, in a process of its own: nothing but this process polls for
runs, and each run is a child of it. It needs no work pool and no worker.
"""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import load_flow_from_entrypoint
from prefect.runner import Runner

from lifecycle.config import load_config

from .definitions import FINETUNE, RESTART_MISSED, RETRAIN, deployments

FIRST_RETRAINING_SECONDS = 60
"""How long after the start the first retraining of a short interval comes."""

FIRST_LOOK_SECONDS = 180
"""How long after the start crashed runs are first looked for that no automation has started again.

What the last stack left is said to have crashed while Prefect's server starts, and a server that is
just starting may miss that. Longer than an automation takes.
"""


def main(arguments: list[str] | None = None) -> None:
    """Serve until told to stop; *ready* is made when the deployments are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--retrain-every", type=float)
    parser.add_argument("--ready", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    config = load_config(chosen.config, chosen.set).model_dump(mode="json", exclude_unset=True)
    runner = Runner(pause_on_shutdown=False)
    for deployment in local_deployments(config, chosen.retrain_every):
        runner.add_deployment(deployment)
    chosen.ready.touch()
    asyncio.run(runner.start())


def local_deployments(
    config: dict[str, Any], retrain_every: float | None = None
) -> list[RunnerDeployment]:
    """Return prefect.yaml's deployments, with the parameters and the workspace of *config*.

    Args:
        config: The sections of a configuration, as JSON.
        retrain_every: Seconds from one retraining to the next, instead of prefect.yaml's schedule.
    """
    return [_local(deployment, config, retrain_every) for deployment in deployments()]


def _local(
    deployment: dict[str, Any], config: dict[str, Any], retrain_every: float | None
) -> RunnerDeployment:
    flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"])
    name = f"{flow.name}/{deployment['name']}"
    accepted = flow.parameters.properties
    given = config if name in FINETUNE else {k: v for k, v in config.items() if k == "workspace"}
    base = {} if name in FINETUNE else deployment.get("parameters", {})
    # A workspace is configured, serve has looked: no schedule need be paused.
    schedules = [_schedule(one) for one in deployment.get("schedules", [])]
    if name == RETRAIN and retrain_every is not None:
        first = min(retrain_every, FIRST_RETRAINING_SECONDS)
        schedules = [_every(retrain_every, first, one.slug) for one in schedules]
    if name == RESTART_MISSED:
        [every] = [entry["interval"] for entry in deployment["schedules"]]
        schedules = [_every(every, FIRST_LOOK_SECONDS, one.slug) for one in schedules]
        base = {**base, "crashed_minutes": FIRST_LOOK_SECONDS / 60 - 1}
    return RunnerDeployment.from_flow(
        flow,
        deployment["name"],
        description=deployment["description"],
        tags=deployment["tags"],
        parameters=base | {name: value for name, value in given.items() if name in accepted},
        schedules=schedules,
        concurrency_limit=ConcurrencyLimitConfig.model_validate(deployment["concurrency_limit"]),
        # What was paused when the last stack here was stopped goes on.
        paused=False,
    )


def _schedule(entry: dict[str, Any]) -> DeploymentScheduleCreate:
    when = (
        CronSchedule(cron=entry["cron"], timezone=entry["timezone"])
        if "cron" in entry
        else IntervalSchedule(interval=timedelta(seconds=entry["interval"]))
    )
    return DeploymentScheduleCreate(schedule=when, slug=entry["slug"])


def _every(seconds: float, first: float, slug: str | None) -> DeploymentScheduleCreate:
    anchor = datetime.now(UTC) + timedelta(seconds=first)
    when = IntervalSchedule(interval=timedelta(seconds=seconds), anchor_date=anchor)
    return DeploymentScheduleCreate(schedule=when, slug=slug)


if __name__ == "__main__":
    main()
