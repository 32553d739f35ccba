"""The benchmark of the data step: data like UltraChat's, and ways that all write the same rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import data, ultrachat
from lifecycle.dataset import DatasetSpec, download_data

SCALE = 0.002


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A five-hundredth of it."""
    folder = tmp_path_factory.mktemp("ultrachat")
    ultrachat.write(folder, SCALE)
    return folder


def test_the_data_is_as_ultrachat_is(source: Path, tmp_path: Path) -> None:
    """Its splits, rows and lengths; and every row passes our own check."""
    result = download_data(DatasetSpec(path=str(source), percentage=100), tmp_path)

    expected = {split: ultrachat.scaled(rows, SCALE) for split, rows in ultrachat.ROWS.items()}
    assert expected == {file.split: file.rows for file in result.files}
    assert 515_311 == sum(ultrachat.ROWS.values())
    size = sum(file.bytes for file in result.files) / sum(expected.values())
    assert 5_500 < size < 7_500


def test_equal_arguments_make_equal_rows(source: Path, tmp_path: Path) -> None:
    """So that figures of different days are of the same data."""
    ultrachat.write(tmp_path, SCALE)

    name = "data/test_gen-00000-of-00001.parquet"
    assert pq.read_table(source / name).equals(pq.read_table(tmp_path / name))


@pytest.mark.long
def test_every_way_writes_the_rows_asked_for(source: Path, tmp_path: Path) -> None:
    """The benchmark checks that by itself, and ends where one does not."""
    runs = data.measure(source, "full", SCALE, 5, tmp_path, 1)

    ways = {run.way for run in runs}
    assert {"tutorial", "streaming", "pandas", "ours", "ours, random", "limit"} <= ways
    assert all(run.seconds > 0 for run in runs)
    assert len(ways) == data.table(runs).row_count
