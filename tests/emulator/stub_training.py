"""The trainer's protocol without training: what a step's process is told and says, in no time.

The pipeline's input ``evaluation_config_params``, which no step of ours reads, says what goes wrong
as ``KIND:DEED``; the kinds are those of the request, the deeds those of `main`.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from azureml_emulator.processes import exit_with_parent


def main() -> int:
    """Do one step."""
    exit_with_parent()
    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    print(f"{request['step']} of {request['job']}")
    kind, _, deed = request["parameters"].get("evaluation_config_params", "").partition(":")
    checkpoint = Path(request["work"]) / "checkpoint"
    if request["step"] == "finetune":
        say(request, {"metrics": {"loss": 0.5, "eval_loss": float("nan")}, "step": 10})
    if kind == request["step"]:
        if checkpoint.exists():
            print("resumed")
        elif deed == "wait":
            wait(checkpoint)
        elif deed == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            wait(checkpoint)
        elif deed == "fail":
            say(request, {"failed": "Row 3 of train.jsonl has no messages."})
            return 1
        elif deed == "crash":
            print("ValueError: shapes do not fit", end="")
            return 3
        elif deed == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    for name, folder in request["outputs"].items():
        made = Path(folder) / ("MLmodel" if name == "mlflow_model_folder" else "deep/made.json")
        made.parent.mkdir(exist_ok=True)
        made.write_text(json.dumps({**request, "flavors": {}, "found": found(request)}))
    return 0


def say(request: dict[str, Any], event: dict[str, Any]) -> None:
    """Append an event."""
    with Path(request["events"]).open("a") as events:
        events.write(json.dumps(event) + "\n")


def wait(checkpoint: Path) -> None:
    """Leave a checkpoint and a child of its own, and do not end."""
    child = subprocess.Popen(["sleep", "600"])
    print(f"processes {os.getpid()} {child.pid}")
    checkpoint.write_text("10")
    time.sleep(600)


def found(request: dict[str, Any]) -> dict[str, list[str]]:
    """Return what the steps before have left, by input."""
    return {
        name: sorted(path.name for path in Path(folder).rglob("*") if path.is_file())
        for name, folder in request["upstream"].items()
    }


if __name__ == "__main__":
    sys.exit(main())
