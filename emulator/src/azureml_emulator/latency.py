"""How long each thing takes: a table of seconds by name, chosen with ``--latency``.

``instant`` is zero throughout. ``realistic`` and ``manual`` use :data:`REALISTIC`; under
``manual`` the clock moves only by ``POST /_emulator/advance``. A path names a YAML file that
overrides single rows of the table.
"""

from __future__ import annotations

import math
from pathlib import Path

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


class Latency:
    """Answers how many seconds a named thing takes.

    Args:
        choice: ``instant``, ``realistic``, ``manual`` or the path of a YAML file.

    Raises:
        ValueError: The choice is neither a known name nor a file with a table of seconds.
    """

    def __init__(self, choice: str) -> None:
        self.manual = choice == "manual"
        self._instant = choice == "instant"
        self._table = dict(REALISTIC)
        if choice not in ("instant", "realistic", "manual"):
            self._table |= _read(Path(choice))

    def seconds(self, name: str) -> float:
        """Return how long *name* takes, in seconds; a name that is not in the table is a bug."""
        duration = self._table[name]
        return 0.0 if self._instant else duration

    def of_user(self, seconds: float) -> float:
        """Return how long something takes that the user set to *seconds*; also 0 under instant."""
        return 0.0 if self._instant else seconds


def _read(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise ValueError(f"--latency: {path} is neither instant, realistic, manual nor a file")
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"--latency: {path} is not YAML: {error}") from error
    unknown = sorted(set(table) - set(REALISTIC)) if isinstance(table, dict) else ["(no table)"]
    if unknown:
        raise ValueError(f"--latency: {path}: unknown rows {unknown}; known: {sorted(REALISTIC)}")
    for name, value in table.items():
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"--latency: {path}: {name} must be seconds, 0 or more, not {value!r}")
    return {name: float(value) for name, value in table.items()}
