"""The page that a local stack shows: what to open, and what to try."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from .automations import DATA_CHANGED
from .definitions import ON_DEMAND
from .stack import Folder

_PAGE = """\
ready {ui} state={state}

Open {ui}
  Deployments   retrain begins by itself {schedule}
  Runs          the log as it grows, and the artifacts; Cancel deletes what the run has made
  Automations   what happens when a run crashes, or when data changes

Try
  Deployments, finetune-on-demand, Run, Custom run: fill the form, or leave it as it is.
  In another terminal:
    . {env}
    {bin}/prefect deployment run {on_demand}
    {bin}/prefect event emit {event} --resource-id my-data    # retrain follows
    {bin}/finetune sweep        # endpoints of ours
{ledger}
Ctrl-C stops all, and cancels what runs. {state} keeps everything: delete it to begin anew.
"""
_LEDGER = """\
    curl -s "$AZUREML_EMULATOR_URL/_emulator/ledger"    # what would have been billed
"""


def page(ui: str, folder: Folder, environ: Mapping[str, str], retrain_every: float | None) -> str:
    """Return the page.

    Args:
        ui: Where Prefect's UI is.
        folder: Of the stack.
        environ: Of its processes; tells whether the emulator is there.
        retrain_every: Seconds between retrainings, where prefect.yaml's schedule does not hold.
    """
    schedule = "on Sundays at 03:00 UTC"
    if retrain_every is not None:
        schedule = f"in a minute, then every {retrain_every / 60:g} minutes"
    return _PAGE.format(
        ui=ui,
        state=_near(folder.path),
        env=_near(folder.client_env),
        bin=_near(Path(sys.prefix)) / "bin",
        schedule=schedule,
        event=DATA_CHANGED,
        on_demand=ON_DEMAND,
        ledger=_LEDGER if "AZUREML_EMULATOR_URL" in environ else "",
    )


def _near(path: Path) -> Path:
    """Return the path as it is typed where we are."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
