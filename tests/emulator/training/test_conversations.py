"""Reading chat data: what cannot be used is told with its row, and before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator.training.conversations import conversations, row_problem, split_path
from azureml_emulator.training.request import StepFailed

from tests.emulator.training.asking import chat, request, write_rows


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ([], "it is no JSON object"),
        ({"text": "hello"}, 'it has no "messages"'),
        ({"messages": []}, 'it has no "messages"'),
        ({"messages": ["hello"]}, "message 1 is no JSON object"),
        ({"messages": [{"role": "bot", "content": "hello"}]}, "message 1 has the role 'bot'"),
        ({"messages": [{"role": "user", "content": None}]}, "message 1 has no text"),
        (chat("hello", " "), "message 2, an answer, is empty"),
        (chat("hello"), "no message is by the assistant"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_told_with_its_number(
    tmp_path: Path, row: Any, problem: str
) -> None:
    """Whoever made the file finds the line."""
    path = write_rows(tmp_path / "train.jsonl", [chat("a", "b"), row])

    with pytest.raises(StepFailed) as failed:
        list(conversations(path))

    assert str(failed.value).startswith(f"Row 2 of train.jsonl cannot be used: {problem}")
    assert (row_problem(row) or "").startswith(problem)


@pytest.mark.parametrize("line", [b"{", b'{"messages": "\xff"}', b'"half'])
def test_a_line_that_is_no_json_is_told_with_its_number(tmp_path: Path, line: bytes) -> None:
    """Blank lines are not rows, and are counted."""
    path = tmp_path / "train.jsonl"
    path.write_bytes(json.dumps(chat("a", "b")).encode() + b"\n\n" + line + b"\n")

    with pytest.raises(StepFailed, match=r"Row 3 of train.jsonl cannot be used: it is no JSON"):
        list(conversations(path))


def test_json_lines_and_a_json_array_give_the_same_conversations(tmp_path: Path) -> None:
    """Both are what the component calls JSON; a byte order mark is no fault."""
    rows = [chat("a", "b"), chat("c", "d", "e", "f")]
    write_rows(tmp_path / "a.jsonl", rows)
    write_rows(tmp_path / "b.json", rows)
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    (tmp_path / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.jsonl").read_bytes())

    read = {path.name: list(conversations(path)) for path in sorted(tmp_path.iterdir())}

    expected = [(number, row["messages"]) for number, row in enumerate(rows, start=1)]
    assert dict.fromkeys(("a.jsonl", "b.json", "c.json", "d.jsonl"), expected) == read


def test_a_format_that_is_not_read_is_refused_with_the_one_that_is(tmp_path: Path) -> None:
    """A CSV file, and an MLTable."""
    csv = request(tmp_path, "preprocess", {"train_file_path": Path("rows.csv")})
    table = request(tmp_path, "preprocess", {"train_mltable_path": Path("table")})

    with pytest.raises(StepFailed, match=r"rows.csv, .* save the rows as .jsonl"):
        split_path(csv, "train")
    with pytest.raises(StepFailed, match=r"JSON Lines in 'train_file_path'"):
        split_path(table, "train")
    assert split_path(csv, "validation") is None
