"""What a person sees on the terminal while a run goes on: its log, and below it how far it is."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lifecycle.logs import LIVE
from lifecycle.phases import Phase, moment, read_phases
from lifecycle.pulse import TrainingPulse, sparkline
from lifecycle.report import RunReport
from lifecycle.signals import deferred_signals
from lifecycle.wording import clock_time, figure, percent

from .log import LogLines, PlainLines, shown_log

REFRESHES_PER_SECOND = 5

_SOURCE_WIDTH = 32
_MARKS = {"done": ("✓", "green"), "failed": ("✗", "red")}


class Display:
    """The terminal while a run goes on.

    Args:
        console: The terminal.
        report: The run, filled by its steps.
    """

    def __init__(self, console: Console, report: RunReport) -> None:
        self.lines = _BoardLines(console)
        self._board = _Board(report, self.lines)
        self._live = Live(
            self._board,
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
        )
        self._console = console
        self._undo = ExitStack()

    def begin(self) -> None:
        """Show the board."""
        self._live.start()
        self._undo.callback(self._live.stop)
        self._undo.enter_context(redirect_stdout(_Remarks(self._console)))
        self._undo.enter_context(shown_log(self.lines))

    def end(self) -> None:
        """Take the board away, and give the log back."""
        self._undo.close()


@contextmanager
def displayed(report: RunReport) -> Iterator[LogLines]:
    """Show the run on standard error while the block lasts; give what its log is to go through."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainLines()
        return
    display = Display(console, report)
    display.begin()
    try:
        yield display.lines
    finally:
        with deferred_signals():
            display.end()


class _BoardLines(LogLines):
    """Writes the log above the board, and reads from it what the board shows."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.pulse = TrainingPulse()
        self.asked: tuple[int, int] | None = None
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._take(record)
        except Exception:  # a log line must never end a run
            self.handleError(record)

    def _take(self, record: logging.LogRecord) -> None:
        line = getattr(record, "line", None)
        if line is not None:
            self.pulse.read(line, datetime.now(UTC))
        self.asked = getattr(record, "progress", self.asked)
        if record.levelno < logging.WARNING and _is_prefects_own(record):
            return  # that a task began and ended is what the board shows
        first, *rest = (record.getMessage() if line is None else line).split("\n")
        style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(record.levelname, "")
        # In UTC, as the report's times: who reads both need not reckon.
        at = datetime.fromtimestamp(record.created, UTC)
        text = Text(f"{at:%H:%M:%S} UTC  ", style="dim")
        if line is not None:
            text.append(f"{_cut(getattr(record, 'source', ''))}  ", style="cyan")
            style = style or "dim"
        text.append(first, style=style)
        # A link that the terminal itself wraps can still be clicked.
        self._console.print(text, soft_wrap="://" in first)
        for more in rest:
            self._console.print(
                Text(f"{'':14}{more}", style="dim"), no_wrap=True, overflow="ellipsis"
            )
        if record.exc_info:
            self._console.print(logging.Formatter().formatException(record.exc_info), markup=False)


class _Remarks(io.TextIOBase):
    """What is printed while the board is shown, line by line; without the SDK's rows of dots."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._held = ""

    def write(self, text: str) -> int:
        *lines, self._held = (self._held + text).split("\n")
        for line in lines:
            if said := line.strip(" ."):
                self._console.print(Text(said, style="dim"))
        return len(text)


def _cut(source: str) -> str:
    return source if len(source) <= _SOURCE_WIDTH else f"{source[: _SOURCE_WIDTH - 1]}…"


def _is_prefects_own(record: logging.LogRecord) -> bool:
    return f"{os.sep}prefect{os.sep}" in record.pathname


