"""Compare the replies with what the data set says."""

from __future__ import annotations

from prefect import get_run_logger

from lifecycle import evaluation as lifecycle
from lifecycle.evaluation import EvaluationResult
from lifecycle.scoring import Conversation

from .step import step


@step()
def evaluate_replies(
    conversations: list[Conversation], replies: list[str], before: list[str] | None
) -> EvaluationResult:
    """Return how near the replies come to what the data set says: exact match and ROUGE-L."""
    result = lifecycle.evaluate(conversations, replies, before)
    get_run_logger().info(
        "Over %d conversations: exact match %s, ROUGE-L %s",
        result.n,
        _changed(result.exact_match_before, result.exact_match_after),
        _changed(result.rouge_l_before, result.rouge_l_after),
    )
    return result


def _changed(before: float | None, after: float) -> str:
    return f"{after:.2f}" if before is None else f"{after:.2f} (before training {before:.2f})"
