"""The rows of one split as Arrow batches, from Parquet, JSON lines, JSON, CSV and Arrow files.

Only the columns of the shape are read, and of Parquet only the row groups that hold a row that is
wanted. JSON and CSV have no index: to take a percentage of them their rows are counted first.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lifecycle.conversations.arrays import from_numbers
from lifecycle.conversations.objects import Problem, from_objects, loads, put_back
from lifecycle.errors import DatasetError

BATCH = 512

_BLOCK = 4 << 20
_LOOKED_AT = 100
_LARGEST_DOCUMENT = 512 << 20
# What text is packed to, about: for the check of the disk's space.
_UNPACKED = 4
_PACKED = re.compile(r"\.(gz|bz2|xz|zst)$")
_ENDING = re.compile(r"\.([a-z]+)(?:\.(?:gz|bz2|xz|zst))?$")


class Batch(NamedTuple):
    """Rows that were read.

    Args:
        rows: Their numbers in the split, counted from 0.
        table: The columns of the shape that are there.
        broken: Rows that could not be read, by their place in the batch, and why.
    """

    rows: NDArray[np.int64]
    table: Any
    broken: dict[int, Problem]


class Reader(ABC):
    """Reads the files of one split.

    Args:
        filesystem: Opens them.
        paths: The files, in order.
        schema: The columns wanted, with the types that JSON is read as.
        required: Those of them that must be there.
    """

    def __init__(
        self, filesystem: Any, paths: Sequence[str], schema: pa.Schema, required: Sequence[str]
    ) -> None:
        self._filesystem = filesystem
        self._paths = paths
        self._schema = schema
        self._required = required
        self._is_local = "file" in filesystem.protocol

    is_indexed: ClassVar[bool] = False

    @abstractmethod
    def blocks(self, tell: Callable[[int], None]) -> list[int]:
        """Count the rows of each part that can be read without those before it.

        Args:
            tell: Told how many there are so far, where counting takes long; what it raises ends it.
        """

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> Iterator[Batch]:
        """Read the rows with these numbers, ascending; fewer where the split has fewer."""

    @abstractmethod
    def size_of(self, rows: NDArray[np.int64], total: int | None) -> int:
        """Estimate the bytes of these rows, of *total* that there are if that is known, as text."""

    def _open(self, path: str) -> Any:
        return self._filesystem.open(path, "rb", compression="infer")

    def _names(self, there: Sequence[str]) -> list[str]:
        """Return those of the columns wanted that are *there*."""
        missing = [name for name in self._required if name not in there]
        if missing:
            raise DatasetError(
                f"It has no column {', '.join(missing)}; it has {', '.join(there) or 'none'}.",
                where="dataset.shape",
                remedy="Set dataset.shape and dataset.columns to what its rows look like.",
            )
        return [name for name in self._schema.names if name in there]


def open_split(
    filesystem: Any, paths: Sequence[str], schema: pa.Schema, required: Sequence[str]
) -> Reader:
    """Return the reader of a split's files, by the ending of their names.

    Raises:
        DatasetError: They are of no format that is read, or of several.
    """
    formats = {_format(path) for path in paths}
    reader = _READERS.get(formats.pop() or "") if len(formats) == 1 else None
    if reader is None:
        raise DatasetError(
            f"{paths[0]} is of no format that is read, or lies beside files of another.",
            where="dataset.path",
            remedy="Parquet, JSON lines (.jsonl), JSON, CSV and Arrow files are read.",
        )
    return reader(filesystem, paths, schema, required)


class _Parquet(Reader):
    is_indexed = True

    @cached_property
    def _footers(self) -> list[Any]:
        """What each file says of its row groups: read once, since far away that takes time."""
        footers = []
        for path in self._paths:
            with self._file(path) as file:
                self._names(file.schema_arrow.names)
                footers.append(file.metadata)
        return footers

    def blocks(self, tell: Callable[[int], None]) -> list[int]:
        return [group.num_rows for _, _, group in self._groups()]

    def read(self, rows: NDArray[np.int64]) -> Iterator[Batch]:
        with ExitStack() as opened:
            file, number, start = None, -1, 0
            for of_file, place, group in self._groups():
                low, high = np.searchsorted(rows, [start, start + group.num_rows])
                if low < high:
                    if of_file != number:
                        opened.close()
                        number = of_file
                        file = opened.enter_context(
                            self._file(self._paths[number], self._footers[number])
                        )
                    yield from self._group(file, place, start, rows[low:high])
                start += group.num_rows

    def size_of(self, rows: NDArray[np.int64], total: int | None) -> int:
        size = 0.0
        start = 0
        for _, _, group in self._groups():
            low, high = np.searchsorted(rows, [start, start + group.num_rows])
            columns = (group.column(n) for n in range(group.num_columns))
            size += sum(
                column.total_uncompressed_size * (high - low) / max(group.num_rows, 1)
                for column in columns
                if column.path_in_schema.partition(".")[0] in self._schema.names
            )
            start += group.num_rows
        return int(size)

    def _groups(self) -> Iterator[tuple[int, int, Any]]:
        """Give every row group: the number of its file, its own in there, what the footer says."""
        for number, footer in enumerate(self._footers):
            for place in range(footer.num_row_groups):
                yield number, place, footer.row_group(place)

    def _file(self, path: str, footer: Any = None) -> Any:
        # Read piece by piece: a row group, and even a column of it, may be larger than memory.
        if self._is_local:
            return pq.ParquetFile(path, metadata=footer, pre_buffer=False, buffer_size=1 << 20)
        file = self._filesystem.open(path, "rb", cache_type="readahead", block_size=1 << 20)
        return pq.ParquetFile(file, metadata=footer, pre_buffer=False, buffer_size=8 << 20)

    def _group(self, file: Any, group: int, start: int, rows: NDArray[np.int64]) -> Iterator[Batch]:
        names = self._names(file.schema_arrow.names)
        batches = file.iter_batches(BATCH, row_groups=[group], columns=names, use_threads=False)
        for table in batches:
            batch = _chosen(start, table, {}, rows)
            if batch is not None:
                yield batch
            start += table.num_rows
            if start > rows[-1]:
                return


class _Sequential(Reader):
    """What can be read from its beginning only."""

    def blocks(self, tell: Callable[[int], None]) -> list[int]:
        total = 0
        for path in self._paths:
            for rows in self._counts(path):
                total += rows
                tell(total)
        return [total]

    def size_of(self, rows: NDArray[np.int64], total: int | None) -> int:
        size = 0
        for path in self._paths:
            packed = self._filesystem.info(path).get("size") or 0
            size += packed * (_UNPACKED if _PACKED.search(path) else 1)
        if total is not None:
            return int(size * len(rows) / max(total, 1))
        table, _ = next(self._tables(self._paths[0]), (self._schema.empty_table(), {}))
        return min(size, int(table.nbytes * len(rows) / max(table.num_rows, 1)))

    def read(self, rows: NDArray[np.int64]) -> Iterator[Batch]:
        start = 0
        for path in self._paths:
            for table, broken in self._tables(path):
                if len(rows) == 0 or start > rows[-1]:
                    return
                batch = _chosen(start, table, broken, rows)
                if batch is not None:
                    yield batch
                start += table.num_rows

    def _require_keys(self, rows: Iterable[Any]) -> None:
        """Refuse JSON whose first rows all lack a column: the shape is another one."""
        keys = dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)
        if keys:
            self._names(list(keys))

    @abstractmethod
    def _tables(self, path: str) -> Iterator[tuple[Any, dict[int, Problem]]]:
        """Read a file as batches, each with its broken rows."""

    def _counts(self, path: str) -> Iterator[int]:
        """Count the rows of a file, piece by piece."""
        return (table.num_rows for table, _ in self._tables(path))


class _JsonLines(_Sequential):
    """JSON lines: pyarrow reads them, a few megabytes at a time.

    It gives up a whole block for one bad row, and does not say which. Such a block is read again
    line by line.
    """

    def _counts(self, path: str) -> Iterator[int]:
        return (len(_lines(block)) for block in self._blocks(path))

    def _tables(self, path: str) -> Iterator[tuple[Any, dict[int, Problem]]]:
        for number, block in enumerate(self._blocks(path)):
            if number == 0:
                self._require_columns(_lines(block)[:_LOOKED_AT])
            yield from self._parse(block)

    def _require_columns(self, lines: list[bytes]) -> None:
        rows = []
        for line in lines:
            with suppress(ValueError):
                rows.append(orjson.loads(line))
        self._require_keys(rows)

    def _blocks(self, path: str) -> Iterator[bytes]:
        """Cut a file after whole lines."""
        with self._open(path) as file:
            pieces: list[bytes] = []
            is_first = True
            while piece := file.read(_BLOCK):
                if is_first:
                    piece, is_first = piece.removeprefix(b"\xef\xbb\xbf"), False
                cut = piece.rfind(b"\n") + 1
                if cut:
                    yield b"".join([*pieces, piece[:cut]])
                    pieces = []
                pieces.append(piece[cut:])
            yield b"".join(pieces)

    def _parse(self, block: bytes) -> Iterator[tuple[Any, dict[int, Problem]]]:
        lines = _lines(block)
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(block),
                pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                pyarrow.json.ParseOptions(self._schema, unexpected_field_behavior="ignore"),
            )
        except pa.ArrowInvalid:
            table = None
        if table is None or table.num_rows != len(lines):
            yield self._line_by_line(lines) if lines else (self._schema.empty_table(), {})
            return
        for batch in table.combine_chunks().to_batches(BATCH):
            yield batch, {}

    def _line_by_line(self, lines: list[bytes]) -> tuple[Any, dict[int, Problem]]:
        rows: list[Any] = []
        unreadable = {}
        for place, line in enumerate(lines):
            try:
                rows.append(loads(line))
            except ValueError as error:
                unreadable[place] = Problem("unreadable", f"it is not JSON ({error})")
                rows.append({})
        table, broken = from_objects(rows, self._schema)
        return table, {**broken, **unreadable}


class _Json(_Sequential):
    """A ``.json`` file: one list of rows, or else JSON lines."""

    def _tables(self, path: str) -> Iterator[tuple[Any, dict[int, Problem]]]:
        with self._open(path) as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start.startswith(b"["):
            lines = _JsonLines(self._filesystem, [path], self._schema, self._required)
            yield from lines._tables(path)
            return
        with self._open(path) as file:
            text = file.read(_LARGEST_DOCUMENT + 1)
        if len(text) > _LARGEST_DOCUMENT:
            raise DatasetError(
                f"{path} is one JSON document of more than {_LARGEST_DOCUMENT >> 20} MB.",
                where="dataset.path",
                remedy="Write it as JSON lines: one row a line.",
            )
        rows = loads(text.removeprefix(b"\xef\xbb\xbf"))
        self._require_keys(rows[:_LOOKED_AT])
        for start_of in range(0, len(rows), BATCH):
            yield from_objects(rows[start_of : start_of + BATCH], self._schema)


class _Csv(_Sequential):
    delimiter: ClassVar[str] = ","

    def _tables(self, path: str) -> Iterator[tuple[Any, dict[int, Problem]]]:
        skipped: list[Any] = []

        def skip(row: Any) -> str:
            skipped.append(row)
            return "skip"

        read = pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK)
        parse = pyarrow.csv.ParseOptions(
            delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=skip
        )
        with self._open(path) as file:
            names = self._names(pyarrow.csv.open_csv(file, read, parse).schema.names)
        # All as text: "1" is no number in a conversation. Bad encoding is found row by row later.
        convert = pyarrow.csv.ConvertOptions(
            check_utf8=False,
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
        )
        skipped.clear()
        start = 0
        with self._open(path) as file:
            for table in pyarrow.csv.open_csv(file, read, parse, convert):
                with_skipped, broken = put_back(table, skipped, start)
                skipped.clear()
                start += with_skipped.num_rows
                yield with_skipped, broken
        if skipped:
            yield put_back(table.slice(0, 0), skipped, start)


class _Tsv(_Csv):
    delimiter = "\t"


class _Arrow(_Sequential):
    """Arrow files, as ``datasets`` keeps them, in the stream or the file format."""

    def _counts(self, path: str) -> Iterator[int]:
        # Mapped, nothing of the rows is read but how many they are.
        with self._batches(path, is_mapped=True) as (_, batches):
            yield from (batch.num_rows for batch in batches)

    def _tables(self, path: str) -> Iterator[tuple[Any, dict[int, Problem]]]:
        # Not mapped: what was read would stay in memory until all of it is.
        with self._batches(path, is_mapped=False) as (names, batches):
            for batch in batches:
                for start in range(0, batch.num_rows, BATCH):
                    yield batch.select(names).slice(start, BATCH), {}

    @contextmanager
    def _batches(self, path: str, *, is_mapped: bool) -> Iterator[tuple[list[str], Iterator[Any]]]:
        """Open a file; give the columns wanted that it has, and what it holds."""
        with ExitStack() as stack:
            if self._is_local:
                source = pa.memory_map(path) if is_mapped else pa.OSFile(path)
            else:
                source = self._filesystem.open(path, "rb")
            stack.enter_context(source)
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            reader = stack.enter_context(
                (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source)
            )
            if is_file:
                batches = map(reader.get_batch, range(reader.num_record_batches))
            else:
                batches = iter(reader)
            yield self._names(reader.schema.names), batches


_READERS: dict[str, type[Reader]] = {
    "parquet": _Parquet,
    "jsonl": _JsonLines,
    "ndjson": _JsonLines,
    "json": _Json,
    "csv": _Csv,
    "tsv": _Tsv,
    "arrow": _Arrow,
}


def _format(path: str) -> str | None:
    ending = _ENDING.search(path.lower().partition("?")[0])
    return ending[1] if ending else None


def _chosen(
    start: int, table: Any, broken: dict[int, Problem], rows: NDArray[np.int64]
) -> Batch | None:
    """Return the wanted rows of a batch whose first row has the number *start*."""
    low, high = np.searchsorted(rows, [start, start + table.num_rows])
    numbers = rows[low:high]
    if len(numbers) == 0:
        return None
    places = numbers - start
    if len(places) == places[-1] - places[0] + 1:
        chosen = table.slice(int(places[0]), len(places))
    else:
        chosen = table.take(from_numbers(places))
    moved = {place: n for n, place in enumerate(places.tolist())} if broken else {}
    return Batch(numbers, chosen, {moved[n]: why for n, why in broken.items() if n in moved})


def _lines(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line.strip()]