class _Board:
    """The phases of the run, one a line."""

    def __init__(self, report: RunReport, lines: _BoardLines) -> None:
        self._report = report
        self._lines = lines
        self._spinner = Spinner("dots", style="cyan")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        report = self._report.as_dict()
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=2, justify="right")
        grid.add_column(width=9, no_wrap=True)
        grid.add_column(width=6, justify="right", no_wrap=True, style="dim")
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for phase in read_phases(report):
            grid.add_row(*self._row(phase, report, options.max_width))
        yield Text()
        yield grid
        yield self._footer(report)

    def _row(self, phase: Phase, report: dict[str, Any], width: int) -> list[RenderableType]:
        if phase.state == "waiting":
            return [Text("·", style="dim"), Text(phase.name, style="dim"), "", ""]
        is_running = phase.state == "running"
        mark: RenderableType = self._spinner
        if not is_running:
            mark = Text(*_MARKS[phase.state])
        detail = self._doing(phase, report, width) if is_running else _done(phase, report)
        name = Text(phase.name, style="bold" if is_running else "")
        return [mark, name, _clock(phase.seconds), detail]

    def _doing(self, phase: Phase, report: dict[str, Any], width: int) -> RenderableType:
        doing = phase.doing
        if phase.name == "Train" and "training" in doing:
            return self._training(report, width)
        if doing == "asking" and self._lines.asked:
            number, count = self._lines.asked
            return _bar("asking", number, count, f"{number} of {count} conversations", width)
        return Text(doing or ("stopping" if self._report.interrupted else "…"))

    def _training(self, report: dict[str, Any], width: int) -> RenderableType:
        pulse = self._lines.pulse
        steps = [step for step in (report["job"] or {}).get("steps", []) if step["status"] in LIVE]
        if not pulse.total or not any("finetune" in step["name"] for step in steps):
            states = [f"{step['name']} {step['status'].lower()}" for step in steps]
            return Text(", ".join(states) or "waiting for the job's first step")
        words = f"{pulse.done}/{pulse.total}"
        if pulse.losses:
            words += f"  loss {figure(pulse.losses[-1])} {sparkline(pulse.losses, 12)}"
        left = pulse.seconds_left(datetime.now(UTC))
        if left is not None and pulse.done < pulse.total:
            words += f"  {_clock(left)} left"
        return _bar("fine-tuning", pulse.done, pulse.total, words, width)

    def _footer(self, report: dict[str, Any]) -> Text:
        elapsed = (datetime.now(UTC) - moment(report["began_at"])).total_seconds()
        text = Text(f"\n   {_clock(elapsed)} elapsed", style="dim")
        if self._report.interrupted:
            text.append(
                "  Stopping: the job is canceled and the endpoint deleted first", style="yellow"
            )
        else:
            text.append("  Ctrl-C stops the run and cleans up")
        return text


def _bar(what: str, done: int, total: int, words: str, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(
        total=total,
        completed=done,
        width=max(8, width // 5),
        complete_style="cyan",
        finished_style="cyan",
    )
    grid.add_row(what, bar, words)
    return grid


def _done(phase: Phase, report: dict[str, Any]) -> Text:
    """Say in a few words what came of a phase."""
    if phase.state == "failed":
        return Text("see below", style="red")
    if phase.name == "Check":
        return Text(_what_is_planned(report), style="dim")
    if phase.name == "Train":
        losses = [float(value) for _, value in report["metric_history"].get("loss", [])]
        came = f"  loss {figure(losses[0])} → {figure(losses[-1])}" if losses else ""
        return Text(f"{(report['job'] or {}).get('status', '')}{came}", style="dim")
    if phase.name == "Register":
        model = report["registered_model"] or {}
        return Text(f"{model.get('name')} version {model.get('version')}", style="dim")
    if phase.name == "Serve":
        found = report["evaluation"]
        if not found:
            return Text()
        before, after = found["exact_match_before"], found["exact_match_after"]
        share = percent(after) if before is None else f"{percent(before)} → {percent(after)}"
        return Text(f"exact match {share} of {found['n']} conversations", style="dim")
    gone = (report["endpoint"] or {}).get("deleted_at")
    return Text(f"the endpoint was seen gone at {clock_time(gone)}" if gone else "", style="dim")


def _what_is_planned(report: dict[str, Any]) -> str:
    model, data = report["model"], report["dataset"]
    if not model or not data:
        return ""
    rows = {file["split"]: file["rows"] for file in data["files"]}
    return f"{model['name']} version {model['version']}, {sum(rows.values()):,} conversations"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
