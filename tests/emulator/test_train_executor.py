"""Steps as processes: what they are told, what becomes of what they say, and how they end.

The processes run `stub_training`, which speaks the trainer's protocol and does not train.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator.emulator import Emulator
from azureml_emulator.executors import Status, Step
from azureml_emulator.executors.train import TrainExecutor
from azureml_emulator.server import Server
from azureml_emulator.services import artifacts, runs, storage
from azureml_emulator.settings import Settings

from tests.conftest import RunningEmulator
from tests.emulator.submitting import MODEL_ID, STEPS, Jobs, body, jobs_catalog

HERE = Path(__file__).parent
FINETUNE = "chat_completion_finetune"


@pytest.fixture(autouse=True)
def stub_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container finds the stub, and the emulator, where the emulator's Python would."""
    path = os.pathsep.join([str(HERE), *sys.path])
    monkeypatch.setenv("PYTHONPATH", path)


@contextmanager
def running(folder: Path, *, jobs: str = "scripted", latency: str = "instant") -> Iterator[Jobs]:
    """Run an emulator on *folder* whose steps are processes of the stub."""
    settings = Settings(folder / "state", jobs=jobs, latency=latency, catalog=jobs_catalog(folder))
    emulator = Emulator(settings)
    emulator.executor = TrainExecutor(folder / "cache", module="stub_training")
    with Server(emulator) as server:
        yield Jobs(RunningEmulator(server))


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """Jobs whose steps are processes of the stub."""
    with running(tmp_path) as found:
        yield found


def submit(jobs: Jobs, deed: str = "", **properties: Any) -> None:
    """Submit the job ``ft-1``, of which one step does *deed*."""
    jobs.submit("ft-1", body({"evaluation_config_params": deed} if deed else {}, **properties))


def until(jobs: Jobs, *wanted: str) -> str:
    """Wait until the job has one of the statuses *wanted*, and return it."""
    end = time.monotonic() + 30
    while (status := jobs.status("ft-1")) not in wanted:
        assert time.monotonic() < end, status
        time.sleep(0.02)
    return status


def processes(jobs: Jobs) -> list[int]:
    """Wait until the training step waits, and return its process and that one's child."""
    end = time.monotonic() + 30
    while "processes" not in (log := training_log(jobs)):
        assert time.monotonic() < end, log
        time.sleep(0.02)
    line = log[log.index("processes") :].split("\n")[0]
    return [int(word) for word in line.split()[1:]]


def training_log(jobs: Jobs) -> str:
    """Return the log of the training step so far."""
    step = jobs.steps("ft-1").get(FINETUNE)
    return jobs.log(step["runId"]) if step else ""


def failure(jobs: Jobs, key: str = FINETUNE) -> str:
    """Wait until the job has failed and return why the step *key* did."""
    assert "Failed" == until(jobs, "Failed", "Completed")
    return str(jobs.steps("ft-1")[key]["error"]["error"]["message"])


