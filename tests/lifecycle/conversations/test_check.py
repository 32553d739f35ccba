"""Validation: every row, told by split and number; dropped with a ceiling, and reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.conversations.check import find_problems
from lifecycle.conversations.objects import from_objects
from lifecycle.conversations.read import Batch
from lifecycle.conversations.shapes import conversations, schema_of
from lifecycle.conversations.tokens import find_counter
from lifecycle.dataset import DatasetResult, DatasetSpec
from lifecycle.errors import DatasetError

from .conftest import rows_of, turns, write_lines

Prepare = Callable[..., DatasetResult]

USER = {"role": "user", "content": "a?"}
ASSISTANT = {"role": "assistant", "content": "a."}
SYSTEM = {"role": "system", "content": "Be brief."}

BAD: list[tuple[Any, str, str]] = [
    ("{broken", "unreadable", "it is not JSON"),
    ("[1]", "unreadable", "it is a list, not an object"),
    ({"text": "a"}, "unreadable", "it has no messages"),
    ({"messages": 7}, "unreadable", "messages is a number, not a list"),
    ({"messages": ["a"]}, "unreadable", "messages[0] is text, not an object"),
    ({"messages": [{**USER, "content": ["a"]}]}, "unreadable", "messages[0].content is a list"),
    ({"messages": []}, "empty", "it has no messages"),
    ({"messages": [None, ASSISTANT]}, "role", "message 0 has no role"),
    ({"messages": [{"content": "a"}]}, "role", "message 0 has no role"),
    ({"messages": [USER, {"role": "bot", "content": "a"}]}, "role", "message 1 has the role 'bot'"),
    ({"messages": [{"role": "user"}, ASSISTANT]}, "empty", "message 0 has no content"),
    ({"messages": [USER, {**ASSISTANT, "content": " \n\t"}]}, "empty", "message 1 is empty"),
    ({"messages": [ASSISTANT, USER]}, "order", "message 0 is the assistant's where the user's"),
    ({"messages": [USER, USER]}, "order", "message 1 is the user's where the assistant's"),
    ({"messages": [USER, ASSISTANT, SYSTEM]}, "order", "message 2 is the system's where the user"),
    ({"messages": [SYSTEM]}, "no answer", "it has no message but the system's"),
    ({"messages": [SYSTEM, USER]}, "no answer", "it has no answer of the assistant"),
    (
        '{"messages": [{"role": "user", "content": "\\ud800"}]}',
        "encoding",
        "messages[0].content is",
    ),
]


@pytest.mark.parametrize(("row", "kind", "said"), BAD, ids=[said for _, _, said in BAD])
def test_a_bad_row_is_told_by_split_and_number(
    row: Any, kind: str, said: str, tmp_path: Path, prepare: Prepare
) -> None:
    """Forty minutes earlier than the trainer, and with what to look for."""
    rows = [{"messages": turns(0)}, {"messages": turns(1)}, row, {"messages": turns(2)}]
    path = write_lines(tmp_path / "source" / "train.jsonl", rows).parent

    with pytest.raises(DatasetError) as refusal:
        prepare(path)

    assert f"train:2: {said}" in refusal.value.message
    assert "dataset.path" == refusal.value.where
    result = prepare(path, invalid_rows="drop", max_dropped_percentage=30)
    assert {kind: 1} == result.file("train").dropped
    assert [turns(0), turns(1), turns(2)] == rows_of(result)


@pytest.mark.parametrize(
    "messages",
    [
        [USER, ASSISTANT],
        [SYSTEM, USER, ASSISTANT],
        [USER, ASSISTANT, USER],
        [USER, ASSISTANT, USER, ASSISTANT],
        [USER, {**ASSISTANT, "name": "x", "weight": 1}],
    ],
)
def test_a_good_row_is_kept(
    messages: list[dict[str, str]], tmp_path: Path, prepare: Prepare
) -> None:
    """A system message is optional, the last turn may be the user's; other keys are left out."""
    path = write_lines(tmp_path / "source" / "train.jsonl", [{"messages": messages}]).parent

    expected = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
    assert [expected] == rows_of(prepare(path))


