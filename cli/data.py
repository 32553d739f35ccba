"""``finetune data``: prepare the data set and show what is in it; without Azure where it can."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lifecycle.auth import authenticate
from lifecycle.config import load_config
from lifecycle.conversations.summary import as_text
from lifecycle.dataset import Progress as HowFar
from lifecycle.dataset import Watch, data_directory, download_data

_SECONDS_A_LINE = 5.0


def main(chosen: argparse.Namespace) -> int:
    """Prepare it and print the summary; raises what is refused."""
    config = load_config(chosen.config, chosen.set)
    workspace = authenticate(config.workspace).ref if config.dataset.is_in_azure else None
    with watching() as watch:
        data = download_data(config.dataset, data_directory(), workspace=workspace, watch=watch)
    if chosen.json:
        print(data.model_dump_json(indent=2), file=chosen.out)
    else:
        print(as_text(data, config.dataset.train_split), file=chosen.out)
        for file in data.files:
            print(f"{file.split}: {file.path}", file=chosen.out)
    chosen.out.flush()
    return 0


@contextmanager
def watching() -> Iterator[Watch]:
    """Show how far the data step is: a bar a split on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Pace(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}

        def watch(far: HowFar) -> None:
            if far.title not in bars:
                # Counting and waiting have no end that is known, and are over when another begins.
                for task in [task for task in progress.tasks if task.total is None]:
                    progress.remove_task(task.id)
                bars[far.title] = progress.add_task(far.title, total=None)
            progress.update(bars[far.title], completed=far.rows, total=far.of_rows or None)

        yield watch


def _lines() -> Watch:
    last = time.monotonic()

    def watch(far: HowFar) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_A_LINE:
            last = time.monotonic()
            print(far, file=sys.stderr)

    return watch


class _Pace(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        """Show the pace, once there is one."""
        pace = task.finished_speed or task.speed
        return Text("" if pace is None else f"{pace:,.0f} rows/s", style="progress.data.speed")