def alive(pids: list[int]) -> list[int]:
    """Return which of the processes run; one that is dead and not yet buried does not."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, pids))],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, state in rows if not state.startswith("Z")]


def made(jobs: Jobs, key: str, output: str, path: str = "deep/made.json") -> dict[str, Any]:
    """Return what the stub wrote into an output of the step *key*: its request, and more."""
    emulator = jobs.emulator.server.emulator
    run = runs.known_run(emulator, runs.child_id("ft-1", key))
    data = artifacts.read(emulator, run["outputs"][output], path)
    assert data is not None
    content: dict[str, Any] = json.loads(data)
    return content


def left(jobs: Jobs) -> list[Path]:
    """Return the folders of steps that are there."""
    steps = jobs.emulator.state / "steps"
    return list(steps.iterdir()) if steps.exists() else []


def test_each_step_is_a_process_that_gets_what_the_ones_before_it_made(jobs: Jobs) -> None:
    """Five processes, in order, each with the outputs it is wired to; nothing is left of them."""
    submit(jobs)

    assert "Completed" == until(jobs, "Completed", "Failed")
    logs = [jobs.log(run["runId"]) for run in jobs.steps("ft-1").values()]
    kinds = ["validation", "model_import", "preprocess", "finetune", "convert"]
    assert [f"{kind} of ft-1\n" for kind in kinds] == logs
    assert {
        "preprocess_output": ["made.json"],
        "model_selector_output": ["made.json"],
    } == made(jobs, FINETUNE, "pytorch_model_folder")["found"]
    model = made(jobs, "ft_nlp_model_converter", "mlflow_model_folder", "MLmodel")
    assert {"model_path": ["made.json"]} == model["found"]
    assert [] == left(jobs)


def test_a_process_is_told_what_the_protocol_says(jobs: Jobs) -> None:
    """Every parameter as text, files and the model as paths, and where to leave what."""
    submit(jobs)
    until(jobs, "Completed")
    told = made(jobs, FINETUNE, "pytorch_model_folder")

    assert {"step": "finetune", "job": "ft-1", "gpus": 8, "nodes": 1} == {
        name: told[name] for name in ("step", "job", "gpus", "nodes")
    }
    assert ("3", "cosine") == (
        told["parameters"]["num_train_epochs"],
        told["parameters"]["lr_scheduler_type"],
    )
    assert {"cosine"} <= set(told["declared"]["lr_scheduler_type"]["enum"])
    assert Path(told["files"]["train_file_path"]).read_text().startswith('{"messages"')
    assert (MODEL_ID, "Phi-3-mini-4k-instruct", "1") == tuple(
        told["model"][name] for name in ("id", "name", "version")
    )
    assert all(Path(told[name]).is_absolute() for name in ("work", "events"))


def test_metrics_come_as_they_are_logged(jobs: Jobs) -> None:
    """Value, training step, and also what is no number."""
    submit(jobs)
    until(jobs, "Completed")
    run = jobs.steps("ft-1")[FINETUNE]["runId"]
    history = runs.metric_history(jobs.emulator.server.emulator, run)

    assert [(0.5, 10)] == [(one.value, one.step) for one in history["loss"]]
    assert math.isnan(history["eval_loss"][0].value)


def test_a_step_that_says_why_it_failed_is_quoted(jobs: Jobs) -> None:
    """The sentence is the step's error; the next step does not begin."""
    submit(jobs, "preprocess:fail")

    said = failure(jobs, "chat_completion_datapreprocess")
    assert "Row 3 of train.jsonl has no messages." == said
    assert STEPS[:3] == list(jobs.steps("ft-1"))
    assert [] == left(jobs)


def test_a_step_that_crashed_is_told_of_with_its_last_words(jobs: Jobs) -> None:
    """Also when they do not end with a newline."""
    submit(jobs, "finetune:crash")

    said = failure(jobs)
    assert "exit code 3; its last words: ValueError: shapes do not fit." in said
    assert said in training_log(jobs)


def test_a_killed_process_is_told_of_with_the_likely_cause(jobs: Jobs) -> None:
    """Signal 9 out of nowhere is the kernel's word for too little memory."""
    submit(jobs, "finetune:wait")
    os.kill(processes(jobs)[0], signal.SIGKILL)

    said = failure(jobs)
    assert "was killed by signal 9 (SIGKILL), most often for want of memory" in said


def test_wrong_inputs_are_found_before_a_process_is_started(jobs: Jobs) -> None:
    """By the rules that the scripted steps have too."""
    jobs.submit("ft-1", body({"num_train_epochs": "none"}))

    assert "Invalid value for input 'num_train_epochs'" in failure(jobs, STEPS[0])


@pytest.mark.parametrize("deed", ["wait", "deaf"])
def test_nothing_of_a_canceled_job_runs_any_more(jobs: Jobs, deed: str) -> None:
    """Neither its process, deaf to SIGTERM or not, nor what that one started."""
    submit(jobs, f"finetune:{deed}")
    pids = processes(jobs)
    jobs.wire("POST", "jobs/ft-1/cancel")

    assert [] == alive(pids)
    assert "Canceled" == until(jobs, "Canceled")
    assert ([], []) == (left(jobs), jobs.emulator.open_meters())


def test_a_preempted_step_goes_on_from_its_checkpoint(jobs: Jobs) -> None:
    """It loses its node, waits for another, is billed for both, and the job completes."""
    jobs.emulator.faults(
        {
            "match": {"method": "PUT", "path": "/jobs/"},
            "effect": {"job": {"status": "Preempted", "step": "finetune"}},
        }
    )
    submit(jobs, "finetune:wait")

    assert "Completed" == until(jobs, "Completed", "Failed")
    log = training_log(jobs)
    assert log.index("processes") < log.index("preempted") < log.index("resumed")
    reasons = [meter["reason"] for meter in jobs.emulator.ledger()["meters"]]
    assert (6, 1) == (len(reasons), reasons.count("Preempted"))


