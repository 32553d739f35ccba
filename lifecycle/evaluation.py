"""How well the trained model answers conversations that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import Field

from lifecycle.plain import Result, Spec
from lifecycle.scoring import Conversation


class EvaluationSpec(Spec):
    """How the trained model is compared with the answers of the data set."""

    baseline: bool = Field(
        default=False,
        title="Baseline",
        description="Ask the foundation model the same questions, to show what training changed.",
        examples=[False],
    )
    conversations: int = Field(
        default=1,
        title="Conversations",
        description="How many held-out conversations to ask about.",
        ge=1,
        le=1000,
        examples=[20],
    )
    seed: int = Field(
        default=0,
        title="Seed",
        description="Equal seeds pick the same conversations.",
        ge=0,
        examples=[0],
    )


class EvaluationResult(Result):
    """The share of answers that are those of the data set, word for word."""

    n: int = Field(title="Conversations", description="How many were asked about.", ge=1)
    exact_match_before: float | None = Field(
        title="Exact match before",
        description="Share of the foundation model's, 0 to 1; none without a baseline.",
    )
    exact_match_after: float = Field(
        title="Exact match after", description="Share of the trained model's, 0 to 1."
    )


class Exchange(Result):
    """One question and what was answered."""

    prompt: str = Field(title="Prompt", description="The last user turn.")
    reply: str = Field(title="Reply", description="What the trained model said.")
    reference: str = Field(title="Reference", description="What the data set says.")
    before: str | None = Field(
        default=None, title="Before", description="What the foundation model said."
    )


def collect_replies(
    conversations: Sequence[Conversation], ask: Callable[[Conversation], str]
) -> list[str]:
    """Ask about each conversation in turn and return the replies in the same order.

    Args:
        conversations: What :func:`lifecycle.scoring.pick_conversations` picked.
        ask: Answers one conversation; what it raises ends the evaluation.
    """
    return [ask(conversation) for conversation in conversations]


def exact_match(conversations: Sequence[Conversation], replies: Sequence[str]) -> float:
    """Return the share of replies that equal the reference, white space aside, 0 to 1.

    Raises:
        ValueError: There is not one reply for each conversation, or there are none.
    """
    if not conversations:
        raise ValueError("There is nothing to evaluate: no conversations.")
    pairs = zip(conversations, replies, strict=True)
    matches = [_words(reply) == _words(asked.reference) for asked, reply in pairs]
    return sum(matches) / len(matches)


def evaluate(
    conversations: Sequence[Conversation],
    replies: Sequence[str],
    before: Sequence[str] | None = None,
) -> EvaluationResult:
    """Compare the trained model's replies, and the foundation model's, with the references.

    Args:
        conversations: What was asked, one or more.
        replies: The trained model's, in the same order.
        before: The foundation model's, in the same order, where a baseline was asked for.

    Raises:
        ValueError: There is not one reply for each conversation.
    """
    return EvaluationResult(
        n=len(conversations),
        exact_match_before=None if before is None else exact_match(conversations, before),
        exact_match_after=exact_match(conversations, replies),
    )


def exchanges(
    conversations: Sequence[Conversation],
    replies: Sequence[str],
    before: Sequence[str] | None = None,
) -> list[Exchange]:
    """Put questions and answers side by side, for the report. Args are :func:`evaluate`'s."""
    earlier = before if before is not None else [None] * len(conversations)
    return [
        Exchange(prompt=asked.prompt, reply=reply, reference=asked.reference, before=first)
        for asked, reply, first in zip(conversations, replies, earlier, strict=True)
    ]


def _words(text: str) -> list[str]:
    return text.split()
