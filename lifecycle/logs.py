"""The logs of a job and of its steps, each line once, as it appears.

Of a pipeline, the SDK's ``jobs.stream`` shows the parent's outline only; what people want to see
is in the steps' ``user_logs/std_log*.txt``. So the run history is read here: ``…/runs/J/details``
for a run's status and the addresses of its logs, ``…/runs/J/children`` for the runs below it. Both
are what the SDK's own run history client reads (``azure.ai.ml._restclient.runhistory``).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from pydantic import Field

from lifecycle.azure import translated
from lifecycle.errors import FinetuneError, ServiceError
from lifecycle.loose import as_items, as_moment, as_object, as_text, look_up
from lifecycle.plain import Result

TAIL_LINES = 20

WAITING = frozenset({"NotStarted", "Queued", "Preparing", "Provisioning", "Starting"})
LIVE = WAITING | {"Running", "Finalizing", "CancelRequested"}
ENDED = frozenset({"Completed", "Failed", "Canceled"})
_SPELLING = {status.lower(): status for status in LIVE | ENDED | {"NotResponding", "Paused"}}

_LOG_FILE = re.compile(r"user_logs/std_log.*\.txt|logs/azureml/(?:executionlogs|stdoutlogs)\.txt")
_NOT_CREATED_ON_A_NODE_YET = frozenset({"NotStarted", "Queued"})
# More than any pipeline has: a history that has no end is not read for ever.
_MOST_RUNS = 1000
_MOST_PAGES = 50


def as_status(value: Any) -> str | None:
    """Return a status as Azure ML spells it, whatever its case; None where it is no text."""
    said = as_text(value)
    return None if said is None else _SPELLING.get(said.strip().lower(), said)


class LogLine(Result):
    """One line of a log, and whose it is."""

    source: str = Field(
        title="Source",
        description="Display name of the job or step that wrote it.",
        examples=["chat_completion_finetune"],
    )
    text: str = Field(title="Text", description="The line, without its end.")
    remark: bool = Field(
        default=False, title="Remark", description="Whether it is ours, about the watching."
    )


class Plane(Protocol):
    """What is needed of :class:`lifecycle.clients.DataPlane`."""

    def get_json(self, url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """GET a JSON object."""

    def get_text(self, url: str, offset: int = 0) -> bytes:
        """GET a log from byte ``offset`` on."""


class LogTail:
    """One growing log file: takes its bytes, gives its lines.

    A line is held back until its end has come, or the file's; so no character is cut in two. Of
    what a progress bar draws over itself with carriage returns, the last is kept, as on a screen.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._held = b""

    def take(self, data: bytes, *, final: bool) -> list[str]:
        """Return the lines that ``data`` completes.

        Args:
            data: What follows the first ``offset`` bytes of the file.
            final: Whether the file will not grow any more.
        """
        self.offset += len(data)
        *whole, rest = (self._held + data).split(b"\n")
        self._held = b"" if final else _last_drawn(rest)
        if final and rest:
            whole.append(rest)
        return [_last_drawn(line).rstrip(b"\r").decode("utf-8", "replace") for line in whole]


@dataclass
class Run:
    """A job or a step of it, as far as it has been read.

    Args:
        id: Its run id.
        name: Its display name.
        status: As the run history last gave it.
        error: What the run history says went wrong.
        began_at: When it began to run, as the run history says it.
        ended_at: When it ended, likewise.
        files: Its log files, by name.
        tail: The last lines that it logged.
        children: The runs below it, by run id.
        is_read: Whether it and all below it have ended and are read to the end.
    """

    id: str
    name: str
    status: str = "NotStarted"
    error: str | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    files: dict[str, LogTail] = field(default_factory=dict)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    children: dict[str, Run] = field(default_factory=dict)
    is_read: bool = False

    @property
    def seconds(self) -> float | None:
        """How long it ran, once it has ended and the run history says so."""
        if self.began_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.began_at).total_seconds()

    def walk(self) -> Iterator[Run]:
        """Yield the run and all below it, parents first."""
        yield self
        for child in self.children.values():
            yield from child.walk()


