"""Rows of any declared shape as conversations: who says what, in Arrow and numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lifecycle.conversations.arrays import flags, from_numbers, from_texts, numbers
from lifecycle.conversations.objects import Problem, from_objects
from lifecycle.conversations.read import Batch
from lifecycle.dataset import COLUMNS
from lifecycle.errors import DatasetError

if TYPE_CHECKING:
    from lifecycle.dataset import DatasetSpec

ROLES = ("system", "user", "assistant")
SYSTEM, USER, ASSISTANT = range(3)
UNKNOWN, MISSING = -1, -2

# The shapes that keep a conversation in a list: the list, who speaks, and what is said.
_LISTS = {
    "messages": ("messages", "role", "content"),
    "sharegpt": ("conversations", "from", "value"),
}


@dataclass(frozen=True)
class Conversations:
    """A batch of conversations, their messages end to end.

    Args:
        rows: Numbers of the rows in their split.
        starts: Where each conversation begins among the messages; one more for the end.
        roles: Of each message, as a place in :data:`ROLES`, or UNKNOWN or MISSING.
        texts: Of each message; null where there is none.
        role_names: Of each message, as the data set calls them.
        broken: Conversations that could not be read, by place.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    roles: NDArray[np.int8]
    texts: Any
    role_names: Any
    broken: dict[int, Problem]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ends_of_texts(self) -> NDArray[np.int32]:
        """Where each text begins in the buffer of all of them; one more for the end."""
        _, offsets, _ = self.texts.buffers()
        first = self.texts.offset
        return np.frombuffer(offsets, np.int32)[first : first + len(self.texts) + 1]


def schema_of(spec: DatasetSpec) -> pa.Schema:
    """Return the columns that the shape reads, with the types that JSON is read as."""
    names = spec.column_names
    outer = list(names)
    fields = []
    if spec.shape in _LISTS:
        column, *inner = _LISTS[spec.shape]
        struct = pa.struct([(names[name], pa.string()) for name in inner])
        fields.append(pa.field(names[column], pa.list_(struct)))
        outer = [name for name in outer if name not in (column, *inner)]
    return pa.schema([*fields, *((names[name], pa.string()) for name in outer)])


def required_columns(spec: DatasetSpec) -> list[str]:
    """Return the columns without which no row is a conversation."""
    there = schema_of(spec).names
    needed = [
        spec.column_names[name] for name, is_needed in COLUMNS[spec.shape].items() if is_needed
    ]
    return [name for name in needed if name in there]


def conversations(batch: Batch, spec: DatasetSpec) -> Conversations:
    """Turn rows into conversations by the shape that the specification declares.

    Raises:
        DatasetError: A column is of a type that holds neither text nor conversations.
    """
    names = spec.column_names
    broken = dict(batch.broken)
    if spec.shape in _LISTS:
        starts, role_names, texts = _from_lists(batch, spec, broken)
        role_names = _valid(role_names, starts, broken)
        roles = _roles(role_names, spec)
    else:
        starts, roles, texts = _from_columns(batch, spec)
        role_names = from_texts(ROLES).take(from_numbers(roles))
    system = _text(batch.table, names["system"]) if "system" in names else None
    if system is not None:
        starts, roles, role_names, texts = _with_system(system, starts, roles, role_names, texts)
    texts = _valid(texts, starts, broken)
    return Conversations(batch.rows, starts, roles, texts, role_names, broken)


def _from_lists(
    batch: Batch, spec: DatasetSpec, broken: dict[int, Problem]
) -> tuple[NDArray[np.int64], Any, Any]:
    column, role, content = (spec.column_names[name] for name in _LISTS[spec.shape])
    if column not in batch.table.schema.names:
        lists = pa.nulls(batch.table.num_rows, schema_of(spec).field(column).type)
    else:
        lists = batch.table.column(column)
    if _is_text(lists.type):
        lists, unreadable = _parsed(lists, pa.schema([schema_of(spec).field(column)]))
        broken.update(unreadable)
    if pa.types.is_null(lists.type):
        lists = lists.cast(schema_of(spec).field(column).type)
    kind = lists.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_struct(kind.value_type):
        raise _wrong_type(column, kind, f"a list of {{{role}, {content}}}")
    for place in np.flatnonzero(flags(lists.is_null())).tolist():
        broken.setdefault(place, Problem("unreadable", f"it has no {column}"))
    offsets = numbers(lists.offsets).astype(np.int64)
    messages = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    # Not field(), which leaves out that a whole message may be null.
    fields = dict(zip((field.name for field in kind.value_type), messages.flatten(), strict=True))
    for name in (role, content):
        if name not in fields:
            raise _wrong_type(column, kind, f"a list of {{{role}, {content}}}")
    return (
        offsets - offsets[0],
        _as_text(fields[role], f"{column}.{role}"),
        _as_text(fields[content], f"{column}.{content}"),
    )


