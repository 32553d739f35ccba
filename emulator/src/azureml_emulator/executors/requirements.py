"""What training for real needs of this machine, looked at before the emulator starts."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("torch", "transformers", "peft", "mlflow", "pandas")
FREE_BYTES = 1_000_000_000
"""What a life cycle of SmolLM2-135M leaves in a state folder, and as much again."""


def check(state: Path) -> None:
    """Look for what the steps of a job need.

    Args:
        state: The state folder, which need not be there yet.

    Raises:
        ValueError: A package or disk space is missing; the message says what to do.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ValueError(
            f"--jobs train needs {', '.join(missing)}, which this Python does not have: "
            "pip install 'azureml-emulator[train]', or say --jobs scripted"
        )
    check_disk(state, needed=FREE_BYTES)


def check_disk(state: Path, *, needed: int) -> None:
    """Look for disk space where *state* is or will be.

    Args:
        state: The state folder, which need not be there yet.
        needed: Bytes.

    Raises:
        ValueError: There is less.
    """
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(
            f"--jobs train needs {needed / 1e9:g} GB of free disk and {there} has "
            f"{free / 1e9:.1f} GB: make room, name another folder with --state, or say "
            "--jobs scripted"
        )
