"""``finetune run``: the whole life cycle, in this process."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from lifecycle.config import FinetuneConfig, load_config
from lifecycle.courtesy import courtesy
from lifecycle.errors import ConfigurationError, FinetuneError
from lifecycle.metrics import configure_mlflow
from lifecycle.report import RunReport, recording
from lifecycle.signals import deferred_signals
from lifecycle.wording import closing

from .console import OutputError, show_error, show_still_billing
from .html_report import render
from .log import prefects_log
from .progress import displayed
from .server import ensure_prefect_server, prefect_api_url
from .summary import show_summary

# Without a terminal rich would cut names at 80 columns.
_WIDTH_OF_A_FILE = 120
_WIDEST = 120


def main(chosen: argparse.Namespace) -> int:
    """Run, say how it ended whatever happened, write the report, and return the exit code."""
    page = _page_of(chosen.report)
    report = RunReport(resumable=False)
    error: BaseException | None = None
    try:
        config = load_config(chosen.config, chosen.set)
        with recording(report):
            _run(config, report)
    except (Exception, KeyboardInterrupt) as problem:
        error = problem
    with deferred_signals(last=True), recording(report):
        if report.state == "Running":
            report.end(error)
        # First, for nothing that goes wrong with a file may keep it from being said.
        _conclude(report, error, chosen.out)
        if chosen.report is not None and page is not None:
            _save(report, chosen.report, page, chosen.out)
    return report.exit_code()


def _run(config: FinetuneConfig, report: RunReport) -> None:
    # The SDK takes seconds to import, and so does Prefect's server to start: side by side.
    # MLflow is imported by the SDK when it reads a workspace. What compares the replies takes its
    # time too, and while it is imported the endpoint would be billed.
    configure_mlflow()
    early = ("azure.ai.ml", "mlflow", "rouge_score.rouge_scorer")
    threading.Thread(target=_import_early, args=(early,), daemon=True).start()

    def interrupt(number: int, frame: FrameType | None) -> None:
        report.interrupted = True
        raise KeyboardInterrupt

    # SIGHUP: the terminal was closed. Under nohup it is ignored, and stays so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    with displayed(report) as lines, ExitStack() as stack:
        with report.timing("start_prefect"):
            prefect_api_url()  # Before Prefect is imported and chokes on a setting.
            from flows.finetune import finetune_chat_model

            for name in ("prefect.flow_runs", "prefect.task_runs"):
                logging.getLogger(name).addFilter(_without_our_traceback)
            stack.enter_context(prefects_log(lines))
            ensure_prefect_server()
        sections = {name: getattr(config, name) for name in FinetuneConfig.model_fields}
        finetune_chat_model(**sections)


def _import_early(modules: tuple[str, ...]) -> None:
    # What is wrong is said by the step that needs it, in its own words.
    for module in modules:
        with suppress(Exception):
            import_module(module)


def _without_our_traceback(record: logging.LogRecord) -> bool:
    """Leave the traceback out of the log where the error is one of ours and says it all."""
    error: Any = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, FinetuneError):
        record.exc_info = None
        record.exc_text = None
    return True


def _page_of(path: Path | None) -> Path | None:
    """Return where the readable report goes: beside the JSON, under the same name.

    Raises:
        ConfigurationError: One of the two cannot be written.
    """
    if path is None:
        return None
    page = path.with_suffix(".html")
    if page == path:
        raise ConfigurationError(
            "the report is JSON, and its page takes this name.",
            where=f"--report {path}",
            remedy=f"Name it {path.with_suffix('.json')}.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, page):
            with file.open("a", encoding="utf-8"):
                pass
    except OSError as error:
        raise ConfigurationError(
            f"the report cannot be written there ({error.strerror}).", where=f"--report {path}"
        ) from error
    return page


def _conclude(report: RunReport, error: BaseException | None, out: Any) -> None:
    """Say how the run ended, and what may still be billing."""
    is_shown = report.state == "Refused" or courtesy(
        "showing the summary",
        lambda: _show(report, out),
        otherwise=False,
        instead="What is left is said below.",
    )
    if report.state == "Interrupted":
        print("finetune: interrupted", file=sys.stderr)
    elif isinstance(error, FinetuneError):
        show_error(error, refused=report.state == "Refused")
    elif error is not None:
        print(f"finetune: failed: {type(error).__name__}: {error}", file=sys.stderr)
    if not is_shown:
        left = closing(report.as_dict())
        print(f"finetune: {report.state}. {left.title}. {left.text}", file=sys.stderr)
    show_still_billing(report.still_billing)
    if error is None and report.error is not None:
        print(f"finetune: {report.error['message']}", file=sys.stderr)


def _show(report: RunReport, out: Any) -> bool:
    width = None if out.isatty() else _WIDTH_OF_A_FILE
    console = Console(file=out, width=width, highlight=False)
    console.width = min(console.width, _WIDEST)
    with console.capture() as shown:
        show_summary(console, report.as_dict())
    out.write(shown.get())
    out.flush()
    return True


def _save(report: RunReport, path: Path, page: Path, out: Any) -> None:
    """Write the report; what cannot be written is a warning, also in what is written after it."""
    is_written = courtesy(
        f"writing {page}",
        lambda: _write(page, render(report.as_dict())),
        otherwise=False,
        instead="The page of the report is missing.",
    )
    courtesy(
        f"writing {path}",
        lambda: _write(path, json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n"),
        otherwise=False,
        instead="The report is missing.",
    )
    if is_written and report.state != "Refused":
        with suppress(OutputError):
            print(f"Report: {page}", file=out, flush=True)


def _write(path: Path, text: str) -> bool:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return True
