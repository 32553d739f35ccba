"""Reading chat data: each row a JSON object with ``messages``, a list of roles and contents.

What cannot be used is told with the file and its row, which in JSON Lines is the number of the
line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .request import Request, StepFailed

Messages = list[dict[str, str]]

ROLES = ("system", "user", "assistant")
SUFFIXES = (".jsonl", ".json")


def split_path(request: Request, split: str) -> Path | None:
    """Return the file of *split* (``train``, ``validation`` or ``test``), or None if not given.

    Raises:
        StepFailed: It is given as an MLTable, or in a format that is not read here.
    """
    if request.parameters.get(f"{split}_mltable_path"):
        raise StepFailed(
            f"Input '{split}_mltable_path' is an MLTable, which the emulator does not read: give "
            f"the rows as JSON Lines in '{split}_file_path'."
        )
    path = request.files.get(f"{split}_file_path")
    if path is not None and path.suffix not in SUFFIXES:
        raise StepFailed(
            f"Input '{split}_file_path' is {path.name}, and the emulator reads only JSON Lines and "
            f"JSON: save the rows as .jsonl."
        )
    return path


def conversations(path: Path) -> Iterator[tuple[int, Messages]]:
    """Yield each row of the file *path* with its number, from 1, blank lines left out.

    Raises:
        StepFailed: A row cannot be used for training.
    """
    for number, row in _rows(path):
        if problem := row_problem(row):
            raise bad_row(path, number, problem)
        yield number, row["messages"]


def row_problem(row: Any) -> str | None:
    """Return what is wrong with one row of chat data, or None."""
    if not isinstance(row, dict):
        return "it is no JSON object"
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        return 'it has no "messages", a list of {"role": …, "content": …}'
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            return f"message {place} is no JSON object"
        if message.get("role") not in ROLES:
            return f"message {place} has the role {message.get('role')!r}, not one of {ROLES}"
        content = message.get("content")
        if not isinstance(content, str):
            return f"message {place} has no text as its content"
        if message["role"] == "assistant" and not content.strip():
            return f"message {place}, an answer, is empty"
    if not any(message["role"] == "assistant" for message in messages):
        return "no message is by the assistant, so there is nothing to learn"
    return None


def bad_row(path: Path, number: int, problem: str) -> StepFailed:
    """Return the error for row *number* of the file *path*."""
    return StepFailed(f"Row {number} of {path.name} cannot be used: {problem}.")


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        if path.suffix == ".json" and file.read(64).lstrip()[:1] == b"[":
            file.seek(0)
            yield from enumerate(_json(path, 1, file.read()), start=1)
            return
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _json(path, number, line)


def _json(path: Path, number: int, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise bad_row(path, number, f"it is no JSON ({error})") from error
