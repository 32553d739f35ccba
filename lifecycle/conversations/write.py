"""Conversations as the bytes of a file, and as a number that tells equal ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from lifecycle.conversations.pipeline import Sink
from lifecycle.conversations.shapes import ROLES, Conversations

_SCHEMA = pa.schema(
    [("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))]
)
_ROWS_A_GROUP = 1000
# So few that their texts are still in the core's cache when they are written: a third faster.
_ROWS_A_STEP = 32


class Writer(Protocol):
    """Writes conversations in one format."""

    def add(self, batch: Conversations, kept: Sequence[int]) -> None:
        """Write the conversations at these places of the batch."""

    def close(self) -> None:
        """Write what is left."""


class JsonLinesWriter:
    """One JSON object a line: ``{"messages": [{"role": …, "content": …}]}``."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def add(self, batch: Conversations, kept: Sequence[int]) -> None:
        """Write the conversations at these places of the batch."""
        lines: list[bytes] = []
        for first in range(0, len(kept), _ROWS_A_STEP):
            lines += _lines(batch, kept[first : first + _ROWS_A_STEP])
        self._sink.write(b"".join(lines))

    def close(self) -> None:
        """Write nothing: every line is whole."""


class ParquetWriter:
    """One column, ``messages``: a list of role and content."""

    def __init__(self, sink: Sink) -> None:
        self._file = pq.ParquetWriter(pa.PythonFile(sink, mode="w"), _SCHEMA)
        self._waiting: list[Any] = []
        self._rows = 0

    def add(self, batch: Conversations, kept: Sequence[int]) -> None:
        """Write the conversations at these places of the batch."""
        roles = pa.array(np.array(ROLES, dtype=object)[batch.roles], pa.string())
        messages = pa.StructArray.from_arrays([roles, batch.texts], ["role", "content"])
        lists = pa.ListArray.from_arrays(pa.array(batch.starts, pa.int32()), messages)
        chosen = lists if len(kept) == len(batch) else lists.take(pa.array(kept, pa.int64()))
        # Always as many rows a group, so that the bytes do not depend on how they were read.
        self._waiting.append(pa.RecordBatch.from_arrays([chosen], schema=_SCHEMA))
        self._rows += len(kept)
        while self._rows >= _ROWS_A_GROUP:
            table = pa.Table.from_batches(self._waiting, _SCHEMA)
            self._file.write_table(table.slice(0, _ROWS_A_GROUP).combine_chunks())
            self._waiting = table.slice(_ROWS_A_GROUP).to_batches()
            self._rows -= _ROWS_A_GROUP

    def close(self) -> None:
        """Write what is left, and the index."""
        if self._rows:
            table = pa.Table.from_batches(self._waiting, _SCHEMA)
            self._file.write_table(table.combine_chunks())
        self._file.close()


WRITERS: dict[str, type[JsonLinesWriter] | type[ParquetWriter]] = {
    "jsonl": JsonLinesWriter,
    "parquet": ParquetWriter,
}


def _lines(batch: Conversations, kept: Sequence[int]) -> list[bytes]:
    """Return these conversations as lines; *kept* is ascending."""
    starts = batch.starts[kept[0] : kept[-1] + 2].tolist()
    first, last = starts[0], starts[-1]
    roles = batch.roles[first:last].tolist()
    texts = batch.texts.slice(first, last - first).to_pylist()
    messages = [
        {"role": ROLES[role], "content": text} for role, text in zip(roles, texts, strict=True)
    ]
    return [
        orjson.dumps(
            {"messages": messages[starts[place] - first : starts[place + 1] - first]},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for place in (one - kept[0] for one in kept)
    ]


def fingerprints(batch: Conversations, kept: Sequence[int]) -> NDArray[np.uint64]:
    """Return a number for each conversation; two that differ have the same one by chance only.

    That chance is one in a hundred million for half a million conversations.
    """
    ends = batch.ends_of_texts
    lengths = np.diff(ends).astype(np.int64)
    # Where one text ends and who says it is part of what is compared.
    heads = memoryview((lengths * 8 + batch.roles).tobytes())
    data = memoryview(batch.texts.buffers()[2] or b"")
    at_head = (batch.starts * 8).tolist()
    at_text = ends[batch.starts].tolist()
    digest = xxhash.xxh3_64_intdigest
    return np.array(
        [
            digest(
                data[at_text[place] : at_text[place + 1]],
                seed=digest(heads[at_head[place] : at_head[place + 1]]),
            )
            for place in kept
        ],
        np.uint64,
    )
