"""Where the rows of a data set are: which files hold which split, and which state they are in."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from lifecycle.errors import DatasetError, FinetuneError

if TYPE_CHECKING:
    from lifecycle.clients import WorkspaceRef
    from lifecycle.dataset import DatasetSpec

SPLIT = "{split}"

_FORMATS = ("jsonl", "ndjson", "json", "parquet", "csv", "tsv", "arrow")
_FILE = re.compile(
    rf"(?P<split>.+?)(-\d{{5}}-of-\d{{5}})?\.(?P<format>{'|'.join(_FORMATS)})(\.(gz|bz2|xz|zst))?"
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_READ_TO_TELL_APART = 64 << 20
_STATES = ("ETag", "etag", "Content-MD5", "checksum", "Last-Modified", "LastModified", "mtime")


@dataclass(frozen=True)
class Listing:
    """The files of each split, in order, and how they are opened."""

    filesystem: Any
    files: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Source:
    """A data set that was found.

    Args:
        revision: The hub's commit, or the version of a data asset; None for files.
        state: Gives what changes when the rows do, as JSON; None where nothing tells.
        listing: Gives the files. Asked only when they are needed: of the hub it takes seconds.
    """

    revision: str | None
    state: Callable[[], Any]
    listing: Callable[[], Listing]


def find_source(spec: DatasetSpec, directory: Path, workspace: WorkspaceRef | None) -> Source:
    """Find what ``dataset.path`` names, and of the hub the commit; no rows are read.

    Args:
        spec: What is asked for.
        directory: Where the hub's commits are remembered.
        workspace: Needed for its data assets and storage.

    Raises:
        DatasetError: There is nothing of that name, or nothing in it that is read.
    """
    path = spec.path
    is_on_hub = False
    if path.startswith("azureml:") or "://" in path:
        from lifecycle.conversations.remote import find_remote

        source = find_remote(spec, workspace)
    elif SPLIT in path or Path(path).expanduser().exists():
        source = _find_here(spec, Path(path).expanduser())
    elif _HUB_ID.fullmatch(path):
        from lifecycle.conversations.hub import find_on_hub

        source, is_on_hub = find_on_hub(spec, directory), True
    else:
        raise DatasetError(
            f"There is no folder {path}, and it is no id of a data set on the hub.",
            where="dataset.path",
        )
    if spec.revision is not None and not is_on_hub:
        raise DatasetError(
            f"{path} is not on the hub, and has no revisions.",
            where="dataset.revision",
            remedy="Leave the revision out, or name a data set on the hub.",
        )
    return source


def of_files(spec: DatasetSpec, filesystem: Any, root: str, revision: str | None = None) -> Source:
    """Return the source that the files below *root*, or those that it names, are.

    Args:
        spec: What is asked for.
        filesystem: Any of fsspec's.
        root: A folder, or an address with ``{split}`` in it.
        revision: Of the files, where they have one.
    """
    if SPLIT in root:
        files = _by_template(spec, filesystem, root)
    elif filesystem.isfile(root):
        files = _by_file(root)
    else:
        files = _by_name(spec, filesystem, root) or _saved(filesystem, root) or {}
    if not files:
        raise DatasetError(
            f"{spec.path} holds no file named for a split that the run uses, such as "
            f"{spec.train_split}.parquet.",
            where="dataset.path",
            remedy=f"Name the files in dataset.path, with {SPLIT} in place of the split's name.",
        )
    listing = Listing(filesystem, files)
    paths = [path for several in files.values() for path in several]
    return Source(revision, lambda: _state(filesystem, paths), lambda: listing)


@contextmanager
def readable(spec: DatasetSpec) -> Iterator[None]:
    """Turn whatever the libraries raise into an error of ours, mostly a :class:`DatasetError`.

    They raise more types than they document (their own, pyarrow's, the HTTP clients'), so all are
    caught here, and kept as the cause.
    """
    try:
        yield
    except FinetuneError:
        raise
    except Exception as error:
        if type(error).__module__.startswith("azure."):
            from lifecycle.azure import translated

            with translated(f"reading {spec.path}", where="dataset.path"):
                raise
        said = " ".join(str(error).split())[:400]
        if is_network(error):
            from huggingface_hub.constants import HF_HUB_OFFLINE

            is_hub = _HUB_ID.fullmatch(spec.path)
            asked = "The Hugging Face hub could not be asked for" if is_hub else "No answer from"
            raise DatasetError(
                f"{asked} {spec.path}: {said}",
                where="dataset.path",
                remedy="Check the network and the proxy, or name a folder on this machine.",
                transient=not HF_HUB_OFFLINE,
            ) from error
        raise DatasetError(
            f"{spec.path} could not be prepared: {type(error).__name__}: {said}",
            where="dataset.path",
        ) from error


def is_network(error: BaseException | None) -> bool:
    """Say whether nobody was reached; the HTTP clients' errors have no common ancestor."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        module = type(error).__module__.partition(".")[0]
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, ConnectionError | TimeoutError) or (
            module.startswith(("httpx", "requests", "aiohttp"))
            and not (status or getattr(error, "status", None))
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _find_here(spec: DatasetSpec, path: Path) -> Source:
    filesystem = fsspec.filesystem("file")
    if SPLIT in spec.path:
        return of_files(spec, filesystem, str(path.absolute()))
    if not path.is_dir():
        raise DatasetError(
            f"{spec.path} is a file.",
            where="dataset.path",
            remedy=f"Name the folder it is in, or put {SPLIT} in place of its split's name.",
        )
    root = str(path.resolve())
    files = _by_name(spec, filesystem, root) or _saved(filesystem, root)
    if files:
        return of_files(spec, filesystem, root)
    everything = sorted(str(file) for file in Path(root).rglob("*") if file.is_file())
    if not everything:
        raise DatasetError(f"The folder {spec.path} is empty.", where="dataset.path")

    def listing() -> Listing:
        from lifecycle.conversations.hub import built_files

        return built_files(spec, root)

    return Source(None, lambda: _state(filesystem, everything), listing)


def _by_template(spec: DatasetSpec, filesystem: Any, template: str) -> dict[str, tuple[str, ...]]:
    files = {}
    for split in set(spec.used_splits.values()):
        address = template.replace(SPLIT, split)
        found = filesystem.glob(address) if re.search(r"[*?\[]", address) else [address]
        if found and all(_is_there(filesystem, path) for path in found):
            files[split] = tuple(sorted(found))
    return files


def _is_there(filesystem: Any, path: str) -> bool:
    # Not exists(), which fetches the whole file over HTTP.
    try:
        filesystem.info(path)
    except FileNotFoundError:
        return False
    return True


def _by_file(path: str) -> dict[str, tuple[str, ...]]:
    name = _FILE.fullmatch(path.rpartition("/")[-1])
    return {name["split"]: (path,)} if name else {}


def _by_name(spec: DatasetSpec, filesystem: Any, root: str) -> dict[str, tuple[str, ...]] | None:
    """Find files named for their splits, in the folder or in its folder ``data``."""
    for folder in (root, f"{root.rstrip('/')}/data"):
        by_format: dict[str, dict[str, list[str]]] = {}
        for path in sorted(_files_in(filesystem, folder)):
            name = _FILE.fullmatch(path.rpartition("/")[-1])
            if name:
                by_format.setdefault(name["format"], {}).setdefault(name["split"], []).append(path)
        for form in _FORMATS:
            splits = by_format.get(form, {})
            if set(spec.used_splits.values()) & set(splits):
                return {split: tuple(paths) for split, paths in splits.items()}
    return None


def _saved(filesystem: Any, root: str) -> dict[str, tuple[str, ...]] | None:
    """Find the files of what ``save_to_disk`` wrote: a ``Dataset`` or a ``DatasetDict``."""
    index = _json(filesystem, f"{root}/dataset_dict.json")
    if index is not None:
        found = {split: _saved(filesystem, f"{root}/{split}") for split in index["splits"]}
        return {split: next(iter(files.values())) for split, files in found.items() if files}
    state = _json(filesystem, f"{root}/state.json")
    if state is None or "_data_files" not in state:
        return None
    files = tuple(f"{root}/{file['filename']}" for file in state["_data_files"])
    return {state.get("_split") or "train": files}


def _files_in(filesystem: Any, folder: str) -> Iterable[str]:
    try:
        entries = filesystem.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry["name"] for entry in entries if entry["type"] == "file"]


def _json(filesystem: Any, path: str) -> Any:
    try:
        return json.loads(filesystem.cat_file(path))
    except FileNotFoundError:
        return None


def _state(filesystem: Any, paths: list[str]) -> Any:
    """Return what changes when the files do: their content where that is read at once."""
    infos = [filesystem.info(path) for path in paths]
    if "file" in filesystem.protocol:
        if sum(info["size"] for info in infos) <= _READ_TO_TELL_APART:
            return [[_name(paths, path), _sha256(path)] for path in paths]
        # As git does. The time of the last change of the inode is no program's to set.
        stats = [Path(path).stat() for path in paths]
        return [
            [path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            for path, stat in zip(paths, stats, strict=True)
        ]
    states = []
    for path, info in zip(paths, infos, strict=True):
        told = [str(info[name]) for name in _STATES if info.get(name)]
        if not told:
            return None
        states.append([path, info.get("size"), told[0]])
    return states


def _name(paths: list[str], path: str) -> str:
    """Return the path below the folder that all have in common."""
    folder = Path(paths[0]).parent
    while not all(Path(one).is_relative_to(folder) for one in paths):
        folder = folder.parent
    return Path(path).relative_to(folder).as_posix()


def _sha256(path: str) -> str:
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
