"""What the tests of jobs, history, MLflow and models share: submitting the tutorial's pipeline."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import requests
from azureml_emulator import settings as names
from azureml_emulator.services import storage

from tests.conftest import RunningEmulator
from tests.emulator.conftest import Wire

COMPONENT = (
    resources.files("azureml_emulator") / "catalogs/components/chat_completion_pipeline.json"
)
CATALOG = f"""\
location: eastus2
sizes:
  - {{name: Standard_D12_v2, family: standardDv2Family, gpus: 0, vcpus: 4, memory_gb: 28,
     usd_per_hour: 0.37, low_priority: true}}
  - {{name: Standard_ND40rs_v2, family: standardNDSv2Family, gpus: 8, vcpus: 40, memory_gb: 672,
     usd_per_hour: 22.032, low_priority: true}}
quotas: {{standardDv2Family: 24, standardNDSv2Family: 200}}
models:
  - {{name: Phi-3-mini-4k-instruct, version: "1", type: mlflow_model, tags: {{}}, properties: {{}},
     system_metadata: {{}}, archived: false, description: For tests., created: 2024-04-23}}
components: ["{COMPONENT}"]
"""
MODEL_ID = "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/1"
COMPONENT_ID = "azureml://registries/azureml/components/chat_completion_pipeline/versions/0.0.82"
TRAIN = "azureml://datastores/workspaceblobstore/paths/LocalUpload/abc/train.jsonl"
NODE = "chat_completion_pipeline"
STEPS = [
    "ft_nlp_common_validation",
    "chat_completion_model_import",
    "chat_completion_datapreprocess",
    "chat_completion_finetune",
    "ft_nlp_model_converter",
]


def jobs_catalog(folder: Path) -> str:
    """Write a small catalogue with the real pipeline component and return its path."""
    file = folder / "jobs-catalog.yaml"
    file.write_text(CATALOG, encoding="utf-8")
    return str(file)


def body(inputs: dict[str, Any] | None = None, /, **properties: Any) -> dict[str, Any]:
    """Return the PUT body that the SDK makes of the tutorial's pipeline, on serverless compute.

    Args:
        inputs: Literals (or whole entries) to add to those of the component, or None to take away.
        properties: What to put in place of the job's own REST properties.
    """
    given: dict[str, Any] = {
        "mlflow_model_path": {"job_input_type": "mlflow_model", "uri": MODEL_ID},
        "train_file_path": {"job_input_type": "uri_file", "uri": TRAIN},
        "instance_type_finetune": "Standard_ND40rs_v2",
        "number_of_gpu_to_use_finetuning": "8",
        "num_train_epochs": "3",
        "lr_scheduler_type": "cosine",
        "apply_lora": "true",
    } | (inputs or {})
    entries = {
        name: value if isinstance(value, dict) else {"job_input_type": "literal", "value": value}
        for name, value in given.items()
        if value is not None
    }
    node = {
        "name": NODE,
        "type": "pipeline",
        "componentId": COMPONENT_ID,
        "inputs": entries,
        "outputs": {
            "mlflow_model_folder": {"value": "${{parent.outputs.trained_model}}", "type": "literal"}
        },
        "_source": "REMOTE.REGISTRY",
    }
    return {
        "properties": {
            "jobType": "Pipeline",
            "displayName": "tuned",
            "experimentName": "chat",
            "tags": {"finetune-owner": "run-1"},
            "properties": {},
            "isArchived": False,
            "settings": {"continue_on_step_failure": False, "force_rerun": True, "_source": "DSL"},
            "inputs": {},
            "outputs": {"trained_model": {"jobOutputType": "mlflow_model"}},
            "jobs": {NODE: node},
        }
        | properties
    }


class Jobs:
    """Submits jobs to an emulator over the wire and looks at them.

    Args:
        emulator: With the catalogue of :func:`jobs_catalog`.
    """

    def __init__(self, emulator: RunningEmulator) -> None:
        self.emulator = emulator
        self.wire = Wire(emulator)
        self.upload(TRAIN, '{"messages": []}\n' * 100)

    def upload(self, uri: str, text: str) -> None:
        """Put a file into the workspace's blob store."""
        name = uri.partition("/paths/")[2]
        storage.write_blob(self.emulator.server.emulator, "azureml-blobstore", name, text.encode())

    def put(self, name: str, content: dict[str, Any] | None = None) -> requests.Response:
        """Send the PUT of a job."""
        return self.wire("PUT", f"jobs/{name}", content or body())

    def submit(self, name: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Submit a job and return the answer."""
        answer = self.put(name, content)
        assert answer.status_code == 201, answer.text
        submitted: dict[str, Any] = answer.json()
        return submitted

    def properties(self, name: str) -> dict[str, Any]:
        """Return the REST properties of a job."""
        properties: dict[str, Any] = self.wire("GET", f"jobs/{name}").json()["properties"]
        return properties

    def status(self, name: str) -> str:
        """Return the status of a job."""
        return str(self.properties(name)["status"])

    def history(self, path: str) -> dict[str, Any]:
        """Return what run history says at *path*."""
        answer = self.wire("GET", f"/history/v1.0{names.WORKSPACE_ID}/{path}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def details(self, run: str) -> dict[str, Any]:
        """Return the details of a run."""
        return self.history(f"runs/{run}/details")

    def children(self, run: str) -> dict[str, dict[str, Any]]:
        """Return the children of a run by their display names."""
        return {run["displayName"]: run for run in self.history(f"runs/{run}/children")["value"]}

    def steps(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the steps of a job that there are so far, by key."""
        node = self.children(name).get(NODE)
        return self.children(node["runId"]) if node else {}

    def log(self, run: str, file: str = "user_logs/std_log.txt") -> str:
        """Return a log file of a run, read by its URL as the SDK reads it: without a token."""
        url = self.details(run)["logFiles"].get(file)
        if url is None:
            return ""
        answer = self.wire("GET", url, headers={"Authorization": None})
        assert answer.status_code == 200, answer.text
        return answer.text

    def advance_until(self, name: str, status: str) -> list[str]:
        """Move a manual clock in half seconds until the job has *status*; return those it had."""
        seen = [self.status(name)]
        while seen[-1] != status:
            assert len(seen) < 1000, seen
            self.emulator.advance(0.5)
            if (now := self.status(name)) != seen[-1]:
                seen.append(now)
        return seen
