"""Reports of runs that have ended, as a run fills them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Document = dict[str, Any]

STEPS = {
    "start_prefect": (0, 4),
    "authenticate": (4, 5),
    "select_model": (5, 6),
    "download_data": (5, 8),
    "check_plan": (8, 8),
    "ensure_compute": (8, 9),
    "submit_job": (9, 10),
    "stream_job": (10, 70),
    "review_metrics": (70, 71),
    "register_model": (70, 72),
    "create_endpoint": (72, 75),
    "deploy_model": (75, 85),
    "invoke_endpoint": (85, 90),
    "evaluate_replies": (90, 90),
    "delete_endpoint": (90, 100),
}


def at(second: float) -> str:
    """A moment of the run."""
    return f"2026-11-21T10:{int(second) // 60:02d}:{second % 60:06.3f}+00:00"


def entry(name: str, began: float, ended: float, state: str = "Completed") -> Document:
    """A step of the report."""
    return {"name": name, "state": state, "began_at": at(began), "ended_at": at(ended)}


@pytest.fixture
def make_report() -> Callable[..., Document]:
    """A completed run of a hundred seconds; what is given takes the place of its fields."""

    def make(**fields: Any) -> Document:
        response = {
            "earlier": [{"role": "user", "content": "hello"}],
            "prompt": "Who winds the <b>clock</b>?",
            "reply": "Odette the otter.",
            "reference": "Odette the otter.",
            "before": "I do not know.",
        }
        return {
            "state": "Completed",
            "error": None,
            "began_at": at(0),
            "ended_at": at(100),
            "flow_run_id": "00000000-0000-4000-8000-000000000001",
            "workspace": {
                "ref": {"name": "emulator"},
                "region": "eastus2",
                "studio_url": "https://ml.azure.com/home?wsid=/subscriptions/s&tid=t",
            },
            "model": {
                "name": "Tiny",
                "version": "1",
                "id": "azureml://m",
                "description": "A stand-in of 2 layers.",
            },
            "compute": {
                "name": "gpu-cluster",
                "size": "Standard_NC4as_T4_v3",
                "gpus": 1,
                "nodes": 1,
                "created": True,
                "min_instances": 0,
            },
            "dataset": {
                "name": "demo/ultrachat",
                "revision": None,
                "files": [{"split": "train_sft", "path": "x", "rows": 240, "sha256": "ab" * 32}],
            },
            "training": {
                "component": "chat_completion_pipeline",
                "version": "0.0.82",
                "parameters": {"learning_rate": 1e-3},
            },
            "job": {
                "name": "ft-x-a1",
                "status": "Completed",
                "attempts": 1,
                "display_name": "Tiny-ultrachat",
                "studio_url": "https://ml.azure.com/runs/ft-x-a1",
                "seconds": 58.0,
                "steps": [
                    {
                        "name": "chat_completion_finetune",
                        "status": "Completed",
                        "began_at": at(20),
                        "ended_at": at(60),
                    }
                ],
            },
            "metrics": {"loss": 0.02, "eval_loss": 0.03, "perplexity": "Infinity"},
            "metric_history": {
                "loss": [[1, 3.0], [2, 1.0], [3, 0.02]],
                "perplexity": [[1, 9.0], [3, "Infinity"]],
            },
            "registered_model": {"name": "Tiny-ultrachat", "version": "7", "id": "azureml:t:7"},
            "endpoint": {
                "name": "local-x-a1",
                "deployment": "demo",
                "deployments": [{"name": "demo", "model": "azureml:t:7", "began_at": at(75)}],
                "created": True,
                "deleted": True,
                "deleted_at": at(99),
            },
            "responses": [response],
            "evaluation": {
                "n": 20,
                "exact_match_before": 0.0,
                "exact_match_after": 0.95,
                "rouge_l_before": 0.1,
                "rouge_l_after": 0.98,
            },
            "cost": {
                "currency": "USD",
                "training_usd": 0.02,
                "endpoint_usd": 0.004,
                "total_usd": 0.024,
                "forgotten_day_usd": 12.62,
                "assumptions": ["At list price."],
            },
            "warnings": [],
            "timings": {},
            "steps": [entry(name, *span) for name, span in STEPS.items()],
            "still_billing": [],
            **fields,
        }

    return make
