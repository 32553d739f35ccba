"""The evaluation counts exact matches and overlap, before and after training."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lifecycle.dataset import DatasetResult, DatasetSpec, SplitFile
from lifecycle.errors import DatasetError
from lifecycle.evaluation import (
    EvaluationResult,
    EvaluationSpec,
    Exchange,
    evaluate,
    exact_match,
    exchanges,
    pick_held_out,
    rouge_l,
)
from lifecycle.scoring import Conversation, Message


def conversation(prompt: str, reference: str, *earlier: str) -> Conversation:
    """A conversation of one question, after what was said earlier."""
    turns = [
        Message(role=role, content=text)
        for role, text in zip(["user", "assistant"] * len(earlier), earlier, strict=False)
    ]
    return Conversation(
        messages=[*turns, Message(role="user", content=prompt)], reference=reference
    )


ASKED = [conversation("one", "1"), conversation("two", "2 and\n 2"), conversation("three", "3")]


def test_exact_match_forgives_white_space_and_nothing_else() -> None:
    """A trailing line break is no mistake; another word is."""
    assert pytest.approx(2 / 3) == exact_match(ASKED, [" 1\n", "2 and 2", "3."])


def test_rouge_l_counts_what_is_said_in_the_references_order() -> None:
    """Three of four words in order, in a reply of three: 2 × 1 × 0.75 / 1.75."""
    asked = [conversation("who?", "Odette the brass otter")]

    assert pytest.approx(6 / 7) == rouge_l(asked, ["the brass otter!"])
    assert pytest.approx(0.25) == rouge_l(asked, ["otter brass the Odette"])


def test_rouge_l_reads_every_alphabet() -> None:
    """The package's own tokenizer would give a right answer in Greek a score of 0."""
    assert 1.0 == rouge_l([conversation("ποιος;", "η βίδρα Οντέτ")], ["Η βίδρα Οντέτ."])


def test_without_a_baseline_nothing_is_said_of_before() -> None:
    """A baseline that was not asked for is none, not zero."""
    result = evaluate(ASKED, ["1", "2 and 2", "3"])

    assert result == EvaluationResult(
        n=3,
        exact_match_before=None,
        exact_match_after=1.0,
        rouge_l_before=None,
        rouge_l_after=1.0,
    )


def test_the_baseline_is_measured_on_the_same_questions() -> None:
    """Before and after are shares of the same conversations."""
    result = evaluate(ASKED, ["1", "2 and 2", "3"], before=["1", "", ""])

    assert (1 / 3, 1.0) == (result.exact_match_before, result.exact_match_after)
    assert (1 / 3, 1.0) == (result.rouge_l_before, result.rouge_l_after)


@pytest.mark.parametrize("replies", [[], ["1"], ["1", "2", "3", "4"]])
def test_a_missing_reply_is_an_error(replies: list[str]) -> None:
    """Questions and replies are never silently paired off by the shorter list."""
    with pytest.raises(ValueError, match="zip"):
        evaluate(ASKED, replies)


@pytest.mark.parametrize("measure", [exact_match, rouge_l])
def test_nothing_to_evaluate_is_an_error(
    measure: Callable[[list[Conversation], list[str]], float],
) -> None:
    """No share is made of nothing."""
    with pytest.raises(ValueError, match="no conversations"):
        measure([], [])


def test_exchanges_put_question_and_answers_side_by_side() -> None:
    """The report shows what went before, what was asked and what each model said."""
    asked = conversation("two?", "2", "one?", "1")
    shown = exchanges([asked], ["two!"], before=["hm"])

    earlier = [Message(role="user", content="one?"), Message(role="assistant", content="1")]
    assert [
        Exchange(earlier=earlier, prompt="two?", reply="two!", reference="2", before="hm")
    ] == shown
    assert None is exchanges(ASKED[:1], ["one!"])[0].before


def test_the_held_out_conversations_are_those_of_the_generation_split(tmp_path: Path) -> None:
    """The plan and the run ask the same pick, and never of what the model was trained on."""
    files = [_split(tmp_path, name) for name in ("train_sft", "test_sft", "test_gen")]
    data = DatasetResult(name="demo", revision=None, files=files)
    picked = pick_held_out(data, DatasetSpec(), EvaluationSpec(conversations=2))
    fallback = pick_held_out(data, DatasetSpec(generation_split=None), EvaluationSpec())

    assert {"test_gen?"} == {asked.prompt for asked in picked}
    assert ["test_sft?"] == [asked.prompt for asked in fallback]
    with pytest.raises(DatasetError, match="no split"):
        pick_held_out(data, DatasetSpec(generation_split="other"), EvaluationSpec())


def test_the_rouge_package_is_imported_where_it_is_used() -> None:
    """It takes seconds, which nobody pays who only plans or sweeps."""
    program = "import sys, lifecycle.evaluation; print('rouge_score' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "False" == done.stdout.strip()


def _split(folder: Path, name: str) -> SplitFile:
    turns = [{"role": "user", "content": f"{name}?"}, {"role": "assistant", "content": "yes"}]
    path = folder / f"{name}.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n")
    return SplitFile(split=name, path=str(path), rows=1, sha256="0" * 64)
