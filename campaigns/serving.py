"""``python -m campaigns.serving``: serve the flows, until it is told to stop.

Crashes that no automation saw are looked for more often than prefect.yaml does: no campaign has a
quarter of an hour to spare.
"""

from __future__ import annotations

from prefect import serve
from prefect.deployments.runner import RunnerDeployment

from flows.finetune import finetune_chat_model
from flows.restart import restart_crashed_run, restart_missed_runs
from flows.sweep import sweep_endpoints

LOOK_SECONDS = 120

if __name__ == "__main__":
    flows = (finetune_chat_model, sweep_endpoints, restart_crashed_run)
    missed = RunnerDeployment.from_flow(
        restart_missed_runs,
        name="served",
        interval=LOOK_SECONDS,
        parameters={
            "deployments": ["finetune-chat-model/served"],
            "crashed_minutes": 1,
            "silent_minutes": 3,
        },
    )
    deployments = [RunnerDeployment.from_flow(flow, name="served") for flow in flows]
    serve(missed, *deployments, limit=8, pause_on_shutdown=False)
