"""From `prefect deploy --all` to a retraining that is scheduled."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from azureml_emulator import settings as names
from azureml_emulator.environment import client_environment
from azureml_emulator.pytest_plugin import RunningEmulator
from prefect import get_client
from prefect.client.schemas.objects import ConcurrencyLimitStrategy

from deployments.definitions import ALL, FINETUNE, HEARTBEAT_SECONDS, RESTART_MISSED, RETRAIN, SWEEP


@pytest.fixture(scope="module")
def deployed(prefect_server: str) -> Any:
    """What plain `prefect deploy --all` makes, and what it said."""
    environ = {name: value for name, value in os.environ.items() if name != "FINETUNE_HOME"}
    _python(environ, "-m", "prefect", "work-pool", "create", "finetune", "--type", "process")
    said = _python(environ, "-m", "prefect", "--no-prompt", "deploy", "--all")
    assert 0 == said.returncode, said.stderr
    return said.stdout


def test_every_deployment_is_accepted(deployed: str) -> None:
    """All flows are found by their entrypoints; each deployment says what it is for."""
    assert len(ALL) == deployed.count("successfully created")
    for name in ALL:
        one = _read(name)

        assert "finetune" in one.tags
        assert "finetune" == one.work_pool_name
        assert one.description is not None
        assert one.description.rstrip().endswith(".")
        assert one.enforce_parameter_schema
        assert one.global_concurrency_limit is not None
        assert 1 == one.global_concurrency_limit.limit
        assert one.concurrency_options is not None
    strategies = {_read(name).concurrency_options.collision_strategy for name in FINETUNE}
    assert {ConcurrencyLimitStrategy.CANCEL_NEW, ConcurrencyLimitStrategy.ENQUEUE} == strategies


def test_the_code_is_found_where_the_run_is(deployed: str) -> None:
    """FINETUNE_HOME is read on the machine that runs the flow, not on the one that deployed it."""
    [step] = _read(RETRAIN).pull_steps or []

    assert ["{{ $FINETUNE_HOME }}"] == [one["directory"] for one in step.values()]


def test_the_heartbeat_that_is_waited_for_is_the_one_that_is_set(deployed: str) -> None:
    """Else healthy runs are taken for crashed."""
    for name in ALL:
        environ = _read(name).job_variables["env"]

        assert str(HEARTBEAT_SECONDS) == environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]


def test_schedules_wait_until_a_workspace_is_configured(
    deployed: str, emulator: RunningEmulator
) -> None:
    """They are paused and say so; setup looks at the workspace, names it, and sets them going."""
    [before] = _read(RETRAIN).schedules
    assert (False, "UTC", "0 3 * * 0") == (
        before.active,
        before.schedule.timezone,
        before.schedule.cron,
    )
    scheduled = (RETRAIN, SWEEP, RESTART_MISSED)
    for name in scheduled:
        assert [False] == [one.active for one in _read(name).schedules]
        assert "paused until a workspace is configured" in (_read(name).description or "")

    environ = client_environment(emulator.server, os.environ) | {
        name: value for name, value in os.environ.items() if name.startswith("PREFECT_")
    }
    wrong = _python(environ, "-m", "deployments.setup", "--set", "workspace.name=nobody")
    assert (2, False) == (wrong.returncode, _read(RETRAIN).schedules[0].active), wrong.stderr
    odd = _python(environ, "-m", "deployments.setup", "--notify", "slack-webhook/nobody")
    assert (2, False) == (odd.returncode, _read(RETRAIN).schedules[0].active), odd.stderr
    assert "workspace" not in _read(RETRAIN).parameters

    said = _python(environ, "-m", "deployments.setup", "--config", "profiles/tiny.yaml")

    assert 0 == said.returncode, said.stderr
    assert [True] * 3 == [one.active for name in scheduled for one in _read(name).schedules]
    assert list(FINETUNE) == _read(RESTART_MISSED).parameters["deployments"]
    assert "tiny-phi3-stand-in" == _read(RETRAIN).parameters["model"]["name"]
    assert {"apply", "workspace"} == set(_read(SWEEP).parameters)
    for name in (*FINETUNE, SWEEP):
        assert names.WORKSPACE_NAME == _read(name).parameters["workspace"]["name"]


def test_setup_before_deploy_is_refused(prefect_server: str, emulator: RunningEmulator) -> None:
    """It says what to do first."""
    with get_client(sync_client=True) as client:
        for name in ALL:
            client.delete_deployment(client.read_deployment_by_name(name).id)
    environ = client_environment(emulator.server, os.environ) | {
        name: value for name, value in os.environ.items() if name.startswith("PREFECT_")
    }

    said = _python(environ, "-m", "deployments.setup")

    assert (2, True) == (said.returncode, "Run `prefect deploy --all` first" in said.stderr)


def _read(name: str) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name)


def _python(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
