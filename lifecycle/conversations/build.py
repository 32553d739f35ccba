"""The whole data step: found again if it was prepared before, else read, checked and written."""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from lifecycle.conversations import cache
from lifecycle.conversations.check import find_problems
from lifecycle.conversations.objects import Problem
from lifecycle.conversations.pipeline import Sink, ahead, taking_turns
from lifecycle.conversations.read import Batch, Reader, open_split
from lifecycle.conversations.sample import draw, wanted_rows
from lifecycle.conversations.shapes import (
    Conversations,
    conversations,
    required_columns,
    schema_of,
)
from lifecycle.conversations.source import Listing, Source, find_source, readable
from lifecycle.conversations.tokens import Tally, TokenCounter, find_counter
from lifecycle.conversations.write import WRITERS, fingerprints
from lifecycle.courtesy import courtesy
from lifecycle.dataset import DatasetResult, Progress, SplitFile, Watch, listed
from lifecycle.errors import DatasetError

if TYPE_CHECKING:
    from lifecycle.clients import WorkspaceRef
    from lifecycle.dataset import DatasetSpec

_SCHEMA_VERSION = 2
_TOLD = 10
_KEPT_EXAMPLES = 5
_LISTED = 10_000
_DROPPED = "dropped.jsonl"
_WATCH_SECONDS = 0.2
# A row as JSON is longer than its columns: quotes, escapes, names.
_JSON_OVERHEAD = 1.15
_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def prepare(
    spec: DatasetSpec, directory: Path, *, workspace: WorkspaceRef | None, watch: Watch | None
) -> DatasetResult:
    """Do what :func:`lifecycle.dataset.download_data` promises."""
    directory = directory.resolve()
    with readable(spec), _on_disk(directory):
        source = find_source(spec, directory, workspace)
        counter = find_counter(spec)
        state = source.state()
        inputs = _inputs(spec, source, state, counter)
        key = cache.key_of(inputs)
        folder = directory / f"{spec.effective_model_suffix}-{key[:16]}"
        kept = cache.find_kept(folder, key)
        if kept is None:
            directory.mkdir(parents=True, exist_ok=True)
            tell = _teller(watch, "", 0, "waiting")
            with cache.only_one(directory, key, lambda: tell(0, 0)):
                # Whoever had the lock before may have done the work.
                kept = cache.find_kept(folder, key)
                if kept is None:
                    kept = _make(spec, source, state, inputs, key, folder, counter, watch)
            cache.make_room(directory, keep=folder)
        return _result(spec, kept, folder)


@dataclass(frozen=True)
class _Plan:
    """What will be read of a split."""

    split: str
    reader: Reader
    total: int | None
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class _Written:
    """A split that was written: its file, a fingerprint of each row, and the rows left out."""

    sink: Sink
    file: SplitFile
    prints: NDArray[np.uint64]
    bad: list[dict[str, Any]]


@dataclass
class _BadRows:
    """How many bad rows a split may have, and those that it had so far.

    Args:
        split: Its name.
        most: Rows that may be dropped; None for any number.
    """

    split: str
    most: int | None
    kinds: dict[str, int] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)

    def note(self, rows: NDArray[np.int64], problems: dict[int, Problem]) -> None:
        """Take in the bad rows of a batch."""
        for place, problem in problems.items():
            self.kinds[problem.kind] = self.kinds.get(problem.kind, 0) + 1
            if len(self.listed) < _LISTED:
                row = {"split": self.split, "row": int(rows[place])}
                self.listed.append({**row, "kind": problem.kind, "problem": problem.text})

    def told(self, most: int) -> list[str]:
        """Return the first of them in words."""
        return [f"{one['split']}:{one['row']}: {one['problem']}" for one in self.listed[:most]]

    @property
    def is_exceeded(self) -> bool:
        """Say whether there were too many."""
        return self.most is not None and sum(self.kinds.values()) > self.most


def _inputs(spec: DatasetSpec, source: Source, state: Any, counter: TokenCounter) -> dict[str, Any]:
    """Return all that the files depend on, as JSON."""
    chosen = spec.model_dump(
        mode="json", exclude={"path", "revision", "short_name", "model_suffix", "tokenizer"}
    )
    return {
        "schema_version": _SCHEMA_VERSION,
        # What nothing tells apart from its later versions is never found again.
        "source": uuid.uuid4().hex if state is None else state,
        "revision": source.revision,
        **chosen,
        "tokens": [counter.method, counter.digest],
        **({"pyarrow": pa.__version__} if spec.file_format == "parquet" else {}),
    }


