"""What is wrong with a conversation: found for all at once, told for those that are bad."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lifecycle.conversations.objects import Problem
from lifecycle.conversations.shapes import (
    ASSISTANT,
    MISSING,
    ROLES,
    SYSTEM,
    UNKNOWN,
    USER,
    Conversations,
    is_blank,
)


def find_problems(
    batch: Conversations,
    lengths: NDArray[np.int64],
    *,
    needs_answer: bool,
    max_tokens: int | None,
) -> dict[int, Problem]:
    """Find the conversations that cannot be used.

    A conversation is an optional system message, then user and assistant in turn, none of them
    empty.

    Args:
        batch: The conversations.
        lengths: Tokens of each.
        needs_answer: Whether one without an answer of the assistant is of no use.
        max_tokens: The longest allowed, in tokens.

    Returns:
        The first problem of each, by its place in the batch.
    """
    sizes = np.diff(batch.starts)
    of_row = np.repeat(np.arange(len(batch)), sizes)
    has_system = np.zeros(len(batch), np.int64)
    filled = sizes > 0
    has_system[filled] = batch.roles[batch.starts[:-1][filled]] == SYSTEM
    # From the first user's message on, even places are the user's and odd ones the assistant's.
    turn = np.arange(len(of_row)) - (batch.starts[:-1] + has_system)[of_row]
    wanted = np.where(turn < 0, SYSTEM, np.where(turn % 2 == 0, USER, ASSISTANT))
    blank = is_blank(batch.texts)
    suspects = set(of_row[(batch.roles != wanted) | blank].tolist())
    suspects |= set(np.flatnonzero(sizes - has_system < (2 if needs_answer else 1)).tolist())
    if max_tokens is not None:
        suspects |= set(np.flatnonzero(lengths > max_tokens).tolist())
    problems = {place: _tell(batch, place, blank, lengths) for place in suspects}
    problems.update(batch.broken)
    return {place: problems[place] for place in sorted(problems)}


def _tell(
    batch: Conversations, place: int, blank: NDArray[np.bool_], lengths: NDArray[np.int64]
) -> Problem:
    start, end = batch.starts[place : place + 2].tolist()
    if start == end:
        return Problem("empty", "it has no messages")
    roles = batch.roles[start:end].tolist()
    has_system = roles[0] == SYSTEM
    for number, role in enumerate(roles):
        message = f"message {number}"
        if role == MISSING:
            return Problem("role", f"{message} has no role")
        if role == UNKNOWN:
            name = batch.role_names[start + number].as_py()
            return Problem("role", f"{message} has the role {name!r}, not {' or '.join(ROLES)}")
        if not batch.texts[start + number].is_valid:
            return Problem("empty", f"{message} has no content")
        if blank[start + number]:
            return Problem("empty", f"{message} is empty")
        wanted = (
            (SYSTEM if number == 0 else USER + (number - 1) % 2)
            if has_system
            else USER + number % 2
        )
        if role != wanted:
            said = f"{message} is the {ROLES[role]}'s where the {ROLES[wanted]}'s is due"
            return Problem("order", said)
    if len(roles) == has_system:
        return Problem("no answer", "it has no message but the system's")
    if len(roles) - has_system < 2:
        return Problem("no answer", "it has no answer of the assistant")
    return Problem("too long", f"it has {lengths[place]} tokens")
