"""The ``finetune`` command line: ``run``, ``plan``, ``data``, ``sweep``, ``doctor``.

Exit codes, for every verb: 0 done · 1 the run failed, all cleaned up · 2 refused, nothing created ·
3 something may still be billing, and is named · 130 interrupted, all cleaned up.
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lifecycle.aside import is_at_work
from lifecycle.errors import FinetuneError, Refused, StillBilling
from lifecycle.report import EXIT_CODES, EXIT_STILL_BILLING

from .console import OutputError, own_streams, show_error
from .log import PlainLines, shown_log


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code.

    Args:
        arguments: Those of the process where not given; the process is then the verb's, and ends
            with it.
    """
    chosen = _parser().parse_args(arguments)
    with own_streams() as chosen.out, shown_log(PlainLines()), _interruptible():
        code = _run_verb(chosen)
    if arguments is None and is_at_work():
        _end_now(code)
    return code


def _end_now(code: int) -> NoReturn:
    """End this process without its threads, one of which waits for the network.

    Arrow's threads call Python where they read, and abort the process (SIGABRT) if they come back
    while Python takes itself down.
    """
    atexit._run_exitfuncs()
    os._exit(code)


def _run_verb(chosen: argparse.Namespace) -> int:
    try:
        code: int = import_module(f".{chosen.verb}", __package__).main(chosen)
    except FinetuneError as error:
        show_error(error, refused=isinstance(error, Refused))
        if isinstance(error, StillBilling):
            return EXIT_STILL_BILLING
        return EXIT_CODES["Refused" if isinstance(error, Refused) else "Failed"]
    except OutputError as error:
        # Of a verb that only reads; run and sweep end as what they left says.
        print(f"finetune: {error}", file=sys.stderr)
        return EXIT_CODES["Failed"]
    except KeyboardInterrupt:
        print("finetune: interrupted; nothing was created", file=sys.stderr)
        return EXIT_CODES["Interrupted"]
    return code


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and a closed terminal interrupt as Ctrl-C does, and so be answered."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Under nohup SIGHUP is ignored, and stays so.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = {number: one for number, one in before.items() if one is not signal.SIG_IGN}
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="finetune",
        description="Fine-tune chat models on Azure ML and never leave a bill running.",
        epilog="Exit codes: 0 done; 1 the run failed, all cleaned up; 2 refused, nothing created; "
        "3 something may still be billing (it is named); 130 interrupted, all cleaned up.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument(
        "--config", type=Path, metavar="FILE", help="a YAML file such as those in profiles/"
    )
    configured.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=value",
        help="override one parameter; may be repeated",
    )
    run = verbs.add_parser("run", parents=[configured], help="run the whole life cycle")
    run.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    plan = verbs.add_parser(
        "plan", parents=[configured], help="check everything and price it; read-only"
    )
    plan.add_argument("--json", action="store_true", help="print JSON")
    data = verbs.add_parser(
        "data", parents=[configured], help="prepare the data set alone, and show what is in it"
    )
    data.add_argument("--json", action="store_true", help="print JSON")
    sweep = verbs.add_parser(
        "sweep", parents=[configured], help="list, or delete, endpoints that have expired"
    )
    sweep.add_argument("--apply", action="store_true", help="delete them; without it a dry run")
    sweep.add_argument("--json", action="store_true", help="print JSON")
    doctor = verbs.add_parser(
        "doctor", parents=[configured], help="is this machine, and this workspace, ready?"
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return parser
