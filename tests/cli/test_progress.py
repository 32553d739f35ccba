"""The terminal while a run goes on: its log above, how far it is below, and order afterwards."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.log import PlainLines, prefects_log, shown_log
from cli.progress import Display, displayed
from lifecycle.report import RunReport

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CURSOR_OFF, CURSOR_ON = "\x1b[?25l", "\x1b[?25h"

logger = logging.getLogger("tests.progress")


class Terminal:
    """A terminal of 100 columns that keeps what is written to it."""

    def __init__(self) -> None:
        self.console = Console(
            file=io.StringIO(), width=100, force_terminal=True, highlight=False, _environ={}
        )

    def drain(self) -> str:
        """What was written since the last time, without colours."""
        file = self.console.file
        assert isinstance(file, io.StringIO)
        text = CONTROL.sub("", file.getvalue())
        file.seek(0)
        file.truncate()
        return text


@pytest.fixture
def terminal() -> Terminal:
    """A terminal, and a log that is shown from INFO on."""
    logger.setLevel(logging.INFO)
    return Terminal()


@contextmanager
def shown(display: Display) -> Iterator[None]:
    """Show the board, and the log above it."""
    display.begin()
    try:
        with prefects_log(display.lines):
            yield
    finally:
        display.end()


def board(display: Display, terminal: Terminal) -> str:
    """The board as it is drawn now."""
    terminal.drain()
    logger.info("look")
    return terminal.drain()


def test_the_board_shows_the_phases_and_how_far_training_is(terminal: Terminal) -> None:
    """What is done and what came of it, the step of the job, its loss, and what is to come."""
    report = RunReport()
    display = Display(terminal.console, report)
    with shown(display):
        report.model = {"name": "Tiny", "version": "1"}
        report.dataset = {"files": [{"split": "train_sft", "rows": 240}]}
        with report.timing("authenticate"):
            assert "signing in" in board(display, terminal)
        with report.timing("stream_job"):
            step = {"name": "chat_completion_finetune", "status": "Running"}
            report.job = {"name": "ft-x-a1", "status": "Queued", "steps": [step]}
            assert "chat_completion_finetune running" in board(display, terminal)
            for line in ('step 10/50 {"loss": 3.0}', 'step 20/50 {"loss": 1.5}'):
                logger.info(line, extra={"source": "chat_completion_finetune", "line": line})
            drawn = board(display, terminal)
        report.interrupted = True
        stopping = board(display, terminal)

    assert "✓ Check" in drawn
    assert "Tiny version 1, 240 conversations" in drawn
    assert "20/50  loss 1.5 █▁" in drawn
    assert "· Clean up" in drawn
    assert "Ctrl-C stops the run and cleans up" in drawn
    assert "Stopping: the job is canceled" in stopping


def test_log_lines_stand_above_the_board(terminal: Terminal) -> None:
    """Each once, with its source; markup in them is text; a traceback is not lost."""
    display = Display(terminal.console, RunReport())
    with shown(display):
        logger.info("[x] said", extra={"source": "a" * 60, "line": "[bold]said[/bold]"})
        logger.warning("mind the gap\nsecond line")
        try:
            raise LookupError("no such thing")
        except LookupError:
            logger.exception("it broke")
    text = terminal.drain()

    assert re.search(r"\d\d:\d\d:\d\d UTC  a{31}…  \[bold\]said\[/bold\]", text)
    assert "mind the gap" in text
    assert f"{'':14}second line" in text
    assert "LookupError: no such thing" in text


def test_the_rows_of_dots_that_the_sdk_prints_are_left_out(terminal: Terminal) -> None:
    """What else is printed is shown; standard output is what it was, afterwards."""
    before = sys.stdout
    display = Display(terminal.console, RunReport())
    display.begin()
    try:
        sys.stdout.write("..")
        sys.stdout.write(".\nCheck: endpoint x exists\n")
    finally:
        display.end()
    said = [line.strip() for line in terminal.drain().splitlines()]

    assert "Check: endpoint x exists" in said
    assert not {".", "..", "..."} & set(said)
    assert before is sys.stdout


def test_what_prefect_remarks_of_each_task_is_left_to_the_board(terminal: Terminal) -> None:
    """Its warnings are shown; that a task began and ended is not."""
    display = Display(terminal.console, RunReport())
    engine = f"{os.sep}site-packages{os.sep}prefect{os.sep}engine.py"
    with shown(display):
        for level, text in ((logging.INFO, "Finished in state"), (logging.WARNING, "no server")):
            logger.handle(logger.makeRecord("prefect", level, engine, 1, text, (), None))
    said = terminal.drain()

    assert "Finished in state" not in said
    assert "no server" in said


def test_the_log_is_given_back(terminal: Terminal) -> None:
    """Prefect's own handlers are there again when the run is over, whatever became of it."""
    before = logging.getLogger().handlers[:]
    display = Display(terminal.console, RunReport())
    with shown(display):
        assert display.lines in logging.getLogger().handlers

    assert before == logging.getLogger().handlers


def test_nothing_moves_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """In a CI job, or in a pipe, the log is plain lines and nothing else."""
    with displayed(RunReport()) as lines, shown_log(lines):
        logging.getLogger("lifecycle.waiting").info("Still %s", "waiting")

    said = capsys.readouterr().err
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} UTC \| INFO    \| lifecycle\.waiting - Still waiting\n", said
    )


def test_a_plain_log_shows_each_line_once(
    prefect_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours from INFO on, and Prefect's with the name of its run; to standard error alone."""
    logger.setLevel(logging.INFO)
    lines = PlainLines()
    with shown_log(lines), prefects_log(lines):
        logging.getLogger("lifecycle.waiting").info("Still deleting the endpoint x, after 1 min")
        named = {"task_run_name": "stream job"}
        logger.info("Status: %s", "Running", extra=named)
        logging.getLogger("azure.core").info("nobody asked")
    said = capsys.readouterr()

    assert "" == said.out
    assert [
        "INFO    | lifecycle.waiting - Still deleting the endpoint x, after 1 min",
        "INFO    | Task run 'stream job' - Status: Running",
    ] == [line.partition(" | ")[2] for line in said.err.splitlines() if " UTC | " in line]
    assert "nobody asked" not in said.err


@pytest.mark.long
@pytest.mark.parametrize("interrupted", [False, True], ids=["to the end", "Ctrl-C"])
def test_a_run_on_a_real_terminal(
    emulator: Any, prefect_server: str, tmp_path: Path, interrupted: bool
) -> None:
    """The log in one style, the report at the end, and a cursor that is there again."""
    report = tmp_path / "report.json"
    words = ["run", "--config", "profiles/local.yaml", "--report", str(report)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *words],
        env={**os.environ, "TERM": "xterm-256color", "FINETUNE_CACHE": str(tmp_path / "cache")},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    text, interrupt_at = "", "finding the model" if interrupted else None
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            text += os.read(ours, 65536).decode(errors="replace")
        except OSError:
            break
        if interrupt_at and interrupt_at in text:
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    os.close(ours)

    assert (130 if interrupted else 0) == process.wait(30), text
    assert ("Interrupted" if interrupted else "Completed") == json.loads(report.read_text())[
        "state"
    ]
    assert text.rfind(CURSOR_OFF) < text.rfind(CURSOR_ON)
    assert "| INFO " not in text
    assert "Nothing is left running." in CONTROL.sub("", text)
    assert "<html" in report.with_suffix(".html").read_text()
