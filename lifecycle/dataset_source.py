"""Where the rows of a data set are, and how ``datasets`` is made to read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lifecycle.errors import DatasetError

if TYPE_CHECKING:
    from datasets import Dataset

    from lifecycle.dataset import DatasetSpec

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


@dataclass(frozen=True)
class Source:
    """Where the rows are.

    Args:
        kind: On the hub, one file per split, what ``save_to_disk`` wrote, or another folder that
            ``load_dataset`` reads.
        files: Every file of a folder: by split for ``files``, else by relative path.
        revision: The hub's commit, once :func:`pin` has found it.
    """

    kind: Literal["hub", "files", "saved", "folder"]
    files: Mapping[str, Path]
    revision: str | None = None


def find_source(spec: DatasetSpec) -> Source:
    """Say what kind of place ``dataset.path`` names, without asking the hub.

    Raises:
        DatasetError: It is no folder with files in it, and no hub id.
    """
    folder = Path(spec.path).expanduser()
    if folder.is_dir():
        return _find_in_folder(spec, folder)
    if folder.exists():
        raise DatasetError(
            f"{spec.path} is a file.",
            where="dataset.path",
            remedy="Name the folder it is in; its splits are the files' names.",
        )
    if _HUB_ID.fullmatch(spec.path):
        return Source("hub", {})
    raise DatasetError(
        f"There is no folder {spec.path}, and it is no id of a data set on the hub.",
        where="dataset.path",
    )


def pin(spec: DatasetSpec, source: Source) -> Source:
    """Find the hub's commit, so that a moving branch does not meet yesterday's files."""
    if source.kind != "hub":
        return source
    from datasets import load_dataset_builder

    builder = load_dataset_builder(spec.path, spec.config_name, revision=spec.revision)
    # Without the hub, datasets takes the newest commit that it has kept, whatever was asked for.
    is_kept_copy = type(builder).__module__.endswith("packaged_modules.cache.cache")
    if is_kept_copy and spec.revision not in (None, builder.hash):
        raise DatasetError(
            f"The Hugging Face hub cannot be reached, and of {spec.path} this machine keeps only "
            f"revision {builder.hash}.",
            where="dataset.revision",
            remedy="Check the network, or ask for that revision.",
        )
    return Source("hub", {}, revision=builder.hash)


def load(spec: DatasetSpec, source: Source, cache: Path) -> dict[str, Dataset]:
    """Load every split.

    ``datasets`` keeps an Arrow copy of what it reads. For the hub that is the user's own cache,
    worth keeping; for files that are here already it is ours, and goes when we are done. Those
    are read by ``from_json`` and its like: ``load_dataset("json", …)`` counts itself at the hub.
    """
    from datasets import Dataset, disable_progress_bars, load_dataset, load_from_disk

    disable_progress_bars()
    if source.kind == "files":
        readers = {".parquet": Dataset.from_parquet, ".csv": Dataset.from_csv}
        return {
            split: readers.get(path.suffix, Dataset.from_json)(str(path), cache_dir=str(cache))
            for split, path in source.files.items()
        }
    if source.kind == "saved":
        loaded = load_from_disk(_loadable_path(spec))
    elif source.kind == "folder":
        loaded = load_dataset(_loadable_path(spec), spec.config_name, cache_dir=str(cache))
    else:
        loaded = load_dataset(spec.path, spec.config_name, revision=source.revision)
    if isinstance(loaded, Dataset):
        return {str(loaded.split or "train"): loaded}
    return {str(split): rows for split, rows in loaded.items()}


@contextmanager
def readable(spec: DatasetSpec) -> Iterator[None]:
    """Turn whatever ``datasets`` raises into a :class:`DatasetError`.

    It raises more types than it documents (its own, pyarrow's, pandas', the HTTP client's), so
    all are caught here, and kept as the cause.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:400]
        if _is_network(error):
            from huggingface_hub.constants import HF_HUB_OFFLINE

            raise DatasetError(
                f"The Hugging Face hub could not be asked for {spec.path}: {said}",
                where="dataset.path",
                remedy="Check the network and the proxy, or name a folder on this machine.",
                transient=not HF_HUB_OFFLINE,
            ) from error
        raise DatasetError(
            f"{spec.path} could not be prepared: {type(error).__name__}: {said}",
            where="dataset.path",
        ) from error


def _find_in_folder(spec: DatasetSpec, folder: Path) -> Source:
    if spec.revision is not None:
        raise DatasetError(
            f"{spec.path} is a folder, and a folder has no revisions.",
            where="dataset.revision",
            remedy="Leave the revision out, or name a data set on the hub.",
        )
    for suffix in _SUFFIXES:
        splits = {path.stem: path for path in sorted(folder.glob(f"*{suffix}")) if path.is_file()}
        if set(spec.used_splits.values()) & set(splits):
            return Source("files", splits)
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if not files:
        raise DatasetError(f"The folder {spec.path} is empty.", where="dataset.path")
    is_saved = "dataset_dict.json" in files or {"state.json", "dataset_info.json"} <= set(files)
    return Source("saved" if is_saved else "folder", files)


def _loadable_path(spec: DatasetSpec) -> str:
    folder = Path(spec.path).expanduser()
    return str(folder) if folder.is_dir() else spec.path


def _is_network(error: BaseException | None) -> bool:
    """Say whether the hub was not reached; httpx and requests have no common ancestor."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        module = type(error).__module__.partition(".")[0]
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, ConnectionError) or (
            module.startswith(("httpx", "requests")) and not status
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
