"""Child processes of the emulator: the containers that steps and deployments run in.

A container is ``python -m MODULE ARGUMENTS`` in a session of its own. It cannot outlive the
emulator: its standard input is a pipe that the emulator alone holds open, and when that ends, even
because the emulator was killed, the container ends its whole process group
(:func:`exit_with_parent`). Linux has a signal for this, macOS has not; a pipe does on both.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# What of the emulator's own environment a container sees; nothing that names a cloud or a secret.
_PASSED = re.compile(
    r"(PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|VIRTUAL_ENV|PYTHONPATH|PYTHONHOME|LD_LIBRARY_PATH"
    r"|DYLD_\w+|CUDA_\w+|NVIDIA_\w+|OMP_\w+|MKL_\w+|AZUREML_EMULATOR_CACHE)"
)
_FIXED = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",
    # Threads that wait for others sleep. By default they spin, which on a machine that is busy
    # with anything else made a reply ten times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    # A progress bar redraws its line, which no log can.
    "TQDM_DISABLE": "1",
}
_POLL_SECONDS = 0.02


class Container:
    """A running child process, from the moment that it is made.

    Args:
        module: What ``python -m`` is to run; it calls :func:`exit_with_parent` first.
        arguments: Its command line.
        log: The file to which its output and errors are appended.
        scratch: Its working folder and ``TMPDIR``; made if it is not there, and not removed.

    Attributes:
        pid: Its process id, which is also that of its process group.

    Raises:
        OSError: It could not be started, or its log not be opened.
    """

    def __init__(self, module: str, arguments: Sequence[str], *, log: Path, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        # -P: nothing that lies in the working folder is taken for a package.
        command = [sys.executable, "-P", "-m", module, *arguments]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=scratch,
                env=container_environment(os.environ, scratch),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._ended = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, negative for the signal that killed it; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._end_group()
        return code

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait until it has ended, at most *seconds*; return as :meth:`poll` does."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_SECONDS)
        return code

    def stop(self, grace_seconds: float = 0.0) -> int:
        """End it and everything that it has started; return its exit code.

        Args:
            grace_seconds: How long it may take to end by itself once it was told to, by SIGTERM;
                0 kills it at once.
        """
        if grace_seconds > 0 and self.poll() is None:
            self._signal(signal.SIGTERM)
            self.wait(grace_seconds)
        if self.poll() is None:
            self._signal(signal.SIGKILL)
        code = self.wait()
        assert code is not None
        return code

    def _end_group(self) -> None:
        # What it had started may still run; once, for its process id may be another's later.
        if self._ended.acquire(blocking=False):
            self._signal(signal.SIGKILL)
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        # It may have ended; macOS says that with EPERM where only a zombie is left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def container_environment(environ: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return the environment of a container whose working folder is *scratch*."""
    passed = {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}
    return passed | _FIXED | {"TMPDIR": str(scratch)}


def exit_with_parent() -> None:
    """Let this process and its group end when the emulator does. A container calls it first."""
    # Ctrl-C in a terminal is for the emulator to understand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, name="parent", daemon=True).start()


def _watch_parent() -> None:
    # The descriptor, not sys.stdin, whose lock would be held when the interpreter shuts down.
    while os.read(0, 4096):
        pass
    # Of its own group alone: started by hand, it may be in somebody else's.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
