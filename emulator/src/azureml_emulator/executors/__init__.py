"""How a step of a job is carried out: the seam between the jobs service and real or scripted work.

The jobs service (:mod:`~azureml_emulator.services.jobs`) decides *when*: it queues a step, gives it
nodes and a meter, and says what its end means for the pipeline. An executor decides *what*: it is
told to start a step, and reports log text, metrics, outputs and the end to its :class:`Host`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..settings import Settings

Status = Literal["Completed", "Failed", "Canceled", "NotResponding", "Paused"]
Kind = Literal["validation", "model_import", "preprocess", "finetune", "convert"]

PREEMPTED = "Preempted"
"""What a fault's ``status`` says of a step whose node is to be taken away."""


@dataclass(frozen=True)
class Step:
    """One step of a pipeline, ready to be carried out.

    Args:
        run_id: The step's own run.
        job: The name of the pipeline job that it belongs to.
        key: The step's key in the pipeline component, such as ``chat_completion_finetune``.
        component: The name of the step's own component.
        parameters: Every input of the pipeline component, as strings, defaults filled in; files
            and models as URIs.
        declared: What the pipeline component declares of each input: type, enum, min, max.
        outputs: The names of the step's outputs.
        upstream: The step that made each input folder, by name: ``{input: (step key, output)}``.
        size: The VM size of its nodes.
        gpus: GPUs of one node.
        nodes: How many nodes it has.
        fault: What is to go wrong: ``status`` and perhaps ``message``; None for nothing.
        attempt: 1, and one more each time that its node was taken away.
    """

    run_id: str
    job: str
    key: str
    component: str
    parameters: Mapping[str, str]
    declared: Mapping[str, Mapping[str, Any]]
    outputs: tuple[str, ...]
    upstream: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    size: str = ""
    gpus: int = 0
    nodes: int = 1
    fault: Mapping[str, Any] | None = None
    attempt: int = 1

    @property
    def kind(self) -> Kind:
        """What it does, which its key says."""
        if "validation" in self.key:
            return "validation"
        if "model_import" in self.key:
            return "model_import"
        if "preprocess" in self.key:
            return "preprocess"
        return "finetune" if "finetune" in self.key else "convert"


class Host(Protocol):
    """What the jobs service does for an executor.

    Every call is one transaction and may come from any thread. What is said of a step that has
    ended or was stopped, or of an earlier attempt, is dropped: a process that is told to stop may
    still have lines to print.
    """

    def log(self, step: Step, text: str) -> None:
        """Append *text* to the step's ``user_logs/std_log.txt``."""

    def record(self, step: Step, metrics: Mapping[str, float], *, at: int) -> None:
        """Log *metrics* of the training step number *at* to the step's run."""

    def exists(self, uri: str) -> bool:
        """Return whether an input file, folder or model is there."""

    def locate(self, uri: str) -> Path | None:
        """Return where the bytes of an input file or folder lie; None if nowhere."""

    def upstream(self, step: Step, name: str) -> Path | None:
        """Return where the output lies that the step's input *name* comes from, or None."""

    def model(self, step: Step) -> Mapping[str, Any]:
        """Return the foundation model: ``id``, ``name``, ``version``, ``weights``, ``folder``."""

    def work(self, step: Step) -> Path:
        """Return the step's own folder, which is there for all its attempts and goes with it."""

    def write(self, step: Step, output: str, path: str, data: bytes) -> None:
        """Leave one file under *path* in the step's *output*."""

    def keep(self, step: Step, output: str, folder: Path) -> None:
        """Move the files in *folder*, of the step's own folder, to its *output*."""

    def end(self, step: Step, status: Status = "Completed", *, message: str = "") -> None:
        """Say that the step has ended; *message* says why it did not complete."""

    def preempt(self, step: Step) -> None:
        """Take the step's node away: the executor stops it, and it is queued for another one."""

    def seconds(self, name: str) -> float:
        """Return how long the thing *name* takes, from the latency table."""

    def wake(self, step: Step, *, after: float, beat: int) -> None:
        """Ask for a call of :meth:`Executor.wake` in *after* seconds; survives a restart."""


class Executor(Protocol):
    """Carries steps out. Its methods return at once: work goes on in events or processes."""

    def start(self, host: Host, step: Step) -> None:
        """Begin *step*, whose container is ready and whose status is Running."""

    def recover(self, host: Host, step: Step) -> None:
        """Go on with *step*, which an earlier emulator on this state folder had begun."""

    def wake(self, host: Host, step: Step, beat: int) -> None:
        """Go on, as asked for with :meth:`Host.wake`."""

    def stop(self, host: Host, step: Step) -> None:
        """Give *step* up: it was cancelled, or its node is gone. Nothing of it runs any more."""

    def close(self) -> None:
        """End whatever runs; the emulator stops, and nothing is reported of it."""


def executor(settings: Settings) -> Executor:
    """Return the executor for ``settings.jobs``.

    Raises:
        ValueError: There is no such executor, or this machine lacks what it needs.
    """
    if settings.jobs == "scripted":
        from .scripted import ScriptedExecutor

        return ScriptedExecutor()
    if settings.jobs == "train":
        from .requirements import check
        from .train import TrainExecutor

        check(settings.state)
        return TrainExecutor(settings.cache)
    raise ValueError(f"--jobs: {settings.jobs} is no way to carry out jobs; known: train, scripted")


def strike(host: Host, step: Step) -> None:
    """Let *step* end as its fault says, or lose its node."""
    assert step.fault is not None
    message = str(step.fault.get("message", "A fault rule ended this step."))
    host.log(step, f"{message}\n")
    if step.fault["status"] == PREEMPTED:
        host.preempt(step)
    else:
        host.end(step, step.fault["status"], message=message)
