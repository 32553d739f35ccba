"""How well the trained model answers conversations that it was not trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from lifecycle.dataset import DatasetResult, DatasetSpec
from lifecycle.plain import Result, Spec
from lifecycle.scoring import Conversation, Message, pick_conversations

_WORD = re.compile(r"\w+")


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
    """How near the answers are to those of the data set, each figure from 0 to 1."""

    n: int = Field(title="Conversations", description="How many were asked about.", ge=1)
    exact_match_before: float | None = Field(
        title="Exact match before",
        description="Share of the foundation model's answers that are the data set's, word for "
        "word; none without a baseline.",
    )
    exact_match_after: float = Field(
        title="Exact match after", description="The same of the trained model."
    )
    rouge_l_before: float | None = Field(
        title="ROUGE-L before",
        description="Mean overlap of the foundation model's answers with the data set's; none "
        "without a baseline.",
    )
    rouge_l_after: float = Field(
        title="ROUGE-L after", description="The same of the trained model."
    )


class Exchange(Result):
    """One question and what was answered."""

    earlier: list[Message] = Field(
        title="Earlier", description="The turns of the conversation before the question."
    )
    prompt: str = Field(title="Prompt", description="The last user turn.")
    reply: str = Field(title="Reply", description="What the trained model said.")
    reference: str = Field(title="Reference", description="What the data set says.")
    before: str | None = Field(
        default=None, title="Before", description="What the foundation model said."
    )


def pick_held_out(
    data: DatasetResult, dataset: DatasetSpec, spec: EvaluationSpec
) -> list[Conversation]:
    """Pick the conversations that the endpoint will be asked about.

    Args:
        data: The files.
        dataset: Which of their splits is held out for this.
        spec: How many to pick, and the seed.

    Raises:
        DatasetError: The split has no conversation whose last question is answered.
    """
    held_out = Path(data.file(dataset.effective_generation_split).path)
    return pick_conversations(held_out, spec.conversations, spec.seed)


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
        ValueError: There is not one reply for each conversation, or there are none.
    """
    return EvaluationResult(
        n=len(conversations),
        exact_match_before=None if before is None else exact_match(conversations, before),
        exact_match_after=exact_match(conversations, replies),
        rouge_l_before=None if before is None else rouge_l(conversations, before),
        rouge_l_after=rouge_l(conversations, replies),
    )


def exchanges(
    conversations: Sequence[Conversation],
    replies: Sequence[str],
    before: Sequence[str] | None = None,
) -> list[Exchange]:
    """Put questions and answers side by side, for the report. Args are :func:`evaluate`'s."""
    earlier = before if before is not None else [None] * len(conversations)
    return [
        Exchange(
            earlier=asked.messages[:-1],
            prompt=asked.prompt,
            reply=reply,
            reference=asked.reference,
            before=first,
        )
        for asked, reply, first in zip(conversations, replies, earlier, strict=True)
    ]


def exact_match(conversations: Sequence[Conversation], replies: Sequence[str]) -> float:
    """Return the share of replies that equal the reference, white space aside, 0 to 1.

    Raises:
        ValueError: As :func:`evaluate`.
    """
    pairs = _pairs(conversations, replies)
    return sum(reference.split() == reply.split() for reference, reply in pairs) / len(pairs)


def rouge_l(conversations: Sequence[Conversation], replies: Sequence[str]) -> float:
    """Return the mean ROUGE-L of the replies: how much of the reference they say in its order.

    The F-measure of the longest common subsequence of words, 0 to 1, as the package
    ``rouge-score`` computes it, without stemming.

    Raises:
        ValueError: As :func:`evaluate`.
    """
    from rouge_score.rouge_scorer import RougeScorer

    pairs = _pairs(conversations, replies)
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    scores = [scorer.score(reference, reply)["rougeL"].fmeasure for reference, reply in pairs]
    return float(sum(scores) / len(scores))


class _Words:
    """Splits into words of any alphabet; the package's own tokenizer knows a to z and digits."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def _pairs(conversations: Sequence[Conversation], replies: Sequence[str]) -> list[tuple[str, str]]:
    if not conversations:
        raise ValueError("There is nothing to evaluate: no conversations.")
    return [(asked.reference, reply) for asked, reply in zip(conversations, replies, strict=True)]
