"""What prefect.yaml says, for those who serve it and look after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]

RETRAIN = "finetune-chat-model/retrain"
ON_DEMAND = "finetune-chat-model/finetune-on-demand"
SWEEP = "sweep-endpoints/sweep-endpoints"
RESTART = "restart-crashed-run/restart-crashed"
RESTART_MISSED = "restart-missed-runs/restart-missed"

FINETUNE = (RETRAIN, ON_DEMAND)
"""The deployments that train."""

HELPERS = (SWEEP, RESTART, RESTART_MISSED)
"""Those that look after the runs of :data:`FINETUNE`."""

ALL = (*FINETUNE, *HELPERS)

HEARTBEAT_SECONDS = 60
"""What prefect.yaml sets for the runs of :data:`FINETUNE` (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""


def deployments() -> list[dict[str, Any]]:
    """Return the deployments as prefect.yaml has them."""
    listed: list[dict[str, Any]] = _document()["deployments"]
    return listed


def run_environment() -> dict[str, str]:
    """Return the environment variables that prefect.yaml gives to each run."""
    environ: dict[str, str] = _document()["definitions"]["work_pool"]["job_variables"]["env"]
    return environ


def _document() -> Any:
    return YAML(typ="safe", pure=True).load(ROOT / "prefect.yaml")
