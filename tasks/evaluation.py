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
    """Return the share of replies that are the data set's, word for word."""
    result = lifecycle.evaluate(conversations, replies, before)
    get_run_logger().info(
        "Exact match over %d conversations: %.2f%s",
        result.n,
        result.exact_match_after,
        "" if before is None else f" (before training: {result.exact_match_before:.2f})",
    )
    return result
