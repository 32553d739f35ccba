"""What starts a run: the calendar, a person at the CLI or the API, an event."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event

from deployments.automations import DATA_CHANGED, ensure_automations
from deployments.definitions import ON_DEMAND


def test_an_event_about_data_starts_a_retraining(deployed: Any) -> None:
    """Whoever sends it: the automation runs the deployment with its own parameters."""
    ensure_automations(grace=timedelta(0))
    # The server loads an automation a moment after it is made; an event before that is lost.
    time.sleep(2)

    emit_event(DATA_CHANGED, resource={"prefect.resource.id": "lake.chats"})

    [run] = _await(lambda: _runs(deployed, "retrain", by="AUTOMATION"))
    assert "tiny-phi3-stand-in" == run.parameters["model"]["name"]


def test_the_calendar_starts_a_retraining(deployed: Any) -> None:
    """prefect.yaml's schedule is taken by the server: Sundays at three, UTC."""
    first, *_ = _await(lambda: _runs(deployed, "retrain", by="SCHEDULE"))

    planned = first.expected_start_time
    assert (6, 3, 0) == (planned.weekday(), planned.hour, planned.minute)
    assert timedelta(0) == planned.utcoffset()


def test_the_command_line_starts_a_run(deployed: Any) -> None:
    """One value is changed; the others stay those of the deployment."""
    words = ["deployment", "run", ON_DEMAND, "--param", 'model={"name": "Phi-4"}']
    said = subprocess.run(
        [sys.executable, "-m", "prefect", *words], capture_output=True, text=True, check=False
    )

    assert 0 == said.returncode, said.stderr
    [run] = _runs(deployed, "finetune-on-demand")
    assert ("Phi-4", "gpu-cluster") == (
        run.parameters["model"]["name"],
        run.parameters["compute"]["name"],
    )


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"dataset": {"percentage": 101}}, "101"),
        ({"job": {"queue_deadline_minutes": "soon"}}, "soon"),
        ({"dataset": {"percentag": 5}}, "percentag"),
    ],
    ids=["bound", "type", "name"],
)
def test_the_api_refuses_a_wrong_value(
    deployed: Any, prefect_server: str, parameters: dict[str, Any], named: str
) -> None:
    """Before a run exists; the answer says which value."""
    before = len(_runs(deployed, "finetune-on-demand"))
    deployment = deployed.read_deployment_by_name(ON_DEMAND)
    request = urllib.request.Request(
        f"{prefect_server}/deployments/{deployment.id}/create_flow_run",
        data=json.dumps({"parameters": parameters}).encode(),
        headers={"Content-Type": "application/json"},
    )

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)

    assert (409, True) == (refused.value.code, named in refused.value.read().decode())
    assert before == len(_runs(deployed, "finetune-on-demand"))


def _runs(client: Any, deployment: str, by: str | None = None) -> list[FlowRun]:
    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    )
    return [run for run in found if by is None or (run.created_by and run.created_by.type == by)]


def _await(look: Callable[[], list[FlowRun]]) -> list[FlowRun]:
    end = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < end, "no run within 30 seconds"
        time.sleep(0.2)
    return found
