"""What was prepared is kept: found again by digest, made once, bounded in size, shared if wished.

Each entry is a folder with its files and a manifest. It is renamed into place, so it is there whole
or not at all. A file that has not been touched since its digest was last checked is believed;
otherwise the digest is computed again. A lock file for each key, which the kernel frees when its
holder dies, lets one process do the work and the others wait.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout

from lifecycle.errors import ConfigurationError, DatasetError

MANIFEST = "manifest.json"

Manifest = dict[str, Any]

_CHECKED = ".checked"
_BUILDING = ".building-"
_LEAVING = ".leaving-"
_IN_USE_SECONDS = 3600
_DEFAULT_GB = 20.0
_SPARE_BYTES = 64 << 20
_WAIT_SECONDS = 0.2

logger = logging.getLogger(__name__)


def key_of(inputs: Manifest) -> str:
    """Return the digest of everything that the files depend on."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def find_kept(folder: Path, key: str) -> Manifest | None:
    """Return the manifest of what was prepared earlier, if it is all there and unharmed."""
    try:
        manifest: Manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["key"] != key:
            return None
        if not _is_as_checked(folder, manifest):
            for file in _held(manifest):
                if _sha256(folder / file["path"]) != file["sha256"]:
                    return None
            _note_checked(folder, manifest)
        # When it was last of use, for who makes room.
        with suppress(OSError):
            os.utime(folder / MANIFEST)
        return manifest
    except (OSError, ValueError, LookupError, TypeError):
        return None