def test_a_split_to_ask_about_needs_no_answers(tmp_path: Path, prepare: Prepare) -> None:
    """The generation split may end with the question; what is trained on may not."""
    write_lines(tmp_path / "source" / "train.jsonl", [{"messages": turns(0)}])
    write_lines(tmp_path / "source" / "gen.jsonl", [{"messages": [USER]}])

    assert 1 == prepare(tmp_path / "source", generation_split="gen").file("gen").rows


@pytest.mark.parametrize("place", ["role", "content"])
@pytest.mark.parametrize("form", ["jsonl", "jsonl, broken", "json", "csv", "parquet"])
def test_what_is_not_utf_8_is_told(form: str, place: str, tmp_path: Path, prepare: Prepare) -> None:
    """In every format, wherever it stands, one such row is one bad row and not a bad file."""
    bad = [{**USER, "content": "caf†"}, ASSISTANT]
    if place == "role":
        bad = [USER, {**ASSISTANT, "role": "assist†"}]
    rows = [json.dumps({"messages": one}, ensure_ascii=False) for one in (turns(0), bad, turns(2))]
    _write_latin(tmp_path / "source", form, rows)

    with pytest.raises(DatasetError, match=r"train:1: .* is not UTF-8"):
        prepare(tmp_path / "source")
    result = prepare(tmp_path / "source", invalid_rows="drop", max_dropped_percentage=60)

    broken = {"unreadable": 1} if form == "jsonl, broken" else {}
    assert {"encoding": 1, **broken} == result.file("train").dropped
    assert [turns(0), turns(2)] == rows_of(result)


def _write_latin(folder: Path, form: str, rows: list[str]) -> None:
    """Write the rows with † as a byte of Latin-1, which no UTF-8 has."""
    folder.mkdir()
    if form == "parquet":
        # It does not check what it is given as text.
        fields: dict[str, list[bytes]] = {"role": [], "content": []}
        starts = [0]
        for row in rows:
            for turn in json.loads(row)["messages"]:
                for name, values in fields.items():
                    values.append(turn[name].encode().replace("†".encode(), b"\xe9"))
            starts.append(len(fields["role"]))
        columns = [pa.array(values).view(pa.string()) for values in fields.values()]
        messages = pa.StructArray.from_arrays(columns, list(fields))
        lists = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), messages)
        pq.write_table(pa.table({"messages": lists}), folder / "train.parquet")
        return
    if form == "json":
        text = f"[{','.join(rows)}]"
    elif form == "csv":
        texts = [json.dumps(json.loads(row)["messages"], ensure_ascii=False) for row in rows]
        quoted = [text.replace('"', '""') for text in texts]
        text = "messages\n" + "".join(f'"{one}"\n' for one in quoted)
    else:
        text = "\n".join([*rows, *(["{broken"] if "broken" in form else [])])
    name = f"train.{form.partition(',')[0]}"
    (folder / name).write_bytes(text.encode().replace("†".encode(), b"\xe9"))


def test_ten_problems_are_listed_and_no_more_is_read(tmp_path: Path, prepare: Prepare) -> None:
    """The first ones, in order; a wrong mapping does not fill the screen."""
    rows = [{"messages": []}] * 5000
    path = write_lines(tmp_path / "source" / "train.jsonl", rows).parent

    with pytest.raises(DatasetError) as refusal:
        prepare(path)

    assert "train:9: " in refusal.value.message
    assert "train:10: " not in refusal.value.message
    assert "of the first 512 rows" in refusal.value.message


def test_more_bad_rows_than_the_ceiling_end_the_run(tmp_path: Path, prepare: Prepare) -> None:
    """Dropping is for the odd one: a split that is mostly bad is a mistake."""
    rows = [{"messages": turns(n)} for n in range(97)] + [{"messages": []}] * 3
    path = write_lines(tmp_path / "source" / "train.jsonl", rows).parent

    assert 97 == prepare(path, invalid_rows="drop", max_dropped_percentage=3).file("train").rows
    with pytest.raises(DatasetError, match=r"3 of 100 rows \(more than 2 %\).*train:97"):
        prepare(path, invalid_rows="drop", max_dropped_percentage=2)


