"""The Hugging Face hub: a revision resolved to a commit, and that commit's files by split."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from lifecycle.conversations.source import Listing, Source, is_network
from lifecycle.errors import DatasetError

if TYPE_CHECKING:
    from lifecycle.dataset import DatasetSpec

logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")


def find_on_hub(spec: DatasetSpec, directory: Path) -> Source:
    """Find the commit that ``dataset.revision`` names; the files are listed when they are needed.

    A branch or tag is resolved once, and what it was is remembered in *directory*: without the hub
    it stands for that commit.

    Raises:
        DatasetError: The hub has no such data set or revision, or cannot be reached and the commit
            is not remembered.
    """
    commit = _resolve(spec, directory / ".commits")
    state = ["hub", spec.path, spec.config_name, commit]
    return Source(commit, lambda: state, lambda: built_files(spec, spec.path, commit))


def built_files(spec: DatasetSpec, path: str, commit: str | None = None) -> Listing:
    """Ask ``datasets`` which files hold which split; nothing is loaded.

    Args:
        spec: What is asked for.
        path: A hub id, or a folder laid out as a repository of the hub.
        commit: Of the hub.
    """
    from datasets import load_dataset_builder

    builder = load_dataset_builder(path, spec.config_name, revision=commit)
    if type(builder).__module__.endswith("packaged_modules.cache.cache"):
        return _kept_by_datasets(spec, commit, builder)
    found = builder.config.data_files
    if not found:
        raise DatasetError(
            f"{spec.path} is no data set of files, which is all that is read.", where="dataset.path"
        )
    files = {str(split): tuple(str(file) for file in several) for split, several in found.items()}
    filesystem, _ = fsspec.core.url_to_fs(next(iter(files.values()))[0])
    stripped = {
        split: tuple(filesystem._strip_protocol(path) for path in paths)
        for split, paths in files.items()
    }
    return Listing(filesystem, stripped)


def _resolve(spec: DatasetSpec, remembered: Path) -> str:
    from huggingface_hub import HfApi

    if spec.revision is not None and _COMMIT.fullmatch(spec.revision):
        return spec.revision
    name = hashlib.sha256(f"{spec.path}@{spec.revision}".encode()).hexdigest()
    note = remembered / name[:32]
    try:
        commit = HfApi().dataset_info(spec.path, revision=spec.revision).sha
    except Exception as error:
        if not is_network(error):
            raise
        if not note.exists():
            return _commit_kept_by_datasets(spec, error)
        commit = note.read_text(encoding="utf-8")
        logger.warning(
            "The hub cannot be reached; %s of %s was %s when it last was.",
            spec.revision or "the newest revision",
            spec.path,
            commit,
        )
        return commit
    if commit is None:
        raise DatasetError(f"The hub names no commit of {spec.path}.", where="dataset.path")
    remembered.mkdir(parents=True, exist_ok=True)
    note.write_text(commit, encoding="utf-8")
    return commit


def _commit_kept_by_datasets(spec: DatasetSpec, unreachable: Exception) -> str:
    """Return the commit of the copy that ``datasets`` made on this machine at another time."""
    from datasets import load_dataset_builder

    if spec.revision is not None:
        raise unreachable
    builder = load_dataset_builder(spec.path, spec.config_name)
    return str(builder.hash)


def _kept_by_datasets(spec: DatasetSpec, commit: str | None, builder: Any) -> Listing:
    if commit != builder.hash:
        raise DatasetError(
            f"The Hugging Face hub cannot be reached, and of {spec.path} this machine keeps only "
            f"revision {builder.hash}.",
            where="dataset.revision",
            remedy="Check the network, or ask for that revision.",
        )
    files = {
        str(split): tuple(str(file["filename"]) for file in rows.cache_files)
        for split, rows in builder.as_dataset().items()
    }
    return Listing(fsspec.filesystem("file"), files)
