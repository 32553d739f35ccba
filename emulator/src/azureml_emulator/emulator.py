"""What the services share: store, clock, timeline, operations, ledger, catalogue, faults."""

from __future__ import annotations

import fcntl
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from .aftermath import Aftermath
from .catalog import Catalog
from .clock import Clock, ManualClock, SystemClock, iso
from .errors import OperationFailed, OperationGoesOn
from .executors import Executor, executor
from .faults import Faults
from .latency import Latency
from .ledger import Ledger
from .routing import Call
from .scorers import Scorer, scorer
from .settings import Settings
from .store import Store
from .timeline import Event, Timeline
from .tls import Certificates, certificates
from .tokens import Tokens

Applier = Callable[["Emulator", Event], None]

OPERATION = "operation"
CLOCK = "clock"


class Emulator:
    """One Azure subscription with one workspace and one registry, in one state folder.

    Args:
        settings: How it behaves and where it keeps its state.
        clock: Where it takes the time from; the machine's if not given, or one that stands still
            under ``--latency manual``.
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.latency = Latency(settings.latency)
        self.catalog = Catalog.load(settings.catalog).backed_by(settings.weights)
        self.executor: Executor = executor(settings)
        # 0700: the database holds the endpoints' keys.
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._alone = _hold(settings.state / "lock")
        settings.blobs.mkdir(exist_ok=True)
        self.certificates: Certificates = certificates(settings.tls)
        self.store = Store(settings.database)
        self.clock: Clock = clock or self._clock()
        self.timeline = Timeline(self.store)
        self.ledger = Ledger(self.store, lambda: self.schedule("job.freed", "", after=0.0))
        self.faults = Faults(self.store)
        self.aftermath = Aftermath(self.store)
        self.tokens = Tokens(settings.state)
        self.scorer: Scorer = scorer(settings, self.clock)
        self.appliers: dict[str, Applier] = {}
        self.woken = threading.Condition()
        self.closing = threading.Event()
        self._moment = threading.local()

    def now(self) -> float:
        """Return the time: inside an event, the moment at which it was due."""
        due: float | None = getattr(self._moment, "due", None)
        return self.clock.now() if due is None else due

    def schedule(
        self,
        kind: str,
        subject: str,
        *,
        after: float,
        payload: dict[str, Any] | None = None,
        operation: str | None = None,
    ) -> None:
        """Let the event *kind* happen to *subject* in *after* seconds."""
        self.timeline.add(self.now() + after, kind, subject, payload, operation)
        with self.woken:
            self.woken.notify_all()

    def settle(self) -> None:
        """Apply every event that is due, in order, each as one transaction."""
        while True:
            with self.store.transaction():
                event = self.timeline.next()
                if event is None or event.due > self.clock.now():
                    return
                self._apply(event)

    def begin_operation(
        self,
        call: Call,
        kind: str,
        subject: str,
        *,
        after: float,
        payload: dict[str, Any] | None = None,
    ) -> dict[str, str]:
        """Begin a long-running operation that ends when the event *kind* has been applied.

        Returns:
            The headers that tell the client where to poll.
        """
        name = str(uuid.uuid4())
        document = {
            "name": name,
            "status": "InProgress",
            "startTime": iso(self.now()),
            "subject": subject,
            "_error": call.effects.get("operation_error"),
            "_settling": (call.path, call.effects.get("settling", 0.0)),
        }
        self.store.put(OPERATION, name, document)
        self.schedule(kind, subject, after=after, payload=payload, operation=name)
        compute = kind.startswith("compute.")
        status = "computeOperationsStatus" if compute else "mfeOperationsStatus"
        result = "computeOperationsResults" if compute else "mfeOperationResults"
        root = f"{call.base_url}{self.catalog.location_id}"
        version = f"?api-version={call.query.get('api-version', '2024-10-01')}"
        return {
            "Azure-AsyncOperation": f"{root}/{status}/{name}{version}",
            "Location": f"{root}/{result}/{name}{version}",
            "x-ms-async-operation-timeout": "PT30M",
        }

    def close(self) -> None:
        """End the containers, close the store and let go of the state folder."""
        self.executor.close()
        self.scorer.close()
        self.store.close()
        self._alone.close()

    def _clock(self) -> Clock:
        if not self.latency.manual:
            return SystemClock()
        # It goes on where it stood: what was acknowledged must not lie in the future.
        stood = self.store.get(CLOCK, CLOCK)
        return ManualClock(max(stood["now"], time.time())) if stood else ManualClock()

    def _apply(self, event: Event) -> None:
        self._moment.due = event.due
        try:
            self.timeline.done(event)
            applier = self.appliers[event.kind]
            if event.operation is None:
                applier(self, event)
                return
            operation = self.store.get(OPERATION, event.operation)
            assert operation is not None
            error = operation["_error"]
            try:
                if error is not None:
                    event.payload["error"] = error
                applier(self, event)
            except OperationGoesOn:
                return
            except OperationFailed as failed:
                error = {"code": failed.code, "message": failed.message}
            operation["status"] = "Failed" if error else "Succeeded"
            operation["endTime"] = iso(self.now())
            operation["percentComplete"] = 100.0
            if error:
                operation["error"] = {**error, "details": []}
            elif operation["_settling"][1]:
                path, seconds = operation["_settling"]
                self.aftermath.unsettle(path, seconds, now=self.now())
            self.store.put(OPERATION, event.operation, operation)
        finally:
            self._moment.due = None


def _hold(path: Path) -> TextIO:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OSError(f"another emulator is running on {path.parent}") from error
    return file