def test_what_was_dropped_is_listed_in_a_file(tmp_path: Path, prepare: Prepare) -> None:
    """Every row, with its kind and what was wrong, for whoever mends the data."""
    rows = [{"messages": turns(n)} for n in range(20)] + [{"messages": []}, {"messages": [USER]}]
    path = write_lines(tmp_path / "source" / "train.jsonl", rows).parent

    result = prepare(path, invalid_rows="drop", max_dropped_percentage=10)

    listed = Path(result.dropped_rows or "").read_text(encoding="utf-8").splitlines()
    assert [
        {"split": "train", "row": 20, "kind": "empty", "problem": "it has no messages"},
        {
            "split": "train",
            "row": 21,
            "kind": "no answer",
            "problem": "it has no answer of the assistant",
        },
    ] == [json.loads(line) for line in listed]
    assert prepare(path, rows=20).dropped_rows is None


def test_a_split_that_is_not_used_never_ends_the_run(tmp_path: Path, prepare: Prepare) -> None:
    """Its bad rows are dropped; if it holds no conversations at all it is left out, and said."""
    write_lines(tmp_path / "source" / "train.jsonl", [{"messages": turns(0)}])
    write_lines(tmp_path / "source" / "spare.jsonl", [{"messages": turns(0)}, {"messages": []}])
    write_lines(tmp_path / "source" / "images.jsonl", [{"image": "cat.png"}] * 3)

    result = prepare(tmp_path / "source")

    assert {"spare": 1, "train": 1} == {file.split: file.rows for file in result.files}
    assert {"images": "It has no column messages; it has image."} == result.left_out


def test_duplicates_and_leaks_are_counted(tmp_path: Path, prepare: Prepare) -> None:
    """A test row that was trained on proves nothing."""
    train = [{"messages": turns(n % 8)} for n in range(10)]
    test = [{"messages": turns(n)} for n in (7, 8, 9)]
    write_lines(tmp_path / "source" / "train.jsonl", train)
    write_lines(tmp_path / "source" / "test.jsonl", test)

    result = prepare(tmp_path / "source", test_split="test")

    assert 2 == result.file("train").duplicates
    assert {"test": 1} == result.leaked


def test_where_a_turn_ends_is_part_of_what_is_compared(tmp_path: Path, prepare: Prepare) -> None:
    """The same letters, cut or said otherwise, are another conversation."""
    said = [("ab", "c"), ("a", "bc"), ("abc", "d")]
    rows = [
        {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
        for a, b in said
    ]
    path = write_lines(tmp_path / "source" / "train.jsonl", rows).parent

    assert 0 == prepare(path).file("train").duplicates


TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", None]),
        "content": st.sampled_from(["a", "", " ", None, "é\n", "\u3000"]),
    }
)


@given(rows=st.lists(st.lists(TURN, max_size=5), min_size=1, max_size=8), answer=st.booleans())
def test_the_fast_check_finds_what_a_plain_one_finds(
    rows: list[list[dict[str, str | None]]], answer: bool
) -> None:
    """All rows at once in numpy, and one after the other in Python, agree on every row."""
    spec = DatasetSpec()
    table, broken = from_objects([{"messages": row} for row in rows], schema_of(spec))
    batch = conversations(Batch(np.arange(len(rows)), table, broken), spec)
    lengths = find_counter(spec).count(batch)

    found = find_problems(batch, lengths, needs_answer=answer, max_tokens=None)

    assert [n for n, row in enumerate(rows) if not _is_good(row, answer)] == list(found)


def _is_good(row: list[dict[str, str | None]], answer: bool) -> bool:
    roles = [turn["role"] for turn in row]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    due = ["user", "assistant"] * len(row)
    return (
        roles == due[: len(roles)]
        and len(roles) >= (2 if answer else 1)
        and all(turn["content"] and not turn["content"].isspace() for turn in row)
    )
