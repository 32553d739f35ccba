"""``finetune run``: the whole life cycle, in this process."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from lifecycle.config import FinetuneConfig, load_config
from lifecycle.errors import ConfigurationError, FinetuneError
from lifecycle.report import RunReport, recording

from .console import show_error
from .server import ensure_prefect_server


def main(chosen: argparse.Namespace) -> int:
    """Run, write the report whatever happened, and return the exit code."""
    _require_writable(chosen.report)
    report = RunReport(resumable=False)
    error: BaseException | None = None
    try:
        config = load_config(chosen.config, chosen.set)
        with recording(report):
            _run(config, report)
    except (Exception, KeyboardInterrupt) as problem:
        error = problem
        if report.state == "Running":
            report.end(problem)
    finally:
        if chosen.report is not None:
            _write(chosen.report, report)
    _conclude(report, error, chosen.out)
    return report.exit_code()


def _run(config: FinetuneConfig, report: RunReport) -> None:
    # The SDK takes seconds to import, and so does Prefect's server to start: side by side.
    threading.Thread(target=_import_early, args=("azure.ai.ml",), daemon=True).start()

    def interrupt(number: int, frame: FrameType | None) -> None:
        report.interrupted = True
        raise KeyboardInterrupt

    # SIGHUP: the terminal was closed. Under nohup it is ignored, and stays so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    from flows.finetune import finetune_chat_model

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_our_traceback)
    sections = {name: getattr(config, name) for name in FinetuneConfig.model_fields}
    ensure_prefect_server()
    finetune_chat_model(**sections)


def _import_early(module: str) -> None:
    # What is wrong is said by the step that needs it, in its own words.
    with suppress(Exception):
        import_module(module)


def _without_our_traceback(record: logging.LogRecord) -> bool:
    """Leave the traceback out of the log where the error is one of ours and says it all."""
    error: Any = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, FinetuneError):
        record.exc_info = None
        record.exc_text = None
    return True


def _require_writable(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"the report cannot be written there ({error.strerror}).", where=f"--report {path}"
        ) from error


def _write(path: Path, report: RunReport) -> None:
    text = json.dumps(report.as_dict(), indent=2, ensure_ascii=False)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _conclude(report: RunReport, error: BaseException | None, out: TextIO) -> None:
    if report.state == "Interrupted":
        print("finetune: interrupted", file=sys.stderr)
    elif isinstance(error, FinetuneError):
        show_error(error, refused=report.state == "Refused")
    elif error is not None:
        print(f"finetune: failed: {type(error).__name__}: {error}", file=sys.stderr)
    for name in report.still_billing:
        print(f"finetune: MAY STILL BE BILLING: {name}", file=sys.stderr)
    if error is None:
        _show_success(report, out)
        if report.error is not None:
            print(f"finetune: {report.error['message']}", file=sys.stderr)


def _show_success(report: RunReport, out: TextIO) -> None:
    model = report.registered_model or {}
    endpoint = report.endpoint or {}
    print(f"Registered {model.get('name')} version {model.get('version')}", file=out)
    for name, value in sorted(report.metrics.items()):
        print(f"  {name} = {value}", file=out)
    for response in report.responses[:1]:
        print(f"Prompt     {response['prompt']}", file=out)
        print(f"Reply      {response['reply']}", file=out)
        print(f"Reference  {response['reference']}", file=out)
    gone = f"deleted at {endpoint.get('deleted_at')}" if endpoint.get("deleted") else "LEFT RUNNING"
    print(f"Endpoint {endpoint.get('name')}: {gone}", file=out)
