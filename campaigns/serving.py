"""``python -m campaigns.serving``: serve the flows, until it is told to stop."""

from __future__ import annotations

from prefect import serve
from prefect.deployments.runner import RunnerDeployment

from flows.finetune import finetune_chat_model
from flows.restart import restart_crashed_run
from flows.sweep import sweep_endpoints

if __name__ == "__main__":
    flows = (finetune_chat_model, sweep_endpoints, restart_crashed_run)
    deployments = [RunnerDeployment.from_flow(flow, name="served") for flow in flows]
    serve(*deployments, limit=8, pause_on_shutdown=False)
