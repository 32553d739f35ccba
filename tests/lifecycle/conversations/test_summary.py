"""What a person sees: counts, a picture, and conversations that do no harm to the screen."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lifecycle.conversations.summary import as_markdown, as_text, histogram, notes
from lifecycle.dataset import DatasetResult
from lifecycle.wording import excerpt

from .conftest import turns, write_lines

Prepare = Callable[..., DatasetResult]


@pytest.fixture
def result(tmp_path: Path, prepare: Prepare) -> DatasetResult:
    """Two splits with a bad row, a duplicate, a leak, and a split that is left out."""
    train = [{"messages": turns(n % 99)} for n in range(100)] + [{"messages": []}]
    write_lines(tmp_path / "source" / "train.jsonl", train)
    write_lines(tmp_path / "source" / "test.jsonl", [{"messages": turns(n)} for n in (5, 500)])
    write_lines(tmp_path / "source" / "spare.jsonl", [{"image": "cat.png"}])
    return prepare(tmp_path / "source", test_split="test", invalid_rows="drop")


def test_the_notes_say_what_to_know_before_training(result: DatasetResult) -> None:
    """What was dropped and why, duplicates, leaks, and what was left out."""
    assert [
        "train: 1 rows were dropped (empty 1). The first: train:100: it has no messages.",
        "train: 1 rows are exact duplicates.",
        "test: 1 rows are in the training split as well.",
    ] == notes(result)[:3]
    left_out = "spare is left out, and the run does not use it: It has no column messages"
    assert notes(result)[3].startswith(left_out)


def test_the_text_shows_counts_lengths_and_conversations(result: DatasetResult) -> None:
    """In a log or a terminal, without a picture."""
    text = as_text(result, "train")

    assert re.search(r"^train +100 +101 ", text, re.MULTILINE)
    assert "Tokens of a conversation in train, estimated at 4 bytes a token:" in text
    assert re.search(r"1–64 +█+ +100$", text, re.MULTILINE)
    assert "     user  Où est le n° 1?" in text


def test_the_page_has_the_picture_and_fenced_conversations(result: DatasetResult) -> None:
    """Prefect shows data: pictures and strips inline SVG."""
    page = as_markdown(result, "train")
    picture = re.search(r"!\[histogram\]\(data:image/svg\+xml;base64,([^)]+)\)", page)

    assert picture is not None
    drawn = ElementTree.fromstring(base64.b64decode(picture[1]))
    assert drawn.tag.endswith("svg")
    assert "| train | 100 | 101 |" in page
    assert "```text\n     user  Où est le n° 0?\nassistant  Là: 0 ☃\n```" in page


def test_every_bar_of_the_picture_says_what_it_counts(result: DatasetResult) -> None:
    """And together they count every row."""
    tokens = result.file("train").tokens
    assert tokens is not None

    titles = re.findall(r"tokens: (\d+) rows", histogram(tokens))

    assert 100 == sum(map(int, titles))


def test_conversations_cannot_move_the_cursor_or_leave_their_fence() -> None:
    """Data is anybody's: escape codes, right-to-left marks and fences stay text."""
    assert "[2J gone" == excerpt("\x1b[2J\u202e gone")
    assert excerpt("a" * 1000).endswith("a…")


def test_a_fence_in_a_conversation_does_not_end_ours(tmp_path: Path, prepare: Prepare) -> None:
    """The page's own fence is longer than any in the text."""
    said = [{"role": "user", "content": "```` code ````"}, {"role": "assistant", "content": "a."}]
    path = write_lines(tmp_path / "source" / "train.jsonl", [{"messages": said}]).parent

    assert "`````text\n     user  ```` code ````\n" in as_markdown(prepare(path), "train")


def test_parquet_is_shown_like_json_lines(tmp_path: Path, prepare: Prepare) -> None:
    """Whatever the files are written as."""
    rows = [{"messages": turns(n)} for n in range(5)]
    path = write_lines(tmp_path / "source" / "train.jsonl", rows).parent

    shown = [
        as_text(prepare(path, file_format=form), "train").partition("train, conv")
        for form in ("jsonl", "parquet")
    ]

    assert shown[0][2] == shown[1][2]
