"""Steps that really work: each is a process of :mod:`azureml_emulator.training`.

A step's folder (:meth:`Host.work`) holds, beside ``work``, which outlives an attempt::

    request.json    what is to be done: see `request`
    events          JSON lines that the process appends: {"metrics": {name: number}, "step": n}
                    or {"failed": "one sentence"}
    log             what it prints
    outputs/NAME    a folder for each output, empty at first
    work            checkpoints: whatever a later attempt needs to go on from
    scratch         its working folder and TMPDIR

The process exits with 0 when it is done and with 1 after it has said why it failed; any other end
is a crash. A thread for each step follows the process and tells the host.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sqlite3
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..processes import Container
from . import Host, Step, strike
from .checks import FILE_TYPES, problem

TRAINER = "azureml_emulator.training"

_FOLLOW_SECONDS = 0.1
_AGAIN_SECONDS = 0.5
_UNKEPT = "The emulator could not keep what the step wrote"
_ROOM = "if its disk is full, free some space, or start it with --state on another disk"
_MEMORY = (
    ", most often for want of memory: close other programs, or lower "
    "per_device_train_batch_size or max_seq_length"
)

logger = logging.getLogger("azureml_emulator")


class TrainExecutor:
    """Runs the process of each step.

    Args:
        cache: Where converted weights are kept, for all jobs.
        module: What a process runs.
    """

    def __init__(self, cache: Path, *, module: str = TRAINER) -> None:
        self._cache = cache
        self._module = module
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], _Running] = {}
        self._closing = threading.Event()

    def start(self, host: Host, step: Step) -> None:
        """Start the step's process, unless its inputs are wrong."""
        if wrong := problem(step, host.exists):
            _fail(host, step, wrong)
            return
        # There is one where the transaction that began it could not be committed.
        self.stop(host, step)
        place = _Place(host.work(step), step.outputs)
        with self._lock:
            # A request may be served while the emulator closes: its step is recovered later.
            if self._closing.is_set():
                return
            try:
                place.make_ready(request(host, step, place, self._cache))
                container = Container(
                    self._module, [str(place.request)], log=place.log, scratch=place.scratch
                )
            except OSError as error:
                _fail(host, step, f"The process of the step could not be started: {error}.")
                return
            running = _Running(container, place)
            running.thread = threading.Thread(
                target=self._follow, args=(host, step, running), name=step.key, daemon=True
            )
            self._running[step.run_id, step.attempt] = running
            running.thread.start()

    def recover(self, host: Host, step: Step) -> None:
        """Start the process anew: it went with the emulator, its checkpoints did not."""
        host.log(step, "The emulator was started again: the step goes on from its checkpoint.\n")
        self.start(host, step)

    def wake(self, host: Host, step: Step, beat: int) -> None:
        """Do nothing: a process needs no waking."""

    def stop(self, host: Host, step: Step) -> None:
        """Kill the step's process and all that it has started."""
        with self._lock:
            running = self._running.get((step.run_id, step.attempt))
        if running is not None:
            running.end()

    def close(self) -> None:
        """Kill every process. The steps stay Running, to be recovered."""
        with self._lock:
            self._closing.set()
            running = list(self._running.values())
        for one in running:
            one.end()
        for one in running:
            assert one.thread is not None
            one.thread.join()

    def _follow(self, host: Host, step: Step, running: _Running) -> None:
        try:
            self._tell(host, step, running)
        except Exception as error:
            if running.given_up.is_set():
                return  # Its folder is gone already, with what there was to read.
            running.end()
            logger.exception("step %s of job %s", step.key, step.job)
            self._fail_at_last(host, step, f"{_UNKEPT}: {error}; {_ROOM}.")
        finally:
            key = step.run_id, step.attempt
            with self._lock:
                if self._running.get(key) is running:
                    del self._running[key]

    def _fail_at_last(self, host: Host, step: Step, message: str) -> None:
        # On a full disk this cannot be kept either; once there is room, the step must not seem to
        # run for ever.
        while not self._closing.is_set():
            try:
                host.end(step, "Failed", message=message)
                return
            except (OSError, sqlite3.Error):
                self._closing.wait(_AGAIN_SECONDS)

    def _tell(self, host: Host, step: Step, running: _Running) -> None:
        place, container = running.place, running.container
        log, events = _Tail(place.log), _Tail(place.events)
        last, failed = "", ""
        while True:
            code = container.poll()
            if running.given_up.is_set():
                return
            if text := log.read(to_end=code is not None):
                last = text.rstrip().rpartition("\n")[2] or last
                host.log(step, text)
            for line in events.read().splitlines():
                event = json.loads(line)
                if "metrics" in event:
                    host.record(step, event["metrics"], at=event["step"])
                failed = event.get("failed", failed)
            if step.fault is not None and (code is not None or any(place.work.iterdir())):
                container.stop()
                strike(host, step)
                return
            if code is not None:
                break
            running.given_up.wait(_FOLLOW_SECONDS)
        if code == 0:
            for output in step.outputs:
                host.keep(step, output, place.outputs[output])
            host.end(step)
        elif failed:
            host.end(step, "Failed", message=failed)
        else:
            _fail(host, step, _cause(code, last))


