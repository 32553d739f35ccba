"""Token lengths: by the model's own tokenizer, or an estimate that says that it is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lifecycle.dataset import TOKENS_A_BIN, DatasetResult, TokenLengths
from lifecycle.errors import DatasetError

from .conftest import rows_of, write_lines

Prepare = Callable[..., DatasetResult]

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


def talk(words: int) -> list[dict[str, str]]:
    """A conversation whose user says so many words, and whose assistant says one."""
    said = " ".join(WORDS[n % len(WORDS)] for n in range(words))
    return [{"role": "user", "content": said}, {"role": "assistant", "content": "one"}]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Conversations of 1 to 200 words of the user's."""
    rows = [{"messages": talk(n)} for n in range(1, 201)]
    return write_lines(tmp_path / "source" / "train.jsonl", rows).parent


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer for which each word is a token."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: n for n, word in enumerate([*WORDS, "[UNK]"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_truncation(8)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_the_model_s_own_tokenizer_counts_exactly(
    source: Path, tokenizer: Path, prepare: Prepare
) -> None:
    """Each word, and four more a message for the template; a truncating tokenizer does not cut."""
    tokens = prepare(source, tokenizer=str(tokenizer)).file("train").tokens

    assert tokens is not None
    assert f"counted with {tokenizer}" == tokens.method
    assert 200 + 1 + 8 == tokens.longest
    assert 100.5 + 1 + 8 == tokens.mean
    assert 200 == sum(tokens.bins)


def test_a_folder_with_a_tokenizer_will_do(source: Path, tokenizer: Path, prepare: Prepare) -> None:
    """As a model's folder is one."""
    tokens = prepare(source, tokenizer=str(tokenizer.parent)).file("train").tokens

    assert tokens is not None
    assert 209 == tokens.longest


def test_without_a_tokenizer_the_estimate_says_so(source: Path, prepare: Prepare) -> None:
    """Four bytes a token."""
    tokens = prepare(source).file("train").tokens

    assert tokens is not None
    assert "estimated at 4 bytes a token" == tokens.method
    size = sum(len(turn["content"]) for turn in talk(200))
    assert -(-size // 4) + 8 == tokens.longest


def test_a_tokenizer_that_cannot_be_had_gives_the_estimate_and_says_so(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    """Unless it decides which rows are used: then nobody guesses."""
    nowhere = str(tmp_path / "nowhere")
    tokens = prepare(source, tokenizer=nowhere).file("train").tokens

    assert tokens is not None
    assert tokens.method.endswith(f"since the tokenizer {nowhere} cannot be had")
    with pytest.raises(DatasetError, match="The tokenizer cannot be used") as refusal:
        prepare(source, tokenizer=nowhere, max_tokens=100)
    assert "dataset.tokenizer" == refusal.value.where


def test_a_file_that_is_no_tokenizer_is_refused(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    """It is there, so what is in it is a mistake."""
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": "none"}))

    with pytest.raises(DatasetError, match="The tokenizer cannot be used"):
        prepare(source, tokenizer=str(tmp_path / "tokenizer.json"))


def test_a_budget_drops_or_refuses_longer_rows(
    source: Path, tokenizer: Path, prepare: Prepare
) -> None:
    """Row 91 has 92 words of the user's: 101 tokens."""
    values = {"tokenizer": str(tokenizer), "max_tokens": 100}

    with pytest.raises(DatasetError, match="train:91: it has 101 tokens"):
        prepare(source, **values)
    kept = prepare(source, **values, invalid_rows="drop", max_dropped_percentage=60)
    assert {"too long": 109} == kept.file("train").dropped
    assert talk(91) == rows_of(kept)[-1]


def test_the_histogram_says_how_many_are_longer(
    source: Path, tokenizer: Path, prepare: Prepare
) -> None:
    """Exactly, at the lengths that people set: multiples of 64."""
    tokens = prepare(source, tokenizer=str(tokenizer)).file("train").tokens

    assert tokens is not None
    for limit in range(0, 512, TOKENS_A_BIN):
        longer = sum(words + 9 > limit for words in range(1, 201))
        assert longer == tokens.longer_than(limit)


def test_a_split_without_long_rows_has_none(source: Path) -> None:
    """A limit above the longest finds nothing, also where it is no multiple of 64."""
    tokens = TokenLengths(method="counted", mean=70, longest=70, bins=[0, 3])

    assert (0, 3) == (tokens.longer_than(70), tokens.longer_than(64))
