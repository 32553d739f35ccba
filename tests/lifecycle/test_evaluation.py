"""The evaluation counts exact matches, before and after training."""

from __future__ import annotations

import pytest

from lifecycle.evaluation import (
    EvaluationResult,
    Exchange,
    collect_replies,
    evaluate,
    exact_match,
    exchanges,
)
from lifecycle.scoring import Conversation, Message


def conversation(prompt: str, reference: str) -> Conversation:
    """A conversation of one question."""
    return Conversation(messages=[Message(role="user", content=prompt)], reference=reference)


ASKED = [conversation("one", "1"), conversation("two", "2 and\n 2"), conversation("three", "3")]


def test_replies_come_in_the_order_of_the_questions() -> None:
    """Each reply belongs to its question."""
    assert ["ONE", "TWO", "THREE"] == collect_replies(ASKED, lambda asked: asked.prompt.upper())


def test_a_question_that_fails_ends_the_evaluation() -> None:
    """A share is never computed from fewer answers than it says."""

    def ask(asked: Conversation) -> str:
        raise LookupError(asked.prompt)

    with pytest.raises(LookupError):
        collect_replies(ASKED, ask)


def test_exact_match_forgives_white_space_and_nothing_else() -> None:
    """A trailing line break is no mistake; another word is."""
    assert pytest.approx(2 / 3) == exact_match(ASKED, [" 1\n", "2 and 2", "3."])


def test_without_a_baseline_nothing_is_said_of_before() -> None:
    """A baseline that was not asked for is none, not zero."""
    result = evaluate(ASKED, ["1", "2 and 2", "3"])

    assert EvaluationResult(n=3, exact_match_before=None, exact_match_after=1.0) == result


def test_the_baseline_is_measured_on_the_same_questions() -> None:
    """Before and after are shares of the same conversations."""
    result = evaluate(ASKED, ["1", "2 and 2", "3"], before=["1", "", ""])

    assert EvaluationResult(n=3, exact_match_before=1 / 3, exact_match_after=1.0) == result


@pytest.mark.parametrize("replies", [[], ["1"], ["1", "2", "3", "4"]])
def test_a_missing_reply_is_an_error(replies: list[str]) -> None:
    """Questions and replies are never silently paired off by the shorter list."""
    with pytest.raises(ValueError, match="zip"):
        evaluate(ASKED, replies)


def test_nothing_to_evaluate_is_an_error() -> None:
    """No share is made of nothing."""
    with pytest.raises(ValueError, match="no conversations"):
        exact_match([], [])


def test_exchanges_put_question_and_answers_side_by_side() -> None:
    """The report shows what was asked and what each model said."""
    shown = exchanges(ASKED[:1], ["one!"], before=["hm"])

    assert [Exchange(prompt="one", reply="one!", reference="1", before="hm")] == shown
    assert None is exchanges(ASKED[:1], ["one!"])[0].before