def request(host: Host, step: Step, place: _Place, cache: Path) -> dict[str, Any]:
    """Return what the process of *step* is told; all paths are absolute."""
    return {
        "step": step.kind,
        "job": step.job,
        "run_id": step.run_id,
        "parameters": dict(step.parameters),
        "declared": {name: dict(declared) for name, declared in step.declared.items()},
        "files": {
            name: str(there) if (there := host.locate(value)) else None
            for name, value in step.parameters.items()
            if step.declared[name]["type"] in FILE_TYPES
        },
        "upstream": {
            name: str(folder) for name in step.upstream if (folder := host.upstream(step, name))
        },
        "model": {**host.model(step), "cache": str(cache)},
        "outputs": {name: str(folder) for name, folder in place.outputs.items()},
        "work": str(place.work),
        "events": str(place.events),
        "gpus": step.gpus,
        "nodes": step.nodes,
        "size": step.size,
    }


class _Place:
    """The paths in a step's folder."""

    def __init__(self, folder: Path, outputs: tuple[str, ...]) -> None:
        self.request = folder / "request.json"
        self.events = folder / "events"
        self.log = folder / "log"
        self.outputs = {name: folder / "outputs" / name for name in outputs}
        self.work = folder / "work"
        self.scratch = folder / "scratch"
        self._of_one_attempt = [folder / "outputs", self.scratch]

    def make_ready(self, request: dict[str, Any]) -> None:
        """Make the folder, with nothing of an earlier attempt but ``work``."""
        for folder in self._of_one_attempt:
            if folder.exists():
                shutil.rmtree(folder)
        for folder in (self.work, *self.outputs.values()):
            folder.mkdir(parents=True, exist_ok=True)
        for file in (self.events, self.log):
            file.write_bytes(b"")
        self.request.write_text(json.dumps(request, indent=2), encoding="utf-8")


@dataclass(eq=False)
class _Running:
    """A step's process, and the thread that follows it until it is given up."""

    container: Container
    place: _Place
    given_up: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def end(self) -> None:
        """Kill it. What its thread would say of that is nobody's concern."""
        self.given_up.set()
        self.container.stop()


class _Tail:
    """Reads what is appended to a file, whole lines at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, *, to_end: bool = False) -> str:
        """Return the lines since the last time; with *to_end* also one without an end."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        if not to_end:
            data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return data.decode("utf-8", "replace")


def _fail(host: Host, step: Step, message: str) -> None:
    host.log(step, f"{message}\n")
    host.end(step, "Failed", message=message)


def _cause(code: int, last: str) -> str:
    if code > 0:
        said = f"; its last words: {last}" if last else ""
        return f"The process of the step ended with exit code {code}{said}."
    name = signal.Signals(-code).name
    why = _MEMORY if -code == signal.SIGKILL else ""
    return f"The process of the step was killed by signal {-code} ({name}){why}."
