"""Models that really answer: each deployment is a process of :mod:`azureml_emulator.inference`.

A thread for each container brings it up, says so, and starts it again if it ends. However many
instances a deployment has, it is one process; their number counts for how many requests it takes.

A deployment's folder holds one folder for each container, numbered, with ``request.json``, ``log``,
``port`` (once it is ready) and ``scratch``, its working folder.
"""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..clock import duration
from ..errors import BadGateway, RequestTimeout, ServiceUnavailable
from ..processes import Container
from ..store import Document
from . import Health, Scored
from .gate import Gate

SERVER = "azureml_emulator.inference"

_WATCH_SECONDS = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_GUIDE = "https://aka.ms/oe-tsg#error-resourcenotready"

Settled = Callable[[], None]


class ProcessScorer:
    """Runs a container for each deployment.

    Args:
        folder: Where the containers' files are.
        cache: Where converted weights are kept, for all deployments.
        module: What a container runs.
    """

    def __init__(self, folder: Path, cache: Path, *, module: str = SERVER) -> None:
        self._folder = folder
        self._cache = cache
        self._module = module
        self._lock = threading.Lock()
        self._served: dict[str, _Served] = {}
        self._closed = False

    def start(self, deployment: Document, model: Document, settled: Settled) -> None:
        """Start a container, beside the one that answers now."""
        with self._lock:
            if self._closed:
                return
            served = self._served.setdefault(deployment["id"], _Served())
            served.started += 1
            place = self._place(deployment) / str(served.started)
            if place.exists():
                shutil.rmtree(place)
            request = _request(model, place, self._cache)
            replica = _Replica(place, self._module, _seconds_to_be_ready(deployment))
            if served.newest is not None and served.newest is not served.answering:
                served.newest.end()
            served.newest = replica
            try:
                replica.launch(request)
            except OSError as error:
                replica.health = Health("failed", f"The container could not be started: {error}.")
                return
            replica.thread = threading.Thread(
                target=self._keep_up, args=(served, replica, settled), name=place.name, daemon=True
            )
            replica.thread.start()

    def recover(self, deployment: Document, model: Document, settled: Settled) -> None:
        """Start a container: the one before went with its emulator."""
        place = self._place(deployment)
        if place.exists():
            shutil.rmtree(place)
        self.start(deployment, model, settled)

    def health(self, deployment: Document) -> Health:
        """Return how the container that was started last is."""
        with self._lock:
            served = self._served.get(deployment["id"])
            if self._closed:
                # It is brought up by the next emulator.
                return Health("starting")
            if served is None or served.newest is None:
                return Health("failed", "The deployment has no container.")
            return served.newest.health

    def score(self, deployment: Document, body: bytes) -> Scored:
        """Let the container answer, within the deployment's ``requestSettings``."""
        with self._lock:
            served = self._served.get(deployment["id"])
        settings = deployment["properties"]["requestSettings"]
        seconds = duration(settings["requestTimeout"])
        assert seconds is not None
        deadline = time.monotonic() + seconds
        at_once = settings["maxConcurrentRequestsPerInstance"] * deployment["sku"]["capacity"]
        replica = None if served is None else served.answering
        if replica is None or (port := replica.port) is None:
            raise ServiceUnavailable(
                f"The deployment {deployment['name']} is not ready: its container is not up."
            )
        with replica.gate.entered(at_once, deadline):
            return _ask(port, body, deadline)

    def log(self, deployment: Document) -> str:
        """Return what the container that was started last has written."""
        with self._lock:
            served = self._served.get(deployment["id"])
            newest = None if served is None else served.newest
        if newest is None or not newest.log.exists():
            return ""
        return newest.log.read_text(encoding="utf-8", errors="replace")

    def stop(self, deployment: Document) -> None:
        """Kill the deployment's containers and remove their files."""
        with self._lock:
            served = self._served.pop(deployment["id"], None)
        if served is not None:
            served.end()
        shutil.rmtree(self._place(deployment), ignore_errors=True)

    def close(self) -> None:
        """Kill every container."""
        with self._lock:
            self._closed = True
            everyone = [one for served in self._served.values() for one in served.replicas()]
            self._served.clear()
        for replica in everyone:
            replica.end()
        for replica in everyone:
            if replica.thread is not None:
                replica.thread.join()

    def _place(self, deployment: Document) -> Path:
        endpoint, _, name = deployment["id"].rsplit("/", 3)[1:]
        return self._folder / f"{endpoint}.{name}"

    def _keep_up(self, served: _Served, replica: _Replica, settled: Settled) -> None:
        """Bring the container up, say so once, and up again whenever it ends."""
        ready, before = replica.come_up(), None
        if ready:
            with self._lock:
                before, served.answering = served.answering, replica
        if not replica.given_up.is_set():
            settled()
        if before is not None:
            while before.gate.in_hand and not replica.given_up.wait(_WATCH_SECONDS):
                pass
            before.end()
            shutil.rmtree(before.place, ignore_errors=True)
        pause = _FIRST_PAUSE
        while ready and replica.down():
            while not replica.given_up.wait(pause):
                if replica.launch_again() and replica.come_up():
                    break
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return
            pause = _FIRST_PAUSE