@pytest.mark.parametrize("status", ["Failed", "NotResponding"])
def test_a_fault_ends_a_step_that_works(jobs: Jobs, status: str) -> None:
    """As the rule wants it, and the process with it."""
    fault = {"status": status, "step": "finetune", "message": "node lost"}
    jobs.emulator.faults({"match": {"method": "PUT", "path": "/jobs/"}, "effect": {"job": fault}})
    submit(jobs, "finetune:wait")

    assert status == until(jobs, status)
    assert [] == alive(processes(jobs))
    assert "node lost" in training_log(jobs)


def test_a_stopped_emulator_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopping ends the processes at once; the next start begins the step from its checkpoint."""
    with running(tmp_path) as jobs:
        submit(jobs, "finetune:wait")
        pids = processes(jobs)
    assert [] == alive(pids)
    with running(tmp_path) as jobs:
        assert "Completed" == until(jobs, "Completed", "Failed")

        assert "The emulator was started again" in training_log(jobs)
        assert "resumed" in training_log(jobs)


SERVE = """
import sys
from pathlib import Path
from tests.emulator.test_train_executor import running, submit, processes
with running(Path(sys.argv[1])) as jobs:
    submit(jobs, "finetune:wait")
    print(*processes(jobs), flush=True)
    sys.stdin.read()
"""


def test_nothing_outlives_a_killed_emulator(tmp_path: Path) -> None:
    """Not the process of a step, nor what that one started; and the job is not lost."""
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as emulator:
        assert emulator.stdout is not None
        pids = [int(word) for word in emulator.stdout.readline().split()]
        assert pids == alive(pids)
        emulator.kill()
    end = time.monotonic() + 10
    while alive(pids):
        assert time.monotonic() < end, pids
        time.sleep(0.01)
    with running(tmp_path) as jobs:
        assert "Completed" == until(jobs, "Completed", "Failed")


def test_a_step_that_another_executor_began_is_not_left_running(tmp_path: Path) -> None:
    """A state folder may be used with another --jobs; what was under way then fails and says so."""
    with running(tmp_path) as jobs:
        submit(jobs, "finetune:wait")
        processes(jobs)
    with running(tmp_path, jobs="train") as jobs:
        assert "begun with --jobs scripted, and now it is train" in failure(jobs)


def test_an_output_is_moved_not_copied(jobs: Jobs, tmp_path: Path) -> None:
    """A model is hundreds of megabytes: its bytes are never read."""
    emulator = jobs.emulator.server.emulator
    file = jobs.emulator.state / "weights"
    file.write_bytes(b"w" * 10)
    number = file.stat().st_ino
    blob = storage.adopt_blob(emulator, "azureml-blobstore", "a/b/weights", file)

    path = storage.blob_path(emulator, "azureml-blobstore", "a/b/weights")
    assert (number, 10, False) == (path.stat().st_ino, blob["size"], file.exists())


class FullDisk:
    """A host on a disk without room: it keeps nothing, and takes the end only later."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: list[tuple[str, str]] = []
        self.refused = 0

    def exists(self, uri: str) -> bool:
        """Everything is there."""
        return True

    def work(self, step: Step) -> Path:
        """Return the folder."""
        return self.folder

    def model(self, step: Step) -> dict[str, Any]:
        """Return no model."""
        return {}

    def log(self, step: Step, text: str) -> None:
        """Find no room."""
        raise OSError(errno.ENOSPC, "No space left on device")

    def end(self, step: Step, status: Status = "Completed", *, message: str = "") -> None:
        """Find no room once, and then some."""
        if not self.refused:
            self.refused += 1
            raise sqlite3.OperationalError("database or disk is full")
        self.ended.append((status, message))


def test_a_full_disk_fails_the_step_as_soon_as_that_can_be_kept(tmp_path: Path) -> None:
    """The job does not run for ever once there is room again, and says what was wrong."""
    host = FullDisk(tmp_path)
    executor = TrainExecutor(tmp_path, module="stub_training")
    executor.start(host, Step("run-1", "ft-1", "model_import", "model_import", {}, {}, ()))
    end = time.monotonic() + 20
    while not host.ended:
        assert time.monotonic() < end
        time.sleep(0.02)
    executor.close()

    status, message = host.ended[0]
    assert ("Failed", 1) == (status, host.refused)
    assert "No space left on device; if its disk is full, free some space" in message
