"""How long each thing takes: a table by name, chosen with ``--latency``.

Each row has a policy: ``immediate`` (no time), ``timed`` (the seconds of :data:`REALISTIC`, or
others) or ``manual`` (it happens when ``POST /_emulator/advance`` names it). ``instant`` is
immediate throughout and ``realistic`` timed; ``manual`` is timed too, on a clock that moves only by
``POST /_emulator/advance``. A path names a YAML file, timed but for what it says of single rows, of
a resource (``endpoint``) or of everything (``"*"``).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

REALISTIC: dict[str, float] = {
    # Read off recorded traffic of the live service (Azure/azure-sdk-assets, azure-powershell).
    "endpoint.create": 21.0,
    "endpoint.update": 12.0,
    "endpoint.delete": 35.0,
    "endpoint.regenerate_keys": 5.0,
    # A guess: users report that a name is not free for "a while" (azure-cli-extensions#7660).
    "endpoint.name_reuse": 120.0,
    "compute.create": 14.0,
    "compute.update": 5.0,
    "compute.delete": 10.0,
    # Shortened: the live service takes 6 to 15 minutes to bring a GPU deployment up.
    "deployment.create": 60.0,
    "deployment.update": 30.0,
    "deployment.delete": 20.0,
    # Shortened: hours in life. The scripted job spreads these over its steps.
    "job.queue": 10.0,
    "job.prepare": 2.0,
    "job.step": 12.0,
    "job.finalize": 1.0,
    "job.cancel": 4.0,
}


POLICIES: dict[str, float | None] = {"immediate": 0.0, "timed": None, "manual": math.inf}
"""The seconds that a policy puts in place of the table's; None leaves those."""

_CHOICES = {"instant": "immediate", "realistic": "timed", "manual": "timed"}
# The user of Azure says how long: nodeIdleTimeBeforeScaleDown.
_OF_USER = "compute.scale_down"
# Nothing happens then, so nothing could wait to be named.
_ONLY_TIMED = "endpoint.name_reuse"


class Latency:
    """Answers how many seconds a named thing takes.

    Args:
        choice: ``instant``, ``realistic``, ``manual`` or the path of a YAML file.

    Attributes:
        manual: Whether the clock stands still until it is advanced.

    Raises:
        ValueError: The choice is neither a known name nor a file with a table that makes sense.
    """

    def __init__(self, choice: str) -> None:
        self.manual = choice == "manual"
        self._given = {"*": _CHOICES[choice]} if choice in _CHOICES else _read(Path(choice))

    def seconds(self, name: str) -> float:
        """Return how long *name* takes, in seconds; infinite where it waits to be told.

        A name that is not in the table is a bug.
        """
        return self._chosen(name, REALISTIC[name])

    def of_user(self, name: str, seconds: float) -> float:
        """Return how long *name* takes, which the user has set to *seconds*."""
        return self._chosen(name, seconds)

    def _chosen(self, name: str, timed: float) -> float:
        for key in (name, name.partition(".")[0], "*"):
            if key not in self._given:
                continue
            value = self._given[key]
            seconds = POLICIES[value] if isinstance(value, str) else value
            if seconds == math.inf and name == _ONLY_TIMED:
                return timed
            return timed if seconds is None else seconds
        return timed


def _read(path: Path) -> dict[str, str | float]:
    if not path.is_file():
        raise ValueError(f"--latency: {path} is neither instant, realistic, manual nor a file")
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"--latency: {path} is not YAML: {error}") from error
    rows = {*REALISTIC, _OF_USER}
    known = {"*", *rows, *(name.partition(".")[0] for name in rows)}
    unknown = set(table) - known if isinstance(table, dict) else {"(no table)"}
    if unknown:
        said = f"unknown rows {sorted(map(str, unknown))}; known: {sorted(known)}"
        raise ValueError(f"--latency: {path}: {said}")
    return {name: _checked(path, name, value, name in rows) for name, value in table.items()}


def _checked(path: Path, name: str, value: Any, single: bool) -> str | float:
    policies = [one for one in POLICIES if (name, one) != (_ONLY_TIMED, "manual")]
    if value in policies:
        return str(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if single and number and 0 <= value < math.inf:
        return float(value)
    accepted = " or ".join(["seconds, 0 or more,", *policies] if single else policies)
    raise ValueError(f"--latency: {path}: {name} must be {accepted}, not {value!r}")
