"""Conversations as tokens, with the tokens of the answers marked; in memory and on disk.

The chat template is the model's own. It is rendered to text, the answers are found in the text, and
the text is tokenized once, so that training sees exactly the tokens that a prompt has later.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .conversations import Messages

if TYPE_CHECKING:
    import numpy as np

IGNORED = -100
"""The label of a token that is not learned."""

Span = tuple[int, int]
Render = Callable[[Messages, bool], str]


class TemplateUnfit(Exception):
    """The chat template hides where an answer begins or ends."""


@dataclass(frozen=True)
class Encoded:
    """Rows of tokens, one after another.

    Args:
        tokens: The tokens of all rows.
        answers: For each token, whether it is part of an answer.
        offsets: Where each row begins, and where the last one ends.
    """

    tokens: np.ndarray[Any, Any]
    answers: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Mapping[str, np.ndarray[Any, Any]]:
        part = slice(self.offsets[row], self.offsets[row + 1])
        return {"tokens": self.tokens[part], "answers": self.answers[part]}

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int((self.offsets[1:] - self.offsets[:-1]).max())


class Encoder:
    """Collects rows.

    Args:
        tokenizer: The model's own, a fast one.
        max_length: Most tokens of a row; what is beyond is cut off.

    Attributes:
        truncated: Rows that were cut.
        dropped: Rows of which no answer was left.
    """

    def __init__(self, tokenizer: Any, *, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._tokens = array("i")
        self._answers = array("b")
        self._offsets = array("q", [0])
        self.truncated = 0
        self.dropped = 0

    def add(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> None:
        """Tokenize some rows.

        Args:
            texts: Conversations, rendered.
            spans: Of each, where its answers are.
        """
        found = self._tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True, truncation=False
        )
        for tokens, places, answers in zip(
            found["input_ids"], found["offset_mapping"], spans, strict=True
        ):
            marks = marked(places, answers)[: self._max_length]
            self.truncated += len(tokens) > self._max_length
            if not any(marks):
                self.dropped += 1
                continue
            self._tokens.extend(tokens[: self._max_length])
            self._answers.extend(marks)
            self._offsets.append(len(self._tokens))

    def encoded(self) -> Encoded:
        """Return all rows so far."""
        import numpy as np

        return Encoded(
            np.frombuffer(self._tokens, dtype=np.int32),
            np.frombuffer(self._answers, dtype=np.bool_),
            np.frombuffer(self._offsets, dtype=np.int64),
        )


def answer_spans(render: Render, messages: Messages) -> tuple[str, list[Span]]:
    """Return a conversation as text, and where in it the answers are, each with its end mark.

    An answer reaches from the end of the prompt, as it is when the model is asked, to where its
    turn ends. A turn can end otherwise when it is the last (with an end-of-text token, say), so its
    end is what both ways have in common.

    Args:
        render: Applies the chat template to messages, with or without a generation prompt.
        messages: The conversation.

    Raises:
        TemplateUnfit: The text of an answer or of what precedes it is not to be found.
    """
    text = render(messages, False)
    spans = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render(messages[:place], True)
        alone = render(messages[: place + 1], False)
        answer = message["content"].strip()
        in_text, in_alone = text.find(answer, len(prompt)), alone.find(answer, len(prompt))
        if not (text.startswith(prompt) and alone.startswith(prompt)) or -1 in (in_text, in_alone):
            raise TemplateUnfit
        end = in_text + len(answer)
        end += _alike(text[end:], alone[in_alone + len(answer) :])
        spans.append((len(prompt), end))
    return text, spans


def marked(places: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """Return for each token whether it is within one of *spans*.

    The whole of it: ``<|user|>`` begins as ``<|endoftext|>`` does, and would else be learned where
    a template closes the last turn with the one and the others with the other.

    Args:
        places: Where each token begins and ends in the text, in order.
        spans: Where the answers do, in order.
    """
    marks = []
    rest = iter(spans)
    span = next(rest, None)
    for begin, end in places:
        while span is not None and begin >= span[1]:
            span = next(rest, None)
        marks.append(span is not None and span[0] <= begin and end <= span[1])
    return marks


def save(encoded: Encoded, folder: Path, split: str) -> None:
    """Write *encoded* to *folder* as the rows of *split*."""
    import numpy as np

    for name in ("tokens", "answers", "offsets"):
        np.save(folder / f"{split}.{name}.npy", getattr(encoded, name))


def load(folder: Path, split: str) -> Encoded:
    """Return the rows of *split* in *folder*; they stay on disk until they are used."""
    import numpy as np

    return Encoded(
        *(
            np.load(folder / f"{split}.{name}.npy", mmap_mode="r")
            for name in ("tokens", "answers", "offsets")
        )
    )


def _alike(one: str, other: str) -> int:
    """Return how many characters at the beginning of both are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