class _Served:
    """A deployment's containers: the one that answers, and the one that was started last."""

    def __init__(self) -> None:
        self.started = 0
        self.answering: _Replica | None = None
        self.newest: _Replica | None = None

    def replicas(self) -> list[_Replica]:
        """Return those that there are."""
        both = dict.fromkeys((self.answering, self.newest))
        return [one for one in both if one is not None]

    def end(self) -> None:
        """Kill them."""
        for one in self.replicas():
            one.end()


class _Replica:
    """One container, which may be launched several times, until it is given up."""

    def __init__(self, place: Path, module: str, patience: float) -> None:
        self.place = place
        self.log = place / "log"
        self.gate = Gate()
        self.health = Health("starting")
        self.port: int | None = None
        self.given_up = threading.Event()
        self.thread: threading.Thread | None = None
        self._module = module
        self._patience = patience
        self._lock = threading.Lock()
        self._container: Container | None = None

    def launch(self, request: dict[str, Any]) -> None:
        """Start the process for the first time."""
        self.place.mkdir(parents=True)
        (self.place / "request.json").write_text(json.dumps(request, indent=2), encoding="utf-8")
        self._launch()

    def launch_again(self) -> bool:
        """Start the process anew; return whether it could be."""
        self.health = Health("starting")
        for left in ("port", "model"):
            path = self.place / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        try:
            self._launch()
        except OSError as error:
            self._tell(f"The container could not be started: {error}")
            return False
        return True

    def come_up(self) -> bool:
        """Wait until the process is ready, has ended or has had its time; return whether it is."""
        deadline = time.monotonic() + self._patience
        while not self.given_up.wait(_WATCH_SECONDS):
            assert self._container is not None
            code = self._container.poll()
            if code is not None:
                last = _last_words(self.log, code)
                self._fail(f"User container has crashed or terminated: {last}")
                return False
            if (port := self._announced()) is not None:
                self.port, self.health = port, Health("ready")
                return True
            if time.monotonic() > deadline:
                self._container.stop()
                patience = f"{self._patience:g} seconds, as long as its probes wait"
                self._fail(f"User container was not ready after {patience}")
                return False
        return False

    def down(self) -> bool:
        """Wait until the process has ended; return whether it is to be started again."""
        assert self._container is not None
        while not self.given_up.wait(_WATCH_SECONDS):
            code = self._container.poll()
            if code is not None:
                self.port, self.health = None, Health("starting")
                last = _last_words(self.log, code)
                self._tell(f"The container has ended ({last}) and is started again")
                return True
        return False

    def end(self) -> None:
        """Kill the process, for good."""
        with self._lock:
            self.given_up.set()
            if self._container is not None:
                self._container.stop()

    def _launch(self) -> None:
        with self._lock:
            if not self.given_up.is_set():
                request = str(self.place / "request.json")
                self._container = Container(
                    self._module, [request], log=self.log, scratch=self.place / "scratch"
                )

    def _announced(self) -> int | None:
        try:
            return int((self.place / "port").read_text(encoding="ascii"))
        except FileNotFoundError:
            return None

    def _fail(self, message: str) -> None:
        guide = f"Please see troubleshooting guide, available here: {_GUIDE}"
        self.health = Health("failed", f"{message}. {guide}")

    def _tell(self, line: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")


def _request(model: Document, place: Path, cache: Path) -> dict[str, Any]:
    return {
        **model,
        "cache": str(cache),
        "port": str(place / "port"),
        "packaged": str(place / "model"),
    }


def _seconds_to_be_ready(deployment: Document) -> float:
    """Return how long the container may take: until the more patient of its probes gives up."""
    waits: list[float] = []
    for name in ("livenessProbe", "readinessProbe"):
        probe = deployment["properties"][name]
        first, period = duration(probe["initialDelay"]), duration(probe["period"])
        assert first is not None
        assert period is not None
        waits.append(first + period * probe["failureThreshold"])
    return max(waits)


def _last_words(log: Path, code: int) -> str:
    if code < 0:
        return f"it was killed by signal {-code}, most often for want of memory"
    lines = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    # Without the time and the name of who says it.
    said = lines[-1].rpartition("azmlinfsrv - ")[2] if lines else ""
    return f"{said or 'it said nothing'} (exit code {code})"


def _ask(port: int, body: bytes, deadline: float) -> Scored:
    # What is given up goes on in the container, as it does in Azure (azure-sdk-for-python#36296).
    left = max(deadline - time.monotonic(), 0.001)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=left)
    try:
        connection.request("POST", "/score", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return Scored(answer.status, json.loads(answer.read()))
    except TimeoutError as error:
        raise RequestTimeout("upstream request timeout") from error
    except (OSError, http.client.HTTPException) as error:
        raise BadGateway("The container ended before it had answered.") from error
    finally:
        connection.close()
