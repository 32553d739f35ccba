"""The ``azureml-emulator`` command: ``serve`` until Ctrl-C, or ``exec`` around one command."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .emulator import Emulator
from .environment import client_environment, write_client_files
from .server import Server
from .settings import Settings

REFUSED = 2
NOT_EXECUTABLE = 126
NOT_FOUND = 127


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 after ``serve`` was stopped; what the command of ``exec`` exited with; 2 for a bad option, a
    port that is taken or a state folder that cannot be used; 126 and 127 for a command that cannot
    be run, as a shell has it.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options, dashes, command = _split(given)
    parser = _parser()
    chosen = parser.parse_args(options)
    if chosen.verb == "exec" and not command:
        parser.error("exec: say -- and then the command")
    if chosen.verb == "serve" and dashes:
        parser.error("serve: takes no command")
    try:
        return _serve(chosen) if chosen.verb == "serve" else _exec(chosen, command)
    except _RefusedError as refused:
        return _say(str(refused), REFUSED)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage."""
        self.exit(REFUSED, f"azureml-emulator: {message}; --help says more\n")


class _RefusedError(Exception):
    """Raised when the emulator cannot start with what it was given."""


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return arguments, False, []
    place = arguments.index("--")
    return arguments[:place], True, arguments[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="azureml-emulator", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    options = _Parser(add_help=False)
    options.add_argument("--port", type=_port, default=0, metavar="N", help="default: any free one")
    options.add_argument(
        "--jobs",
        choices=["train", "scripted"],
        default="train",
        help="train (default): jobs train and endpoints reply for real; scripted: both play",
    )
    options.add_argument(
        "--weights",
        type=_weights,
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a Hugging Face model folder that backs the registry's model NAME; repeatable",
    )
    options.add_argument(
        "--latency",
        default="instant",
        metavar="POLICY",
        help="instant (default), realistic, manual, or a YAML file",
    )
    options.add_argument(
        "--catalog",
        default="today",
        metavar="CATALOG",
        help="today (default), 2024, or a YAML file",
    )
    serve = verbs.add_parser("serve", parents=[options], help="serve until Ctrl-C or SIGTERM")
    serve.add_argument("--state", type=Path, required=True, metavar="DIR", help="kept")
    run = verbs.add_parser(
        "exec",
        parents=[options],
        help="serve while one command runs, and exit as it did",
        usage="%(prog)s [options] -- COMMAND …",
    )
    run.add_argument("--state", type=Path, metavar="DIR", help="kept; default: a folder that goes")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return int(text)


def _weights(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=FOLDER")
    return name, Path(folder).resolve()


def _serve(chosen: argparse.Namespace) -> int:
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, lambda *_: stop.set())
    with _running(chosen, chosen.state) as server:
        print(f"ready {server.url} state={server.emulator.settings.state}", flush=True)
        stop.wait()
    return 0


def _exec(chosen: argparse.Namespace, command: list[str]) -> int:
    child = _Child()
    if chosen.state is not None:
        with _running(chosen, chosen.state) as server:
            return child.run(command, client_environment(server, os.environ))
    scratch = Path(tempfile.mkdtemp(prefix="azureml-emulator-"))
    try:
        with _running(chosen, scratch) as server:
            return child.run(command, client_environment(server, os.environ))
    finally:
        _remove(scratch)


@contextmanager
def _running(chosen: argparse.Namespace, state: Path) -> Iterator[Server]:
    settings = Settings(
        state.resolve(),
        chosen.port,
        chosen.jobs,
        chosen.latency,
        chosen.catalog,
        dict(chosen.weights),
    )
    try:
        server = Server(Emulator(settings))
        server.start()
    except OSError as error:
        known = f"--state: {error.filename}: {error.strerror}" if error.filename else str(error)
        raise _RefusedError(known) from error
    except (ValueError, RuntimeError, sqlite3.Error) as error:
        raise _RefusedError(str(error)) from error
    try:
        write_client_files(server)
        yield server
    finally:
        server.stop()


class _Child:
    """The command of ``exec``, and the signals that come while it runs.

    Ctrl-C reaches the whole process group: the command decides what it means, and the emulator
    must still be there while the command cleans up. What reaches the emulator alone is passed on.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._told: int | None = None
        # Handlers, not SIG_IGN, which the command would inherit. What is ignored stays so.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._tell)

    def run(self, command: list[str], environment: dict[str, str]) -> int:
        """Run the command to its end; 128 + n where signal n ended it, as a shell has it."""
        if self._told is not None:
            return 128 + self._told
        try:
            self._process = subprocess.Popen(command, env=environment)
        except FileNotFoundError:
            return _say(f"{command[0]}: command not found", NOT_FOUND)
        except OSError as error:
            return _say(f"{command[0]}: {error.strerror}", NOT_EXECUTABLE)
        if self._told is not None:
            self._process.send_signal(self._told)
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def _tell(self, number: int, frame: FrameType | None) -> None:
        if self._process is None:
            self._told = number
        elif number in (signal.SIGTERM, signal.SIGHUP):
            self._process.send_signal(number)


def _remove(scratch: Path) -> None:
    try:
        shutil.rmtree(scratch)
    except OSError as error:
        # The command has left a process behind that still writes there.
        _say(f"{scratch} could not be removed: {error}", 0)


def _say(message: str, code: int) -> int:
    print(f"azureml-emulator: {' '.join(message.split())}", file=sys.stderr)
    return code
