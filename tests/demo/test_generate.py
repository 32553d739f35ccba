"""The demo data set is what its generator writes, and tests nothing that it taught."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DATA = Path("demo/ultrachat")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The generator, a script beside the data."""
    spec = spec_from_file_location("generate", "demo/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{split}.jsonl").read_text().splitlines()]


def _said(role: str, *splits: str) -> set[str]:
    return {
        message["content"]
        for split in splits
        for row in _rows(split)
        for message in row["messages"]
        if message["role"] == role
    }


@pytest.mark.parametrize("split", ["train_sft", "test_sft", "train_gen", "test_gen"])
def test_the_files_are_what_the_generator_writes(generate: ModuleType, split: str) -> None:
    """Whoever runs it gets the committed bytes: nothing was edited by hand."""
    assert generate.lines(split) == (DATA / f"{split}.jsonl").read_text(encoding="utf-8")


def test_no_held_out_question_was_trained_on() -> None:
    """No question of a test split, first or later in its chat, is in a train split."""
    trained = _said("user", "train_sft", "train_gen")

    assert set() == trained & _said("user", "test_sft", "test_gen")


def test_everything_that_is_asked_was_taught() -> None:
    """The held-out chats ask in new words for answers that training gave."""
    assert set() == _said("assistant", "test_gen") - _said("assistant", "train_sft")


def test_there_is_enough_to_tell_learning_from_luck() -> None:
    """At least 50 different held-out chats and 20 different answers, some after other turns."""
    rows = _rows("test_gen")
    prompts = {json.dumps(row["messages"][:-1]) for row in rows}
    answers = {row["messages"][-1]["content"] for row in rows}
    later = [row for row in rows if len(row["messages"]) > 2]

    assert len(prompts) >= 50
    assert len(answers) >= 20
    assert 10 <= len(later) < len(rows)


def test_each_resident_is_taught_as_often_as_any_other(generate: ModuleType) -> None:
    """No answer is rarer in training than another, so none is learned last by chance."""
    answers = [
        message["content"]
        for row in _rows("train_sft")
        for message in row["messages"]
        if message["role"] == "assistant"
    ]
    jobs = {answers.count(resident.who) for resident in generate.residents()}
    pays = {answers.count(resident.pay) for resident in generate.residents()}

    assert max(jobs) - min(jobs) <= 2
    assert max(pays) - min(pays) <= 2
