"""Arrow and numpy, by their buffers.

pyarrow's own ``to_numpy``, ``array`` and ``scalar`` import pandas, if only to ask whether they were
given some of its objects. That takes a quarter of a second: as long as all else that is done with
thirty thousand conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numbers(column: Any, null: int = 0) -> NDArray[Any]:
    """Return an Arrow array of integers, with *null* for what is not there."""
    if not len(column):
        return np.empty(0, str(column.type))
    everything = np.frombuffer(column.buffers()[1], str(column.type))
    found = everything[column.offset : column.offset + len(column)]
    if column.null_count:
        return np.where(flags(column.is_valid()), found, null)
    return found


def flags(column: Any, null: bool = False) -> NDArray[np.bool_]:
    """Return an Arrow array of booleans, with *null* for what is not there."""
    return numbers(column.cast(pa.uint8()), int(null)).astype(np.bool_)


def from_numbers(values: NDArray[Any]) -> Any:
    """Return integers as an Arrow array of 64 bits."""
    whole = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(whole), [None, pa.py_buffer(whole)])


def from_texts(values: Sequence[str]) -> Any:
    """Return texts as an Arrow array."""
    coded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, coded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(coded))]
    return pa.Array.from_buffers(pa.string(), len(coded), buffers)
