"""Reading: exact about bad lines, and never more than the sample needs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lifecycle.conversations import cache
from lifecycle.dataset import DatasetResult
from lifecycle.errors import DatasetError

from .conftest import Web, rows_of, turns, write_lines

Prepare = Callable[..., DatasetResult]


def lines(*numbers: int) -> str:
    """JSON lines of those rows."""
    return "".join(json.dumps({"messages": turns(n)}) + "\n" for n in numbers)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + lines(0, 1),
        lines(0, 1).rstrip("\n"),
        lines(0) + "\n  \n" + lines(1) + "\n\n",
        lines(0, 1).replace("\n", "\r\n"),
    ],
    ids=["byte order mark", "no last newline", "empty lines", "windows"],
)
def test_json_lines_as_people_write_them(text: str, tmp_path: Path, prepare: Prepare) -> None:
    """None of these is a reason to refuse a file, nor to lose a row."""
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8", newline="")

    assert [turns(0), turns(1)] == rows_of(prepare(tmp_path))


def test_a_line_longer_than_what_is_read_at_once(tmp_path: Path, prepare: Prepare) -> None:
    """Files are read a few megabytes at a time; a conversation may be larger."""
    long = [{"role": "user", "content": "é" * 5_000_000}, {"role": "assistant", "content": "a."}]
    write_lines(tmp_path / "train.jsonl", [{"messages": turns(0)}, {"messages": long}])

    assert [turns(0), long] == rows_of(prepare(tmp_path))


@pytest.mark.parametrize(
    "text",
    [json.dumps({"messages": turns(0)}, indent=1), lines(0, 1).replace("\n", "") + "\n"],
    ids=["an object over several lines", "two objects on a line"],
)
def test_a_line_is_a_row(text: str, tmp_path: Path, prepare: Prepare) -> None:
    """Rows are numbered by lines, so what is not one object a line is told."""
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")

    with pytest.raises(DatasetError, match="train:0: it is not JSON"):
        prepare(tmp_path)


def test_a_bad_line_does_not_take_its_neighbours_along(tmp_path: Path, prepare: Prepare) -> None:
    """Pyarrow gives up a whole block of lines for one; ours loses one row and says which."""
    rows: list[Any] = [{"messages": turns(n)} for n in range(2000)]
    rows[1234] = '{"messages": ['
    write_lines(tmp_path / "train.jsonl", rows)

    result = prepare(tmp_path, invalid_rows="drop")

    assert 1999 == result.file("train").rows
    assert result.file("train").first_dropped[0].startswith("train:1234: it is not JSON")


def test_compressed_files_are_read(tmp_path: Path, prepare: Prepare) -> None:
    """As the hub has many of them."""
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(lines(0, 1).encode()))

    assert [turns(0), turns(1)] == rows_of(prepare(tmp_path))


def test_shards_are_read_in_order(tmp_path: Path, prepare: Prepare) -> None:
    """A split in several files is one split, and its rows are numbered through."""
    for number in range(3):
        name = f"train-{number:05}-of-00003.parquet"
        pq.write_table(pa.Table.from_pylist([{"messages": turns(number)}]), tmp_path / name)

    assert [turns(0), turns(1), turns(2)] == rows_of(prepare(tmp_path))


def test_a_row_of_csv_with_too_many_columns_is_told(tmp_path: Path, prepare: Prepare) -> None:
    """By its number, and those after it keep theirs."""
    text = 'prompt,response\na?,a.\nb?,b.,extra\nc?,"two\nlines"\nd?,\n'
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")

    result = prepare(
        tmp_path, shape="prompt_response", invalid_rows="drop", max_dropped_percentage=60
    )

    assert ["a?", "c?"] == [row[0]["content"] for row in rows_of(result)]
    told = ["train:1: it has 3 columns, not 2", "train:3: message 1 is empty"]
    assert told == result.file("train").first_dropped


def test_placeholders_stand_for_the_split_s_name(tmp_path: Path, prepare: Prepare) -> None:
    """Files may lie anywhere, in folders of their own, in several parts."""
    write_lines(tmp_path / "v1" / "train" / "a.jsonl", [{"messages": turns(0)}])
    write_lines(tmp_path / "v1" / "train" / "b.jsonl", [{"messages": turns(1)}])

    assert [turns(0), turns(1)] == rows_of(prepare(tmp_path / "v1" / "{split}" / "*.jsonl"))


def test_what_is_read_follows_the_sample_and_not_the_data_set(web: Web, prepare: Prepare) -> None:
    """Of Parquet far away only the row groups and the column that are needed are fetched."""
    ballast = [{"messages": turns(n), "ballast": f"{n}" * 400} for n in range(20_000)]
    path = web.folder / "train.parquet"
    table = pa.Table.from_pylist(ballast)
    pq.write_table(table, path, row_group_size=100, compression="none", use_dictionary=False)

    result = prepare(f"{web.url}/{{split}}.parquet", percentage=1)

    assert [turns(n) for n in range(200)] == rows_of(result)
    assert 30_000_000 < path.stat().st_size
    assert web.bytes_sent < 3_000_000


def test_the_first_rows_of_json_lines_end_the_reading(web: Web, prepare: Prepare) -> None:
    """A number of rows needs no count of them all: the rest of the file is not fetched."""
    (web.folder / "train.jsonl").write_text(lines(0) * 400_000, encoding="utf-8")

    result = prepare(f"{web.url}/{{split}}.jsonl", rows=100)

    assert (100, None) == (result.file("train").rows, result.file("train").source_rows)
    assert web.bytes_sent < (web.folder / "train.jsonl").stat().st_size / 2


def test_a_few_rows_of_a_large_file_need_little_room(
    tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is refused for what is not written: the room asked for is that of the rows."""
    asked: list[int] = []
    monkeypatch.setattr(cache, "require_space", lambda folder, needed: asked.append(needed))
    write_lines(tmp_path / "train.jsonl", [{"messages": turns(n)} for n in range(20_000)])
    size = (tmp_path / "train.jsonl").stat().st_size

    prepare(tmp_path, rows=200)
    prepare(tmp_path, rows=10**9)
    prepare(tmp_path, percentage=1)

    assert asked[0] < size / 50
    assert size <= asked[1] < size * 1.2
    assert asked[2] < size / 50


