"""One table for figures that stand beside a reference."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table


def print_ratios(
    figures: Mapping[str, Sequence[float]],
    *,
    title: str,
    caption: str,
    reference: str,
    best_of: Callable[[Iterable[float]], float],
    shown: Callable[[float], str],
) -> None:
    """Print the best and the median of each row, and their ratios to those of one of them.

    Args:
        figures: What was measured, by name.
        title: What the figures are, with their unit.
        caption: On what they were measured.
        reference: The name that the others are beside.
        best_of: ``min`` for times, ``max`` for rates.
        shown: How a figure is written.
    """
    table = Table(title=title, caption=caption)
    for column in ("what", "n", "best", "median"):
        table.add_column(column)
    beside = figures[reference]
    for name, values in figures.items():
        best, median = best_of(values), statistics.median(values)
        table.add_row(
            name,
            str(len(values)),
            f"{shown(best)} ({best / best_of(beside):.2f})",
            f"{shown(median)} ({median / statistics.median(beside):.2f})",
        )
    Console().print(table)
