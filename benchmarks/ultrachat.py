"""A synthetic UltraChat 200k: its splits, row counts, schema and lengths, and text of no meaning.

Laid out as on the hub: ``data/<split>-00000-of-00003.parquet``, Snappy, row groups of a thousand
rows. Words are drawn as language draws them, so that it compresses like text. Equal arguments give
equal rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROWS = {"train_sft": 207_865, "test_sft": 23_110, "train_gen": 256_032, "test_gen": 28_304}
FILES = {"train_sft": 3, "test_sft": 1, "train_gen": 3, "test_gen": 1}

_ROWS_A_GROUP = 1000
_VOCABULARY = 20_000
_WORDS = 4_000_000
_LETTERS = list("etaoinshrdlucmfwypvbgk")
_AFTER_A_WORD = [" "] * 8 + [", ", ". ", ".\n", "\n\n", "é ", '"']
_TURNS = {1: 0.05, 2: 0.2, 3: 0.35, 4: 0.2, 5: 0.1, 6: 0.06, 7: 0.04}


def write(folder: Path, scale: float = 1.0) -> int:
    """Write the data set and return its bytes.

    Args:
        folder: Where; made if it is not there.
        scale: Of the rows of each split; 1 is the true size, 3.4 GB as JSON lines.
    """
    (folder / "data").mkdir(parents=True)
    text = _Text(np.random.default_rng(200_000))
    size = 0
    for split, rows in ROWS.items():
        left = scaled(rows, scale)
        for number in range(FILES[split]):
            here = -(-left // (FILES[split] - number))
            left -= here
            name = f"{split}-{number:05}-of-{FILES[split]:05}.parquet"
            _write_file(folder / "data" / name, text, here)
            size += (folder / "data" / name).stat().st_size
    return size


def scaled(rows: int, scale: float) -> int:
    """Return the rows of a split at a scale; three at the least, one a file."""
    return max(3, round(rows * scale))


class _Text:
    """A long text, and pieces of it."""

    def __init__(self, chance: np.random.Generator) -> None:
        self.chance = chance
        lengths = chance.integers(2, 10, _VOCABULARY)
        words = np.array(["".join(chance.choice(_LETTERS, n)) for n in lengths], dtype=object)
        frequency = 1 / np.arange(1, _VOCABULARY + 1)
        drawn = words[chance.choice(_VOCABULARY, _WORDS, p=frequency / frequency.sum())]
        after = chance.choice(np.array(_AFTER_A_WORD, dtype=object), _WORDS)
        self.content = "".join((drawn + after).tolist()).encode()
        self.spaces = np.flatnonzero(np.frombuffer(self.content, np.uint8) == ord(" ")) + 1

    def pieces(self, lengths: NDArray[np.int64]) -> list[str]:
        """Return a piece of about each of these lengths, in bytes, cut between words."""
        start = self.spaces[self.chance.integers(0, len(self.spaces) - 30_000, len(lengths))]
        end = self.spaces[np.searchsorted(self.spaces, start + lengths)] - 1
        return [
            self.content[low:high].decode()
            for low, high in zip(start.tolist(), end.tolist(), strict=True)
        ]


def _write_file(path: Path, text: _Text, rows: int) -> None:
    writer = None
    for start in range(0, rows, _ROWS_A_GROUP):
        table = _table(text, min(_ROWS_A_GROUP, rows - start))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=_ROWS_A_GROUP)
    if writer is not None:
        writer.close()


def _table(text: _Text, rows: int) -> pa.Table:
    chance = text.chance
    messages = 2 * chance.choice(list(_TURNS), rows, p=list(_TURNS.values()))
    starts = np.concatenate([[0], np.cumsum(messages)])
    is_user = (np.arange(starts[-1]) - np.repeat(starts[:-1], messages)) % 2 == 0
    # A question is of a hundred characters or so, an answer of thirteen hundred.
    lengths = np.exp(
        np.where(is_user, chance.normal(4.6, 0.9, starts[-1]), chance.normal(7.2, 0.6, starts[-1]))
    )
    contents = pa.array(text.pieces(lengths.astype(np.int64).clip(8, 20_000)))
    roles = pa.array(np.where(is_user, "user", "assistant"))
    turns = pa.StructArray.from_arrays([contents, roles], ["content", "role"])
    return pa.table(
        {
            "prompt": contents.take(pa.array(starts[:-1])),
            "prompt_id": pa.array([chance.bytes(32).hex() for _ in range(rows)]),
            "messages": pa.ListArray.from_arrays(pa.array(starts, pa.int32()), turns),
        }
    )