def _from_columns(
    batch: Batch, spec: DatasetSpec
) -> tuple[NDArray[np.int64], NDArray[np.int8], Any]:
    names = spec.column_names
    if spec.shape == "alpaca":
        asked = _text(batch.table, names["instruction"])
        detail = _text(batch.table, names["input"])
        if detail is not None:
            both = pc.binary_join_element_wise(asked, detail, "\n\n")
            asked = pc.if_else(pa.array(is_blank(detail)), asked, both)
        answer = _text(batch.table, names["output"])
    else:
        asked = _text(batch.table, names["prompt"])
        answer = _text(batch.table, names["response"])
    number = batch.table.num_rows
    nothing = pa.nulls(number, pa.string())
    pairs = np.arange(2 * number).reshape(2, number).T.ravel()
    texts = pa.concat_arrays(
        [nothing if asked is None else asked, nothing if answer is None else answer]
    ).take(from_numbers(pairs))
    starts = np.arange(0, 2 * number + 1, 2, dtype=np.int64)
    return starts, np.tile(np.array([USER, ASSISTANT], np.int8), number), texts


def _with_system(
    system: Any, starts: NDArray[np.int64], roles: NDArray[np.int8], role_names: Any, texts: Any
) -> tuple[NDArray[np.int64], NDArray[np.int8], Any, Any]:
    """Put what a column says as the system's message before each conversation that has one."""
    there = ~is_blank(system)
    places = starts[:-1][there]
    order = from_numbers(
        np.insert(np.arange(len(texts)), places, len(texts) + np.flatnonzero(there))
    )
    names = from_texts([ROLES[SYSTEM]] * len(system))
    return (
        starts + np.concatenate([[0], np.cumsum(there)]),
        np.insert(roles, places, SYSTEM),
        pa.concat_arrays([role_names, names]).take(order),
        pa.concat_arrays([texts, system]).take(order),
    )


def is_blank(texts: Any) -> NDArray[np.bool_]:
    """Say of each text whether it is missing, empty or nothing but space."""
    is_empty: NDArray[np.bool_] = numbers(pc.binary_length(texts)) == 0
    return is_empty | flags(pc.utf8_is_space(texts), null=True)


def _roles(names: Any, spec: DatasetSpec) -> NDArray[np.int8]:
    known = spec.role_names
    meaning = np.array([ROLES.index(role) for role in known.values()] + [UNKNOWN], np.int8)
    places = numbers(pc.index_in(names, from_texts(list(known))), null=len(known))
    roles: NDArray[np.int8] = meaning[places]
    if names.null_count:
        roles[flags(names.is_null())] = MISSING
    return roles


def _parsed(texts: Any, schema: pa.Schema) -> tuple[Any, dict[int, Problem]]:
    """Read the JSON that a column of text holds."""
    (name,) = schema.names
    rows = [
        {name: None if text is None else text.decode("utf-8", "surrogateescape")}
        for text in texts.cast(pa.large_binary()).to_pylist()
    ]
    table, broken = from_objects(rows, schema)
    return table.column(0), broken


def _text(table: Any, name: str) -> Any:
    """Return a column of text; None where there is none of that name."""
    return _as_text(table.column(name), name) if name in table.schema.names else None


def _as_text(column: Any, name: str) -> Any:
    kind = column.type
    if pa.types.is_string(kind):
        return column
    held = kind.value_type if pa.types.is_dictionary(kind) else kind
    if _is_text(held) or pa.types.is_null(held):
        return column.cast(pa.string())
    raise _wrong_type(name, kind, "text")


def _is_text(kind: pa.DataType) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _wrong_type(name: str, kind: pa.DataType, wanted: str) -> DatasetError:
    return DatasetError(
        f"Its column {name} is {kind}, not {wanted}.",
        where="dataset.shape",
        remedy="Set dataset.shape and dataset.columns to what its rows look like.",
    )


def _valid(texts: Any, starts: NDArray[np.int64], broken: dict[int, Problem]) -> Any:
    """Return a text of each message without those that are not UTF-8: their rows are broken."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        valid: list[str | None] = []
        for place, text in enumerate(texts.cast(pa.binary()).to_pylist()):
            try:
                valid.append(None if text is None else text.decode())
            except UnicodeDecodeError:
                row = int(np.searchsorted(starts, place, side="right")) - 1
                said = f"message {place - starts[row]} is not UTF-8"
                broken.setdefault(row, Problem("encoding", said))
                valid.append("")
        return pa.array(valid, pa.string())
    return texts
