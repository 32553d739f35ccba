"""The conversations to train on: any data set that ``datasets`` reads, as JSON lines on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lifecycle.dataset_source import Source, find_source, load, pin, readable
from lifecycle.errors import DatasetError
from lifecycle.plain import Result, Spec

if TYPE_CHECKING:
    from datasets import Dataset

MANIFEST = "manifest.json"

_FORMAT = 1
_SPLIT = r"^\w+([.-]\w+)*$"


class DatasetSpec(Spec):
    """Which data set, how much of it, and which of its splits serve for what."""

    path: str = Field(
        default="HuggingFaceH4/ultrachat_200k",
        min_length=1,
        title="Data set",
        description=(
            "Id of a data set on the Hugging Face hub, or a folder: one file per split "
            "(train_sft.jsonl, .json, .parquet or .csv), what save_to_disk wrote, or anything "
            "else that datasets.load_dataset reads."
        ),
        examples=["HuggingFaceH4/ultrachat_200k", "./data"],
    )
    config_name: str | None = Field(
        default=None,
        title="Configuration",
        description="Configuration (subset) of the data set, where it has several.",
        examples=["default"],
    )
    revision: str | None = Field(
        default=None,
        title="Revision",
        description="Branch, tag or commit of a data set on the hub; the newest if not given.",
        examples=["main"],
    )
    percentage: float = Field(
        default=5,
        gt=0,
        le=100,
        title="Percentage",
        description="How much of each split to use, from its beginning; at least one row.",
        examples=[5],
    )
    train_split: str = Field(
        default="train_sft",
        pattern=_SPLIT,
        title="Training split",
        description="Split to train on.",
        examples=["train_sft"],
    )
    validation_split: str | None = Field(
        default=None,
        pattern=_SPLIT,
        title="Validation split",
        description="Split to validate on; without one the job takes 20 % of the training split.",
        examples=["validation_sft"],
    )
    test_split: str = Field(
        default="test_sft",
        pattern=_SPLIT,
        title="Test split",
        description="Split that the job tests on.",
        examples=["test_sft"],
    )
    generation_split: str | None = Field(
        default="test_gen",
        pattern=_SPLIT,
        title="Generation split",
        description="Split whose rows the endpoint is asked; the test split if not given.",
        examples=["test_gen"],
    )
    short_name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        title="Short name",
        description="The data set's name in the job's display name; from the path if not given.",
        examples=["ultrachat"],
    )
    model_suffix: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        title="Model suffix",
        description="What is added to the model's name to register it; from the path if not given.",
        examples=["ultrachat-200k"],
    )

    @property
    def effective_short_name(self) -> str:
        """``short_name``, or the path's last part without its size: ``ultrachat``."""
        return self.short_name or re.sub(r"(?i)[-_]\d+[kmb]?$", "", self._stem)

    @property
    def effective_model_suffix(self) -> str:
        """``model_suffix``, or the path's last part with dashes: ``ultrachat-200k``."""
        return self.model_suffix or self._stem.replace("_", "-")

    @property
    def effective_generation_split(self) -> str:
        """``generation_split``, or the test split."""
        return self.generation_split or self.test_split

    @property
    def used_splits(self) -> dict[str, str]:
        """The splits that the run uses, by the parameter that names each."""
        named = {
            "train_split": self.train_split,
            "validation_split": self.validation_split,
            "test_split": self.test_split,
            "generation_split": self.generation_split,
        }
        return {parameter: split for parameter, split in named.items() if split is not None}

    @property
    def _stem(self) -> str:
        last = self.path.rstrip("/").rpartition("/")[-1]
        if last in ("", ".", "..", "~"):
            last = Path(self.path).expanduser().resolve().name
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-._") or "data"