@contextmanager
def only_one(directory: Path, key: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the key's lock; whoever has it is waited for, and *waiting* called meanwhile."""
    lock = _lock(directory, key)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
        except Timeout:
            waiting()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def workshop(directory: Path, key: str) -> Iterator[Path]:
    """Give an empty folder to build an entry in; what is left in it at the end is removed.

    To be used with the key's lock: what an earlier holder left when it was killed is removed too.
    """
    for left in directory.glob(f"{_BUILDING}{key[:16]}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=directory, prefix=f"{_BUILDING}{key[:16]}-", ignore_cleanup_errors=True
    ) as folder:
        built = Path(folder) / "entry"
        built.mkdir()
        yield built


def install(built: Path, folder: Path, manifest: Manifest) -> None:
    """Write the manifest, last, and put the entry in its place."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (built / MANIFEST).write_text(text, encoding="utf-8")
    _note_checked(built, manifest)
    for path in (built / MANIFEST, built):
        _sync(path)
    _remove(folder)
    built.rename(folder)
    _sync(folder.parent)


def require_space(directory: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for; older entries are removed first.

    Args:
        directory: The entries' folder.
        needed: Bytes, estimated.

    Raises:
        DatasetError: There is not enough room.
    """
    needed += _SPARE_BYTES
    if shutil.disk_usage(directory).free < needed:
        make_room(directory, limit=0)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise no_room(directory, f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} free")


def no_room(directory: Path, why: str) -> DatasetError:
    """Return the error that says that *directory* cannot take the data."""
    return DatasetError(
        f"There is no room for the data in {directory}: {why}.",
        where="FINETUNE_CACHE",
        remedy="Free some space, name a folder on a larger disk in FINETUNE_CACHE, or ask for "
        "fewer rows.",
    )


def make_room(directory: Path, *, limit: int | None = None, keep: Path | None = None) -> None:
    """Remove what was longest of no use, until the entries take up no more than *limit* bytes.

    What was of use within the last hour stays, since a run may be reading it. What killed runs
    left half-built goes in any case.

    Args:
        directory: The entries' folder.
        limit: Bytes; ``FINETUNE_CACHE_GB`` where not given.
        keep: An entry to keep.
    """
    _remove_leftovers(directory)
    entries = []
    for manifest in directory.glob(f"*/{MANIFEST}"):
        with suppress(OSError):
            size = sum(file.stat().st_size for file in manifest.parent.iterdir())
            entries.append((manifest.stat().st_mtime, size, manifest.parent))
    total = sum(size for _, size, _ in entries)
    bound = _limit() if limit is None else limit
    for used, size, folder in sorted(entries):
        if total <= bound or used > time.time() - _IN_USE_SECONDS:
            return
        if folder != keep:
            logger.info("Removing %s to make room: last of use long ago.", folder)
            _remove(folder)
            total -= size


def fetch_shared(directory: Path, key: str, built: Path) -> Manifest | None:
    """Fetch an entry that another machine has shared, into *built*; None if there is none.

    What comes from there is believed only if its digests are right. A store that cannot be reached
    is no reason to fail: the data is prepared here instead.
    """
    store = _shared(key)
    if store is None:
        return None
    filesystem, root = store
    try:
        manifest: Manifest = json.loads(filesystem.cat_file(f"{root}/{MANIFEST}"))
        if manifest["key"] != key:
            raise ValueError("it holds other data")
        require_space(directory, sum(file["bytes"] for file in manifest["files"]))
        for file in _held(manifest):
            filesystem.get_file(f"{root}/{file['path']}", str(built / Path(file["path"]).name))
            if _sha256(built / file["path"]) != file["sha256"]:
                raise ValueError(f"{file['path']} is damaged")
        return manifest
    except FileNotFoundError:
        return None
    except Exception as error:
        logger.warning("The shared store %s cannot be used: %s", root, error)
        for left in built.iterdir():
            left.unlink()
        return None


def share(folder: Path, manifest: Manifest) -> None:
    """Put an entry into the shared store, its manifest last; failing that, say so and go on."""
    store = _shared(manifest["key"])
    if store is None:
        return
    filesystem, root = store
    try:
        filesystem.makedirs(root, exist_ok=True)
        for name in (*(file["path"] for file in _held(manifest)), MANIFEST):
            filesystem.put_file(str(folder / name), f"{root}/{name}")
    except Exception as error:
        logger.warning("The data could not be put into the shared store %s: %s", root, error)


def _held(manifest: Manifest) -> list[dict[str, Any]]:
    """Return all that the manifest gives a digest of."""
    return [*manifest["files"], *manifest["reports"]]


def _shared(key: str) -> tuple[Any, str] | None:
    address = os.environ.get("FINETUNE_SHARED_CACHE")
    if not address:
        return None
    filesystem, root = fsspec.core.url_to_fs(address)
    return filesystem, f"{root.rstrip('/')}/{key}"


def _limit() -> int:
    named = os.environ.get("FINETUNE_CACHE_GB")
    try:
        return int(float(named or _DEFAULT_GB) * 1e9)
    except ValueError as error:
        raise ConfigurationError(
            f"{named!r} is no number of gigabytes.", where="FINETUNE_CACHE_GB"
        ) from error


def _is_as_checked(folder: Path, manifest: Manifest) -> bool:
    try:
        checked = json.loads((folder / _CHECKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(checked == _stats(folder, manifest))


def _note_checked(folder: Path, manifest: Manifest) -> None:
    # Without it the digests are computed the next time, which is all that it saves.
    with suppress(OSError):
        (folder / _CHECKED).write_text(json.dumps(_stats(folder, manifest)), encoding="utf-8")


def _stats(folder: Path, manifest: Manifest) -> dict[str, list[int]]:
    stats = {file["path"]: (folder / file["path"]).stat() for file in _held(manifest)}
    return {
        name: [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        for name, stat in stats.items()
    }


def _remove_leftovers(directory: Path) -> None:
    for left in directory.glob(f"{_LEAVING}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in directory.glob(f"{_BUILDING}*"):
        lock = _lock(directory, left.name.removeprefix(_BUILDING))
        with suppress(Timeout), lock.acquire(timeout=0):
            shutil.rmtree(left, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Take an entry away at once, then remove it: nobody sees half of it."""
    leaving = folder.parent / f"{_LEAVING}{time.time_ns():x}-{folder.name}"
    try:
        folder.rename(leaving)
    except FileNotFoundError:
        return
    shutil.rmtree(leaving, ignore_errors=True)


def _lock(directory: Path, key: str) -> FileLock:
    locks = directory / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{key[:16]}.lock", thread_local=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