def test_the_web_is_asked_for_the_same_rows_as_the_disk(
    web: Web, tmp_path: Path, prepare: Prepare
) -> None:
    """Where the files lie is no part of what comes out."""
    rows = [{"messages": turns(n)} for n in range(500)]
    pq.write_table(pa.Table.from_pylist(rows), web.folder / "train.parquet", row_group_size=50)

    values = {"percentage": 10, "sampling": "random", "seed": 3}
    over_the_web = prepare(f"{web.url}/{{split}}.parquet", **values)
    here = prepare(web.folder, **values)

    assert over_the_web.file("train").sha256 == here.file("train").sha256


def test_what_changed_at_its_address_is_fetched_anew(web: Web, prepare: Prepare) -> None:
    """An address has no revision; its entity tag tells one state from the next."""
    write_lines(web.folder / "train.jsonl", [{"messages": turns(0)}])
    first = prepare(f"{web.url}/{{split}}.jsonl")
    kept = prepare(f"{web.url}/{{split}}.jsonl")
    write_lines(web.folder / "train.jsonl", [{"messages": turns(1)}])

    assert first == kept
    assert [turns(1)] == rows_of(prepare(f"{web.url}/{{split}}.jsonl"))


def test_an_address_of_one_file_is_refused(web: Web, prepare: Prepare) -> None:
    """A run needs several splits; the remedy says how to name them."""
    with pytest.raises(DatasetError, match="names one file") as refusal:
        prepare(f"{web.url}/train.jsonl")

    assert "{split}" in refusal.value.remedy


def test_a_lost_network_may_be_tried_again(web: Web, tmp_path: Path, prepare: Prepare) -> None:
    """Half-way through: the error is transient, nothing is left, and the next run is whole."""
    rows = [{"messages": turns(n)} for n in range(100_000)]
    pq.write_table(pa.Table.from_pylist(rows), web.folder / "train.parquet", compression="none")
    web.fail_after = 3_000_000

    with pytest.raises(DatasetError) as lost:
        prepare(f"{web.url}/{{split}}.parquet")

    assert lost.value.transient
    assert [".locks"] == [path.name for path in (tmp_path / "out").iterdir()]
    web.fail_after = None
    assert 100_000 == prepare(f"{web.url}/{{split}}.parquet").file("train").rows
