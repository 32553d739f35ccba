"""What a person sees of the data: counts, what was dropped, how long it is, a few conversations."""

from __future__ import annotations

import html
import json
import re
import textwrap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lifecycle.dataset import TOKENS_A_BIN, DatasetResult, SplitFile, TokenLengths
from lifecycle.pictures import data_uri
from lifecycle.wording import excerpt, plain

_BAR = 40
_WRAP = 86
_ROWS_OF_BARS = 12
_PICTURE_BARS = 48
_WIDTH, _HEIGHT, _LEFT, _FOOT = 640, 200, 8, 34


def as_text(result: DatasetResult, split: str, samples: int = 2) -> str:
    """Return the summary for a terminal or a log.

    Args:
        result: What :func:`lifecycle.dataset.download_data` returned.
        split: Whose lengths and conversations to show.
        samples: How many conversations.
    """
    head = ("split", "rows", "of", "MB", "tokens, mean", "longest", "dropped", "duplicates")
    table = [head, *(_row(file) for file in result.files)]
    widths = [max(len(row[n]) for row in table) for n in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    shown = result.file(split)
    if shown.tokens is not None:
        lines += ["", f"Tokens of a conversation in {shown.split}, {shown.tokens.method}:"]
        lines += list(_bars(shown.tokens))
    lines += [""] * bool(notes(result)) + [f"- {note}" for note in notes(result)]
    for number, sample in enumerate(conversations_of(shown, samples)):
        lines += ["", f"{shown.split}, conversation {number}:"]
        lines += [f"  {line}" for line in _told(sample)]
    return "\n".join(lines)


def as_markdown(result: DatasetResult, split: str, samples: int = 3) -> str:
    """Return the same as Markdown, with the histogram as a picture."""
    lines = [f"# {plain(result.name)}", ""]
    if result.revision:
        lines += [f"Revision `{result.revision}`", ""]
    lines += ["| split | rows | of | MB | tokens, mean | longest | dropped | duplicates |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
    lines += [f"| {' | '.join(_row(file))} |" for file in result.files]
    lines += ["", *(f"- {plain(note)}" for note in notes(result)), ""]
    shown = result.file(split)
    if shown.tokens is not None:
        lines += [
            f"## Tokens of a conversation in {shown.split}",
            "",
            f"Here {plain(shown.tokens.method)}.",
            "",
        ]
        lines += [f"![histogram]({data_uri(histogram(shown.tokens))})", ""]
    lines += [f"## Conversations of {shown.split}", ""]
    for number, sample in enumerate(conversations_of(shown, samples)):
        text = "\n".join(_told(sample))
        fence = "`" * (3 + max((len(run) for run in re.findall("`+", text)), default=0))
        lines += [f"Conversation {number}", "", f"{fence}text", text, fence, ""]
    return "\n".join(lines)


def notes(result: DatasetResult) -> list[str]:
    """Return what a person should know of the data before it is trained on, as sentences."""
    said = []
    for file in result.files:
        dropped = sum(file.dropped.values())
        if dropped:
            kinds = ", ".join(f"{kind} {number}" for kind, number in file.dropped.items())
            first = "; ".join(file.first_dropped)
            said.append(f"{file.split}: {dropped} rows were dropped ({kinds}). The first: {first}.")
        if file.duplicates:
            said.append(f"{file.split}: {file.duplicates} rows are exact duplicates.")
    for split, rows in result.leaked.items():
        said.append(f"{split}: {rows} rows are in the training split as well.")
    for split, why in result.left_out.items():
        said.append(f"{split} is left out, and the run does not use it: {why}")
    return said


def histogram(lengths: TokenLengths) -> str:
    """Draw the lengths as an SVG picture that can be read on light and on dark."""
    bars = _merged(lengths, _PICTURE_BARS)
    most = max(bars.values(), default=1)
    step = (_WIDTH - 2 * _LEFT) / max(len(bars), 1)
    drawn = []
    for place, ((low, high), rows) in enumerate(bars.items()):
        tall = (_HEIGHT - _FOOT - 20) * rows / most
        drawn.append(
            f'<rect x="{_LEFT + place * step:.1f}" y="{_HEIGHT - _FOOT - tall:.1f}" '
            f'width="{max(step - 1.5, 1):.1f}" height="{tall:.1f}" rx="1.5" fill="#4c8dd6">'
            f"<title>{low}–{high} tokens: {rows:,} rows</title></rect>"
        )
    end = next(reversed(bars))[1] if bars else 0
    labels = [
        f'<text x="{_LEFT + (_WIDTH - 2 * _LEFT) * part / 4:.0f}" y="{_HEIGHT - 16}" '
        f'text-anchor="{("start", "middle", "middle", "middle", "end")[part]}">'
        f"{end * part // 4:,}</text>"
        for part in range(5)
    ]
    at_mean = _LEFT + (_WIDTH - 2 * _LEFT) * min(lengths.mean / max(end, 1), 1)
    said = html.escape(f"mean {lengths.mean:,.0f}, longest {lengths.longest:,} tokens")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="11" '
        f'fill="#888"><title>{said}</title>{"".join(drawn)}'
        f'<line x1="{at_mean:.1f}" x2="{at_mean:.1f}" y1="14" y2="{_HEIGHT - _FOOT}" '
        f'stroke="#d9822b" stroke-dasharray="4 3"/>'
        f'<line x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="{_HEIGHT - _FOOT}" '
        f'y2="{_HEIGHT - _FOOT}" stroke="#888"/>{"".join(labels)}'
        f'<text x="{_WIDTH - _LEFT}" y="10" text-anchor="end">{said}</text></svg>'
    )


def conversations_of(file: SplitFile, number: int) -> Iterator[list[dict[str, Any]]]:
    """Read the first conversations of a file that the data step wrote."""
    if Path(file.path).suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(file.path) as parquet:
            for batch in islice(parquet.iter_batches(max(number, 1)), 1):
                yield from batch.column("messages").slice(0, number).to_pylist()
        return
    with open(file.path, encoding="utf-8") as lines:
        for line in islice(lines, number):
            yield json.loads(line)["messages"]


def _told(sample: list[dict[str, Any]]) -> Iterator[str]:
    """Give a conversation as lines of a terminal's width, who speaks before what is said."""
    for turn in sample:
        said = textwrap.wrap(excerpt(turn["content"]), _WRAP)
        for number, line in enumerate(said or [""]):
            yield f"{turn['role'] if number == 0 else '':>9}  {line}"


def _row(file: SplitFile) -> tuple[str, ...]:
    tokens = file.tokens
    return (
        file.split,
        f"{file.rows:,}",
        "?" if file.source_rows is None else f"{file.source_rows:,}",
        f"{file.bytes / 1e6:,.1f}",
        f"{tokens.mean:,.0f}" if tokens else "",
        f"{tokens.longest:,}" if tokens else "",
        f"{sum(file.dropped.values()):,}",
        f"{file.duplicates:,}",
    )


def _bars(lengths: TokenLengths) -> Iterator[str]:
    bars = _merged(lengths, _ROWS_OF_BARS)
    most = max(bars.values(), default=1)
    width = len(f"{next(reversed(bars))[1]:,}") if bars else 1
    for (low, high), rows in bars.items():
        bar = "█" * round(_BAR * rows / most) or ("▏" if rows else "")
        yield f"  {low:>{width},}–{high:<{width},}  {bar:<{_BAR}}  {rows:,}"


def _merged(lengths: TokenLengths, most: int) -> dict[tuple[int, int], int]:
    """Join the bins so that there are *most* at the most; each with its first and last length."""
    each = max(1, -(-len(lengths.bins) // most))
    return {
        (start * TOKENS_A_BIN + 1, (start + each) * TOKENS_A_BIN): sum(
            lengths.bins[start : start + each]
        )
        for start in range(0, len(lengths.bins), each)
    }