def _make(
    spec: DatasetSpec,
    source: Source,
    state: Any,
    inputs: dict[str, Any],
    key: str,
    folder: Path,
    counter: TokenCounter,
    watch: Watch | None,
) -> cache.Manifest:
    with cache.workshop(folder.parent, key) as built:
        manifest = cache.fetch_shared(folder.parent, key, built)
        is_new = manifest is None
        if manifest is None:
            content = _build(spec, source.listing(), folder.parent, built, counter, watch)
            if source.state() != state:
                raise DatasetError(
                    f"{spec.path} was changed while it was read.",
                    where="dataset.path",
                    remedy="Run again when nobody writes it.",
                    transient=True,
                )
            about = {"key": key, "name": spec.path, "revision": source.revision, "inputs": inputs}
            manifest = {**about, **content}
        cache.install(built, folder, manifest)
        if is_new:
            cache.share(folder, manifest)
        return manifest


def _build(
    spec: DatasetSpec,
    listing: Listing,
    directory: Path,
    built: Path,
    counter: TokenCounter,
    watch: Watch | None,
) -> dict[str, Any]:
    """Write every split into *built*, below *directory*; return what the manifest says of them."""
    _check_splits(spec, listing)
    left_out: dict[str, str] = {}
    plans = []
    for split in sorted(listing.files):
        with _of_split(spec, split, left_out):
            plans.append(_plan(spec, listing, split, watch))
    sizes = {plan.split: plan.reader.size_of(plan.rows, plan.total) for plan in plans}
    cache.require_space(directory, int(sum(sizes.values()) * _JSON_OVERHEAD))
    results: dict[str, _Written] = {}
    # The largest first: while it goes to the disk the others are written.
    for plan in sorted(plans, key=lambda plan: sizes[plan.split], reverse=True):
        path = built / f"{plan.split}.{spec.file_format}"
        with _of_split(spec, plan.split, left_out):
            results[plan.split] = _write(spec, plan, path, counter, watch)
        if plan.split in left_out:
            path.unlink(missing_ok=True)
    for one in results.values():
        one.sink.settle()
    written = {split: results[split] for split in sorted(results)}
    learned = written[spec.train_split].prints
    leaked = {
        split: int(np.isin(written[split].prints, learned).sum())
        for split in sorted(set(spec.used_splits.values()) - {spec.train_split})
    }
    files = [one.file for one in written.values()]
    return {
        "files": [{**file.model_dump(mode="json"), "path": Path(file.path).name} for file in files],
        "reports": _report_dropped(built, [row for one in written.values() for row in one.bad]),
        "leaked": {split: rows for split, rows in leaked.items() if rows},
        "left_out": left_out,
    }


