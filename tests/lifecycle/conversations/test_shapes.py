"""Shapes: what other data sets call their columns and roles, declared and not guessed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from lifecycle.dataset import DatasetResult, DatasetSpec
from lifecycle.errors import DatasetError

from .conftest import rows_of, turns, write_lines

Prepare = Callable[..., DatasetResult]

SYSTEM = {"role": "system", "content": "Be brief."}
ROWS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "messages": ([{"messages": turns(n), "extra": n} for n in range(3)], {}),
    "sharegpt": (
        [
            {
                "id": n,
                "conversations": [
                    {
                        "from": {"user": "human", "assistant": "gpt"}[t["role"]],
                        "value": t["content"],
                    }
                    for t in turns(n)
                ],
            }
            for n in range(3)
        ],
        {"shape": "sharegpt"},
    ),
    "alpaca": (
        [
            {"instruction": turns(n)[0]["content"], "input": "", "output": turns(n)[1]["content"]}
            for n in range(3)
        ],
        {"shape": "alpaca"},
    ),
    "prompt_response": (
        [{"prompt": turns(n)[0]["content"], "response": turns(n)[1]["content"]} for n in range(3)],
        {"shape": "prompt_response"},
    ),
    "renamed": (
        [
            {"chat": [{"speaker": f"{t['role']}!", "text": t["content"]} for t in turns(n)]}
            for n in range(3)
        ],
        {
            "columns": {"messages": "chat", "role": "speaker", "content": "text"},
            "roles": {"user!": "user", "assistant!": "assistant"},
        },
    ),
}


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> None:
    write_lines(folder / "train.jsonl", rows)


def write_json(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "train.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")


def write_large_arrow(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The IPC file format, with the 64-bit types that polars writes."""
    table = pa.Table.from_pylist(rows)

    def large(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_string(kind):
            return pa.large_string()
        if pa.types.is_list(kind):
            return pa.large_list(large(kind.value_type))
        if pa.types.is_struct(kind):
            return pa.struct([(field.name, large(field.type)) for field in kind])
        return kind

    table = table.cast(pa.schema([(field.name, large(field.type)) for field in table.schema]))
    with (
        pa.OSFile(str(folder / "train.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as out,
    ):
        out.write_table(table)


def write_csv(folder: Path, rows: list[dict[str, Any]]) -> None:
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
            )


@pytest.mark.parametrize("shape", list(ROWS))
@pytest.mark.parametrize(
    "write", [write_jsonl, write_json, write_parquet, write_large_arrow, write_csv]
)
def test_every_shape_in_every_format_gives_the_same_conversations(
    write: Callable[[Path, list[dict[str, Any]]], None],
    shape: str,
    tmp_path: Path,
    prepare: Prepare,
) -> None:
    """What the trainer reads does not depend on how the data set was kept."""
    rows, values = ROWS[shape]
    folder = tmp_path / "source"
    folder.mkdir()
    write(folder, rows)

    assert [turns(n) for n in range(3)] == rows_of(prepare(folder, **values))


def test_a_column_of_the_system_goes_before_each_conversation_that_has_one(
    tmp_path: Path, prepare: Prepare
) -> None:
    """ShareGPT's and others' column ``system``; rows without one go on as they are."""
    said = [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "a."}]
    rows = [
        {"conversations": said, "system": system} for system in ("Be brief.", "", None, "Be brief.")
    ]
    write_lines(tmp_path / "source" / "train.jsonl", rows)

    result = rows_of(prepare(tmp_path / "source", shape="sharegpt"))

    turns_of = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "a."}]
    with_system = [SYSTEM, *turns_of]
    assert [with_system, turns_of, turns_of, with_system] == result


def test_alpaca_s_input_is_added_to_the_instruction(tmp_path: Path, prepare: Prepare) -> None:
    """With an empty line between them, and only where there is an input."""
    rows = [
        {"instruction": "Add.", "input": "1 + 1", "output": "2"},
        {"instruction": "Greet.", "input": " ", "output": "Hi."},
    ]
    write_lines(tmp_path / "source" / "train.jsonl", rows)

    result = rows_of(prepare(tmp_path / "source", shape="alpaca"))

    assert ["Add.\n\n1 + 1", "Greet."] == [turn[0]["content"] for turn in result]


def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path, prepare: Prepare) -> None:
    """The likeliest mistake is the wrong shape: the message shows what to declare."""
    (tmp_path / "source").mkdir()
    write_parquet(tmp_path / "source", [{"question": "a?", "answer": "a."}])

    with pytest.raises(DatasetError, match=r"no column prompt, response; it has question, answer"):
        prepare(tmp_path / "source", shape="prompt_response")


def test_a_column_of_another_type_is_told(tmp_path: Path, prepare: Prepare) -> None:
    """Numbers are no conversation."""
    (tmp_path / "source").mkdir()
    write_parquet(tmp_path / "source", [{"prompt": 1, "response": "a."}])

    with pytest.raises(DatasetError, match=r"column prompt is int64, not text"):
        prepare(tmp_path / "source", shape="prompt_response")


def test_a_column_that_the_shape_does_not_have_is_refused() -> None:
    """A misspelt mapping is a wrong configuration, and says what there is."""
    with pytest.raises(ValidationError, match="has no column mesages; it has messages, role"):
        DatasetSpec(columns={"mesages": "chat"})
