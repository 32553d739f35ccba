"""How long conversations are, in tokens: by the model's own tokenizer, or an estimate."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lifecycle.dataset import TOKENS_A_BIN, TokenLengths
from lifecycle.errors import DatasetError

if TYPE_CHECKING:
    from lifecycle.conversations.shapes import Conversations
    from lifecycle.dataset import DatasetSpec

logger = logging.getLogger(__name__)

# English text in the vocabularies of today's models; other languages and code have fewer.
_BYTES_A_TOKEN = 4
# What a chat template adds to a message: its role and the marks around it.
_TOKENS_A_MESSAGE = 4
_BINS = 512


class TokenCounter:
    """Counts the tokens of conversations.

    Args:
        method: How, in words.
        content: Of the ``tokenizer.json``; None for the estimate.
    """

    def __init__(self, method: str, content: bytes | None = None) -> None:
        self.method = method
        self.digest = None if content is None else hashlib.sha256(content).hexdigest()
        self._content = content

    def count(self, batch: Conversations) -> NDArray[np.int64]:
        """Count the tokens of each conversation, with those that a chat template adds.

        Raises:
            DatasetError: The file is no tokenizer's.
        """
        if self._content is None:
            size = np.diff(batch.ends_of_texts[batch.starts]).astype(np.int64)
            tokens = -(-size // _BYTES_A_TOKEN)
        else:
            texts = [text or "" for text in batch.texts.to_pylist()]
            encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            ends = np.cumsum([0, *(len(one) for one in encoded)])
            tokens = np.diff(ends[batch.starts])
        counted: NDArray[np.int64] = tokens + _TOKENS_A_MESSAGE * np.diff(batch.starts)
        return counted

    @cached_property
    def _tokenizer(self) -> Any:
        # Not before the first count: a large one takes a second, and what is kept needs none.
        from tokenizers import Tokenizer

        assert self._content is not None
        try:
            tokenizer = Tokenizer.from_str(self._content.decode())
        except Exception as error:
            raise _no_tokenizer(self.method, error) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


class Tally:
    """Adds up the lengths of a split."""

    def __init__(self, counter: TokenCounter) -> None:
        self._method = counter.method
        self._bins = np.zeros(_BINS, np.int64)
        self._total = self._number = self._longest = 0

    def add(self, lengths: NDArray[np.int64]) -> None:
        """Add the lengths of some conversations, at least one token each."""
        if len(lengths):
            places = np.minimum((lengths - 1) // TOKENS_A_BIN, _BINS - 1)
            self._bins += np.bincount(places, minlength=_BINS)
            self._total += int(lengths.sum())
            self._number += len(lengths)
            self._longest = max(self._longest, int(lengths.max()))

    def result(self) -> TokenLengths:
        """Return what came together."""
        last = int(np.flatnonzero(self._bins)[-1]) + 1 if self._number else 0
        return TokenLengths(
            method=self._method,
            mean=round(self._total / max(self._number, 1), 1),
            longest=self._longest,
            bins=self._bins[:last].tolist(),
        )


def find_counter(spec: DatasetSpec) -> TokenCounter:
    """Load the tokenizer that is asked for, or take the estimate.

    Where the tokenizer cannot be had, the estimate takes its place and says so; but not where
    ``dataset.max_tokens`` lets it decide which rows are used.

    Raises:
        DatasetError: As just said.
    """
    estimate = f"estimated at {_BYTES_A_TOKEN} bytes a token"
    if spec.tokenizer is None:
        return TokenCounter(estimate)
    try:
        if find_spec("tokenizers") is None:
            raise ModuleNotFoundError("the package tokenizers is not installed")
        return TokenCounter(f"counted with {spec.tokenizer}", _content(spec.tokenizer))
    except Exception as error:
        if spec.max_tokens is not None:
            raise _no_tokenizer(spec.tokenizer, error) from error
        why = f"the tokenizer {spec.tokenizer} cannot be had"
        logger.warning("Tokens are %s: %s (%s).", estimate, why, error)
        return TokenCounter(f"{estimate}, since {why}")


def _no_tokenizer(name: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"The tokenizer cannot be used ({name}): {' '.join(str(error).split())[:200]}",
        where="dataset.tokenizer",
        remedy="Name a hub id, a tokenizer.json or a folder with one, and install the package "
        "tokenizers; or leave it out, and tokens are estimated.",
    )


def _content(name: str) -> bytes:
    path = Path(name).expanduser()
    if path.is_dir():
        path /= "tokenizer.json"
    elif not path.exists():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(name, "tokenizer.json"))
    return path.read_bytes()
