"""Which rows of a split are used: the first ones, or some drawn at random."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lifecycle.dataset import DatasetSpec

_SPREAD = 64


def wanted_rows(spec: DatasetSpec, split: str, total: int) -> int:
    """Return how many rows of *split* are asked for, of the *total* that it has.

    A percentage is rounded as ``datasets`` rounds ``split[0%:5%]``; one row at least.
    """
    number = spec.rows_of(split)
    if number is None:
        number = max(1, round(total * spec.percentage / 100))
    return min(total, number)


def draw(spec: DatasetSpec, split: str, blocks: Sequence[int], wanted: int) -> NDArray[np.int64]:
    """Draw rows at random, each at most once; equal seeds draw the same ones.

    A block (a row group of Parquet) is the least that can be read. As many blocks are drawn as hold
    the rows wanted, and 64 at least, so that rows that lie side by side in the source do not
    dominate the sample; then the rows among theirs. So what is read grows with the sample.

    Args:
        spec: With the seed.
        split: Whose rows; each split's draw is its own.
        blocks: Rows of each block that can be read by itself, in order.
        wanted: How many rows, at most as many as there are.

    Returns:
        The numbers of the rows, ascending.
    """
    seed = int.from_bytes(hashlib.sha256(f"{spec.seed}:{split}".encode()).digest()[:8], "big")
    sizes = np.array(blocks, dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    order = np.argsort(_ranks(seed, np.arange(len(sizes))), kind="stable")
    needed = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1
    drawn = np.sort(order[: max(needed, _SPREAD)])
    rows = np.concatenate([np.arange(first[n], first[n] + sizes[n]) for n in drawn])
    if wanted >= len(rows):
        return rows
    lowest = np.argpartition(_ranks(seed + 1, rows), wanted)[:wanted]
    return np.sort(rows[lowest])


def _ranks(seed: int, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Give each number a rank at random, the same with every version of every library.

    Source: SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators".
    """
    with np.errstate(over="ignore"):
        mixed = np.uint64(seed % 2**64) + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        ranks: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
        return ranks