class SplitFile(Result):
    """One split, written as JSON lines."""

    split: str = Field(title="Split", description="Name of the split.", examples=["train_sft"])
    path: str = Field(
        title="File",
        description="Absolute path of the JSON lines file.",
        examples=["/data/train_sft.jsonl"],
    )
    rows: int = Field(ge=0, title="Rows", description="Number of rows written.", examples=[10393])
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", title="SHA-256", description="Digest of the file, hexadecimal."
    )


class DatasetResult(Result):
    """Where the data set came from, and a file for each of its splits."""

    name: str = Field(
        title="Data set",
        description="Hub id or path, as asked for.",
        examples=["HuggingFaceH4/ultrachat_200k"],
    )
    revision: str | None = Field(
        title="Revision",
        description="Commit of the data set on the hub; none for a folder.",
        examples=["8049631c405ae6576f93f445c6b8166f76f5505a"],
    )
    files: list[SplitFile] = Field(
        title="Files", description="One file for each split of the source, by name."
    )

    def file(self, split: str) -> SplitFile:
        """Return the file of ``split``.

        Raises:
            DatasetError: There is no such split.
        """
        for found in self.files:
            if found.split == split:
                return found
        raise DatasetError(
            f"{self.name} has no split {split!r}; it has {_listed(f.split for f in self.files)}.",
            where="dataset",
        )


def download_data(spec: DatasetSpec, directory: Path) -> DatasetResult:
    """Write the first ``percentage`` percent of every split as ``<split>.jsonl``.

    Rounded as ``datasets`` rounds ``split[0%:5%]``, with one row at least. Equal inputs give
    equal bytes, in a folder of their own below ``directory`` which is used again as long as its
    digests are right. It appears whole or not at all.

    Args:
        spec: What to read.
        directory: Where to write; made if it is not there.

    Returns:
        A file for each split of the source, and the commit that the hub gave.

    Raises:
        DatasetError: No such folder or hub id, the hub cannot be reached, the folder holds
            nothing that ``datasets`` reads, a split is missing, or a row of a split that the run
            uses has no ``messages``: a list of ``{"role": …, "content": …}``.
    """
    source = find_source(spec)
    with readable(spec):
        source = pin(spec, source)
        key = _key(spec, source)
        folder = directory.resolve() / f"{spec.effective_model_suffix}-{key[:16]}"
        kept = _kept(folder, key)
        return kept if kept is not None else _build(spec, source, key, folder)


def data_directory() -> Path:
    """Return where data sets are kept: in ``FINETUNE_CACHE``, else in the user's cache folder."""
    named = os.environ.get("FINETUNE_CACHE")
    if named:
        return Path(named) / "datasets"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "azureml-finetune-flows" / "datasets"


def preview(result: DatasetResult, rows: int = 3) -> str:
    """Show the first rows of each split as a pandas table, cut to a page's width.

    Args:
        result: What :func:`download_data` returned.
        rows: Rows of each split, at least 1.
    """
    import pandas

    tables = []
    for file in result.files:
        with open(file.path, encoding="utf-8") as lines:
            first = [json.loads(line) for _, line in zip(range(rows), lines, strict=False)]
        table = pandas.DataFrame(first).to_string(index=False, max_colwidth=60)
        tables.append(f"{file.split}: {file.rows} rows\n{table if first else '(empty)'}")
    return "\n\n".join(tables)


def _check_splits(spec: DatasetSpec, names: Iterable[str]) -> None:
    found = sorted(names)
    for parameter, split in spec.used_splits.items():
        if split not in found:
            raise DatasetError(
                f"{spec.path} has no split {split!r}; it has {_listed(found)}.",
                where=f"dataset.{parameter}",
                remedy="Name one of those.",
            )


def _build(spec: DatasetSpec, source: Source, key: str, folder: Path) -> DatasetResult:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as workshop:
        splits = load(spec, source, cache=Path(workshop) / "cache")
        _check_splits(spec, splits)
        built = Path(workshop) / "built"
        built.mkdir()
        files = [
            _write(spec, name, splits[name], built / f"{name}.jsonl") for name in sorted(splits)
        ]
        _write_manifest(spec, source, key, files, built / MANIFEST)
        return _install(built, folder, key)