def _report_dropped(built: Path, rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Write which rows were dropped and why, if any were; return what the manifest says of it."""
    if not rows:
        return []
    path = built / _DROPPED
    with Sink(path) as sink:
        sink.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    sink.settle()
    return [{"path": path.name, "sha256": sink.sha256()}]


def _check_splits(spec: DatasetSpec, listing: Listing) -> None:
    for parameter, split in spec.used_splits.items():
        if split not in listing.files:
            raise DatasetError(
                f"{spec.path} has no split {split!r}; it has {listed(listing.files)}.",
                where=f"dataset.{parameter}",
                remedy="Name one of those.",
            )


def _plan(spec: DatasetSpec, listing: Listing, split: str, watch: Watch | None) -> _Plan:
    paths = listing.files[split]
    reader = open_split(listing.filesystem, paths, schema_of(spec), required_columns(spec))
    number = spec.rows_of(split)
    if number is not None and spec.sampling == "first" and not reader.is_indexed:
        # The first rows of a file without an index: nobody has to know how many there are.
        return _Plan(split, reader, None, np.arange(number))
    tell = _teller(watch, split, 0, "counting")
    blocks = reader.blocks(lambda rows: tell(rows, 0))
    total = sum(blocks)
    wanted = wanted_rows(spec, split, total)
    if spec.sampling == "first" or wanted == total:
        return _Plan(split, reader, total, np.arange(wanted))
    return _Plan(split, reader, total, draw(spec, split, blocks, wanted))


def _write(
    spec: DatasetSpec, plan: _Plan, path: Path, counter: TokenCounter, watch: Watch | None
) -> _Written:
    """Write one split."""
    split = plan.split
    examine = _examiner(spec, split, counter)
    bad = _BadRows(split, _most_dropped(spec, plan))
    tally = Tally(counter)
    prints: list[NDArray[np.uint64]] = []
    read = written = 0
    tell = _teller(watch, split, len(plan.rows), "writing")
    reading = map(examine, plan.reader.read(plan.rows))
    with taking_turns(), Sink(path) as sink, closing(ahead(reading)) as batches:
        writer = WRITERS[spec.file_format](sink)
        for batch, lengths, problems in batches:
            read += len(batch)
            bad.note(batch.rows, problems)
            if bad.is_exceeded:
                if len(bad.listed) >= _TOLD:
                    break
                continue
            kept = [n for n in range(len(batch)) if n not in problems]
            writer.add(batch, kept)
            tally.add(lengths[kept])
            prints.append(fingerprints(batch, kept))
            written += len(kept)
            tell(read, sink.size)
        writer.close()
    tell(read, sink.size, is_last=True)
    if bad.is_exceeded:
        raise _too_many_bad(spec, bad, read, len(plan.rows))
    if not written:
        why = f"None of its rows can be used: {bad.told(1)[0]}." if read else "It is empty."
        raise DatasetError(why, where="dataset.path")
    all_prints = np.concatenate(prints)
    file = SplitFile(
        split=split,
        path=str(path),
        rows=written,
        sha256=sink.sha256(),
        bytes=sink.size,
        source_rows=plan.total,
        dropped=dict(sorted(bad.kinds.items())),
        first_dropped=bad.told(_KEPT_EXAMPLES),
        duplicates=written - len(np.unique(all_prints)),
        tokens=tally.result(),
    )
    return _Written(sink, file, all_prints, bad.listed)


def _examiner(
    spec: DatasetSpec, split: str, counter: TokenCounter
) -> Callable[[Batch], tuple[Conversations, NDArray[np.int64], dict[int, Problem]]]:
    needs_answer = split in spec.learned_splits

    def examine(rows: Batch) -> tuple[Conversations, NDArray[np.int64], dict[int, Problem]]:
        batch = conversations(rows, spec)
        lengths = counter.count(batch)
        problems = find_problems(
            batch, lengths, needs_answer=needs_answer, max_tokens=spec.max_tokens
        )
        return batch, lengths, problems

    return examine


def _most_dropped(spec: DatasetSpec, plan: _Plan) -> int | None:
    if plan.split not in spec.used_splits.values():
        return None
    if spec.invalid_rows == "fail":
        return 0
    return int(len(plan.rows) * spec.max_dropped_percentage / 100)


def _too_many_bad(spec: DatasetSpec, bad: _BadRows, read: int, asked: int) -> DatasetError:
    number = sum(bad.kinds.values())
    said = f"{number} of the first {read:,} rows" if read < asked else f"{number} of {read:,} rows"
    if spec.invalid_rows == "fail":
        remedy = "Correct them, or set dataset.invalid_rows to drop."
    else:
        said += f" (more than {spec.max_dropped_percentage:g} %)"
        remedy = "Check dataset.shape, .columns and .roles, or raise .max_dropped_percentage."
    return DatasetError(
        f"{said} cannot be used: {'; '.join(bad.told(_TOLD))}{' …' if number > _TOLD else '.'}",
        where="dataset.path",
        remedy=remedy,
    )


def _teller(
    watch: Watch | None,
    split: str,
    of_rows: int,
    doing: Literal["writing", "counting", "waiting"],
) -> Callable[..., None]:
    began = time.monotonic()
    last = 0.0

    def tell(rows: int, size: int, *, is_last: bool = False) -> None:
        nonlocal last
        now = time.monotonic()
        if watch is not None and (is_last or now - last >= _WATCH_SECONDS):
            last = now
            of = rows if is_last else of_rows
            # Whatever whoever watches raises is not the data's trouble.
            far = Progress(split, rows, of, size, now - began, doing)
            courtesy(
                "showing the progress",
                lambda: watch(far),
                otherwise=None,
                instead="The data are prepared all the same.",
            )

    return tell


@contextmanager
def _of_split(spec: DatasetSpec, split: str, left_out: dict[str, str]) -> Iterator[None]:
    """Name the split in an error; where the run does not use it, leave it out instead."""
    try:
        yield
    except DatasetError as error:
        if split in spec.used_splits.values():
            error.message = f"The split {split!r} of {spec.path}: {error.message}"
            raise
        left_out[split] = error.message


@contextmanager
def _on_disk(directory: Path) -> Iterator[None]:
    """Say in our words that the disk is full or may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_IS_FULL:
            raise cache.no_room(directory, str(error.strerror)) from error
        raise


def _result(spec: DatasetSpec, manifest: cache.Manifest, folder: Path) -> DatasetResult:
    return DatasetResult(
        name=spec.path,
        revision=manifest["revision"],
        files=[
            SplitFile.model_validate({**file, "path": str(folder / file["path"])})
            for file in manifest["files"]
        ],
        leaked=manifest["leaked"],
        left_out=manifest["left_out"],
        manifest=str(folder / cache.MANIFEST),
        dropped_rows=next((str(folder / one["path"]) for one in manifest["reports"]), None),
    )
