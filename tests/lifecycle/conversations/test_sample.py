"""Sampling: reproducible to the byte, fair, and no dearer than the sample."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.conversations.sample import draw, wanted_rows
from lifecycle.dataset import DatasetSpec


@given(
    blocks=st.lists(st.integers(0, 300), min_size=1, max_size=200).filter(any),
    share=st.floats(0.001, 1),
    seed=st.integers(0, 2**31),
)
def test_a_draw_has_the_rows_asked_for_each_once(
    blocks: list[int], share: float, seed: int
) -> None:
    """Whatever the source's blocks are: so many rows, ascending, all of them there."""
    wanted = max(1, int(sum(blocks) * share))

    rows = draw(DatasetSpec(sampling="random", seed=seed), "train", blocks, wanted)

    assert wanted == len(rows) == len(set(rows.tolist()))
    assert sorted(rows.tolist()) == rows.tolist()
    assert 0 <= rows[0] <= rows[-1] < sum(blocks)


def test_a_seed_draws_the_same_rows_for_ever() -> None:
    """The digest is written down here: no new version of any library changes a sample."""
    rows = draw(DatasetSpec(sampling="random", seed=7), "train_sft", [1000] * 208, 10_400)

    digest = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    assert "718eb0be48f6fffd" == digest[:16]


def test_seeds_and_splits_draw_differently() -> None:
    """Another seed is another sample, and so is another split."""
    blocks = [100] * 100
    draws = [
        draw(DatasetSpec(seed=seed), split, blocks, 500).tolist()
        for seed, split in ((1, "a"), (2, "a"), (1, "b"))
    ]

    assert 3 == len({tuple(one) for one in draws})


def test_every_row_is_as_likely_as_any_other() -> None:
    """Over many seeds each row of the source is drawn about as often."""
    blocks = [20] * 100
    times = np.zeros(2000)
    for seed in range(400):
        times[draw(DatasetSpec(seed=seed), "train", blocks, 500)] += 1

    # 400 draws of a quarter: 100 each; a standard deviation is 8.7.
    assert 100 == times.mean()
    assert 60 < times.min()
    assert times.max() < 140


def test_no_more_blocks_are_touched_than_the_sample_needs() -> None:
    """64 blocks at the least, so that neighbours do not dominate; else as many as hold it."""
    few = draw(DatasetSpec(seed=1), "train", [1000] * 5000, 2000)
    many = draw(DatasetSpec(seed=1), "train", [1000] * 5000, 200_000)

    assert 64 == len(set((few // 1000).tolist()))
    assert 200 == len(set((many // 1000).tolist()))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(None, {"a": 5, "b": 5}), (30, {"a": 30, "b": 30}), ({"b": 7}, {"a": 5, "b": 7})],
)
def test_rows_go_before_the_percentage(
    rows: int | dict[str, int] | None, expected: dict[str, int]
) -> None:
    """A number for all splits, or for those that are named."""
    spec = DatasetSpec(percentage=5, rows=rows)

    assert expected == {split: wanted_rows(spec, split, 100) for split in ("a", "b")}
    assert 3 == wanted_rows(DatasetSpec(rows=30), "a", 3)