def _key(spec: DatasetSpec, source: Source) -> str:
    """Digest everything that the files depend on."""
    contents = {name: _sha256(path) for name, path in sorted(source.files.items())}
    inputs = [
        _FORMAT,
        spec.path,
        contents,
        source.revision,
        spec.config_name,
        spec.percentage,
        spec.used_splits,
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _write(spec: DatasetSpec, split: str, rows: Dataset, path: Path) -> SplitFile:
    used = split in spec.used_splits.values()
    if used and "messages" not in rows.column_names:
        raise DatasetError(
            f"The split {split!r} of {spec.path} has no column `messages`; it has "
            f"{_listed(rows.column_names)}.",
            where="dataset.path",
            remedy='Each row needs messages: a list of {"role": …, "content": …}.',
        )
    if used and rows.num_rows == 0:
        raise DatasetError(f"The split {split!r} of {spec.path} is empty.", where="dataset.path")
    wanted = min(rows.num_rows, max(1, round(rows.num_rows * spec.percentage / 100)))
    digest = hashlib.sha256()
    with path.open("wb") as out:
        for number, row in enumerate(rows.select(range(wanted))):
            line = _line(spec, split, number, row, used)
            digest.update(line)
            out.write(line)
    return SplitFile(split=split, path=str(path), rows=wanted, sha256=digest.hexdigest())


def _line(spec: DatasetSpec, split: str, number: int, row: dict[str, Any], used: bool) -> bytes:
    try:
        if used:
            row = {**row, "messages": _messages(row["messages"])}
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"Row {number} of the split {split!r} of {spec.path} cannot be used: {error}.",
            where="dataset.path",
            remedy='Each row needs messages: a list of {"role": …, "content": …}, and JSON values.',
        ) from error
    return text.encode() + b"\n"


def _messages(value: Any) -> list[dict[str, Any]]:
    """Check one conversation; a CSV file holds it as JSON text, Arrow fills gaps with nulls."""
    messages = json.loads(value) if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        raise ValueError("its messages are no list, or an empty one")
    for message in messages:
        if not isinstance(message, dict):
            raise ValueError("one of its messages is no object")
        for name in ("role", "content"):
            if not isinstance(message.get(name), str):
                raise ValueError(f"one of its messages has no {name}")
    return [
        {name: held for name, held in message.items() if held is not None} for message in messages
    ]


def _write_manifest(
    spec: DatasetSpec, source: Source, key: str, files: list[SplitFile], path: Path
) -> None:
    result = DatasetResult(name=spec.path, revision=source.revision, files=files)
    content = result.model_dump(mode="json")
    for file in content["files"]:
        file["path"] = Path(file["path"]).name
    path.write_text(json.dumps({"key": key, **content}, indent=2) + "\n", encoding="utf-8")


def _kept(folder: Path, key: str) -> DatasetResult | None:
    """Return what an earlier call wrote, if it is all there and unharmed."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if content.pop("key") != key:
            return None
        for file in content["files"]:
            path = folder / file["path"]
            if _sha256(path) != file["sha256"]:
                return None
            file["path"] = str(path)
        return DatasetResult.model_validate(content)
    except (OSError, ValueError, LookupError):
        return None


def _install(built: Path, folder: Path, key: str) -> DatasetResult:
    """Put the new folder in its place, unless a run beside ours was first with the same files."""
    kept = _kept(folder, key)
    if kept is not None:
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    failure = None
    try:
        os.rename(built, folder)
    except OSError as error:
        failure = error
    kept = _kept(folder, key)
    if kept is None:
        raise DatasetError(
            f"{folder} could not be written: {failure}.",
            where="dataset.path",
            remedy="Check the folder's permissions and the space on the disk.",
        ) from failure
    return kept


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
