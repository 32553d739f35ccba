"""The folder with everything that a local stack keeps, and the environment of its processes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lifecycle.auth import VARIABLES
from lifecycle.clients import WorkspaceRef
from lifecycle.errors import ConfigurationError

from .definitions import run_environment

_LOOPBACK = "127.0.0.1,localhost"
_PROXY_NAMES = ("NO_PROXY", "no_proxy")


@dataclass(frozen=True)
class Folder:
    """What a stack keeps: runs, schedules, logs. Deleted, the next one begins anew."""

    path: Path

    @classmethod
    @contextmanager
    def held(cls, path: Path) -> Iterator[Folder]:
        """Make the folder, and keep other stacks out of it.

        Raises:
            ConfigurationError: It cannot be made, or another stack has it.
        """
        folder = cls(path)
        try:
            folder.logs.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / "lock")
            lock.acquire(timeout=0)
        except OSError as error:
            raise ConfigurationError(
                f"the folder cannot be used ({error.strerror}).", where=f"--state {path}"
            ) from error
        except Timeout as error:
            raise ConfigurationError(
                "another stack is running in this folder.",
                where=f"--state {path}",
                remedy="Stop it, or name another folder.",
            ) from error
        try:
            yield folder
        finally:
            folder.client_env.unlink(missing_ok=True)
            folder.ready.unlink(missing_ok=True)
            lock.release()

    @property
    def logs(self) -> Path:
        """What the processes say."""
        return self.path / "logs"

    @property
    def client_env(self) -> Path:
        """What leads another terminal here; there while the stack is up."""
        return self.path / "client.env"

    @property
    def ready(self) -> Path:
        """There when the deployments are."""
        return self.path / "ready"

    def environment(self, environ: Mapping[str, str], api: str) -> dict[str, str]:
        """Return *environ* with a Prefect of the stack's own in the place of any other."""
        kept = {name: value for name, value in environ.items() if not name.startswith("PREFECT_")}
        direct = [environ[name] for name in _PROXY_NAMES if environ.get(name)][:1]
        return {
            **kept,
            **dict.fromkeys(_PROXY_NAMES, ",".join([*direct, _LOOPBACK])),
            **run_environment(),
            "PREFECT_HOME": str(self.path / "prefect"),
            "PREFECT_API_URL": api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # Else the server writes its pages into the installed package.
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.path / "prefect" / "ui"),
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # People are watching.
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
            "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1",
        }

    def write_client_env(self, environ: Mapping[str, str], workspace: WorkspaceRef) -> None:
        """Write what a shell reads to speak with this stack (mode 0600).

        Args:
            environ: Of the stack's processes.
            workspace: Where its runs work; a shell may know of another.
        """
        emulator = environ.get("AZUREML_EMULATOR_STATE")
        lines = [f". {shlex.quote(f'{emulator}/client.env')}"] if emulator else []
        names = ("PREFECT_HOME", "PREFECT_API_URL", *_PROXY_NAMES)
        told = {name: environ[name] for name in names}
        told |= {name: getattr(workspace, key) for key, name in VARIABLES.items()}
        lines += [f"export {name}={shlex.quote(value)}" for name, value in told.items()]
        descriptor = os.open(self.client_env, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