class JobLogs:
    """Follows a job and its steps; each :meth:`look` goes on where the last one ended.

    The run history is a service of its own, and a courtesy: of what it says, only what is
    understood is taken, and the rest is as if it had not been said.

    Args:
        plane: The workspace's data plane.
        workspace_id: The workspace's resource id.
        job: The job, with its name for people; filled in place.
        emit: Called with each line, once.
    """

    def __init__(
        self,
        plane: Plane,
        workspace_id: str,
        job: Run,
        emit: Callable[[LogLine], None],
    ) -> None:
        self.job = job
        self.unreadable: FinetuneError | None = None
        self._plane = plane
        self._runs = f"history/v1.0{workspace_id}/runs"
        self._emit = emit
        self._known = {job.id: job}
        self._seen: set[str] = set()

    def look(self) -> bool:
        """Read what is new, and say whether anything was.

        What cannot be read of the steps and the logs is read the next time; ``unreadable`` is then
        set.

        Raises:
            FinetuneError: The run history did not answer of the job itself, with an error, or
                with something else than a run.
        """
        self.unreadable = None
        self._seen = set()
        return self._look_at(self.job)

    def steps(self) -> list[Run]:
        """Return the runs that do the work: those with none below, the job itself left out."""
        return [run for run in self.job.walk() if not run.children and run is not self.job]

    def steps_seen(self) -> list[Run]:
        """Return the steps whose state the last look read, and those that have ended."""
        return [run for run in self.steps() if run.id in self._seen or run.status in ENDED]

    def _look_at(self, run: Run) -> bool:
        if run.is_read:
            return False
        details = self._get(f"{run.id}/details")
        status = as_status(look_up(details, "status"))
        if status is None:
            raise ServiceError(
                f"The run history does not say how {run.name} goes.", where=run.id, transient=True
            )
        news = self._set_status(run, status)
        run.error = _error_message(details) or run.error
        run.began_at = as_moment(look_up(details, "startTimeUtc")) or run.began_at
        run.ended_at = as_moment(look_up(details, "endTimeUtc")) or run.ended_at
        has_ended = run.status in ENDED
        logs_are_read = True
        for name, url in sorted(as_object(look_up(details, "logFiles")).items()):
            if _LOG_FILE.fullmatch(name) and isinstance(url, str):
                lines = self._read(run, name, url, final=has_ended)
                news = news or bool(lines)
                logs_are_read = logs_are_read and lines is not None
        below_is_read = True
        if not any(name.startswith("user_logs/") for name in run.files):
            try:
                news = self._look_below(run) or news
            except FinetuneError as error:
                self.unreadable = error
                below_is_read = False
        below_is_read = below_is_read and all(child.is_read for child in run.children.values())
        run.is_read = has_ended and logs_are_read and below_is_read
        return news

    def _look_below(self, run: Run) -> bool:
        """Look at the children; one that is not on a node yet has nothing to read."""
        news = False
        for found in self._children(run):
            child = self._child(run, found)
            if child is None:
                continue
            status = as_status(look_up(found, "status"))
            if status in _NOT_CREATED_ON_A_NODE_YET:
                news = self._set_status(child, str(status)) or news
                continue
            try:
                news = self._look_at(child) or news
            except FinetuneError as error:
                self.unreadable = error
                if status is not None:
                    news = self._set_status(child, status) or news
        return news

    def _child(self, run: Run, found: Mapping[str, Any]) -> Run | None:
        """Return the run below *run* that is listed here; None where it is none, or too many."""
        run_id = as_text(look_up(found, "runId"))
        if run_id is None:
            return None
        if run_id not in self._known and len(self._known) < _MOST_RUNS:
            name = as_text(look_up(found, "displayName")) or as_text(look_up(found, "name"))
            self._known[run_id] = run.children[run_id] = Run(run_id, name or run_id)
        # Not one that is elsewhere in the tree: a run below itself would have no end.
        return run.children.get(run_id)

    def _children(self, run: Run) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        params: dict[str, str] | None = None
        tokens: set[str] = set()
        while len(tokens) < _MOST_PAGES:
            page = self._get(f"{run.id}/children", params)
            found += [as_object(item) for item in as_items(look_up(page, "value"))]
            token = as_text(look_up(page, "continuationToken"))
            if token is None or token in tokens:
                break
            tokens.add(token)
            params = {"$continuationtoken": token}
        return sorted(found, key=lambda item: as_text(look_up(item, "startTimeUtc")) or "~")

    def _read(self, run: Run, name: str, url: str, *, final: bool) -> list[str] | None:
        """Emit what is new in one file; None where it cannot be read just now."""
        file = run.files.setdefault(name, LogTail())
        try:
            with translated(f"reading {name} of {run.name}"):
                data = self._plane.get_text(url, file.offset)
        except FinetuneError as error:
            self.unreadable = error
            return None
        lines = file.take(data, final=final)
        source = run.name if name.endswith(("/std_log.txt", "logs.txt")) else f"{run.name} {name}"
        for line in lines:
            run.tail.append(line)
            self._emit(LogLine(source=source, text=line))
        return lines

    def _set_status(self, run: Run, status: str) -> bool:
        self._seen.add(run.id)
        if status == run.status:
            return False
        run.status = status
        self._emit(LogLine(source=run.name, text=f"Status: {status}"))
        return True

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        with translated(f"reading the run history of {self.job.id}"):
            return self._plane.get_json(f"{self._runs}/{quote(path)}", params)


def _last_drawn(line: bytes) -> bytes:
    """Return what a screen would show of a line that a progress bar draws over itself."""
    return line[line.rstrip(b"\r").rfind(b"\r") + 1 :]


def _error_message(details: Mapping[str, Any]) -> str | None:
    """Return the innermost message of a run's error, on one line, at most 600 characters."""
    error = look_up(details, "error")
    error = look_up(error, "error") or error
    code, message = as_text(look_up(error, "code")), as_text(look_up(error, "message"))
    if not message:
        return None
    line = " ".join((f"{code}: {message}" if code else message).split())
    return line if len(line) <= 600 else line[:599] + "…"
