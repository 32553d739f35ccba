"""Kept data: made once, never believed when harmed, bounded, shared, and whole or not there."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lifecycle.conversations import cache
from lifecycle.dataset import DatasetResult, DatasetSpec, Progress, download_data
from lifecycle.errors import ConfigurationError, DatasetError

from .conftest import rows_of, turns, write_lines

Prepare = Callable[..., DatasetResult]

PROGRAM = """
    import sys, time
    from pathlib import Path
    from lifecycle.dataset import DatasetSpec, download_data

    def watch(progress):
        print(progress.doing, flush=True)
        if progress.doing == sys.argv[4]:
            time.sleep(float(sys.argv[3]))

    spec = DatasetSpec(path=sys.argv[1], percentage=100, train_split="train", test_split="train",
                       generation_split=None)
    result = download_data(spec, Path(sys.argv[2]), watch=watch)
    print(result.file("train").sha256)
"""


SMALL = """
    import os, sys, time
    from pathlib import Path
    from lifecycle.dataset import DatasetSpec, download_data
    from lifecycle.errors import DatasetError

    out = Path(sys.argv[2])

    def prepare(percentage):
        spec = DatasetSpec(path=sys.argv[1], percentage=percentage, train_split="train",
                           test_split="train", generation_split=None)
        try:
            said = f"{download_data(spec, out).file('train').rows} rows"
        except DatasetError as error:
            said = str(error)
        kept = [path for path in out.iterdir() if path.name != ".locks"]
        print(f"{said}, {len(kept)} kept")
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with two thousand conversations."""
    path = tmp_path / "source" / "train.jsonl"
    return write_lines(path, [{"messages": turns(n)} for n in range(2000)]).parent


def start(
    source: Path, out: Path, seconds: float, *, within: str = "", at: str = "writing"
) -> subprocess.Popen[str]:
    """Prepare it in a process of its own that waits after each report of progress of a kind.

    Args:
        source: The data.
        out: Where it is kept.
        seconds: How long to wait.
        within: What the shell is told before.
        at: Of which kind.
    """
    words = [str(source), str(out), str(seconds), at]
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), *words]
    return subprocess.Popen(
        ["/bin/sh", "-c", f'{within}exec "$@"', "sh", *program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def entries(out: Path) -> list[Path]:
    """What is kept, and what should not be."""
    return sorted(path for path in out.iterdir() if path.name not in (".locks", ".commits"))


def test_two_processes_at_once_do_the_work_once(source: Path, tmp_path: Path) -> None:
    """The second waits for the first and takes what it made."""
    both = [start(source, tmp_path / "out", 0.5) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in both]

    assert 1 == sum("writing" in output for output in outputs)
    assert 1 == sum("waiting" in output for output in outputs)
    assert 1 == len({output[-1] for output in outputs})
    assert 1 == len(entries(tmp_path / "out"))


@pytest.mark.parametrize("at", ["counting", "writing"])
def test_killed_in_the_middle_the_next_run_starts_cleanly(
    at: str, source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    """What a SIGKILL leaves is never taken for data, and is gone after the next run."""
    killed = start(source, tmp_path / "out", 60, at=at)
    assert killed.stdout is not None
    assert any(f"{at}\n" == line for line in iter(killed.stdout.readline, ""))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    left = entries(tmp_path / "out")

    result = prepare(source)

    assert [".building"] == [path.name.partition("-")[0] for path in left]
    assert [Path(result.file("train").path).parent] == entries(tmp_path / "out")
    assert [turns(n) for n in range(2000)] == rows_of(result)


@pytest.mark.parametrize("doing", ["counting", "waiting"])
def test_asked_to_stop_it_stops_before_it_writes(
    doing: str, source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    """Also while rows are counted, and while another run has the lock."""
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.doing == doing:
            raise KeyboardInterrupt

    spec = DatasetSpec(
        path=str(source),
        percentage=100,
        train_split="train",
        test_split="train",
        generation_split=None,
    )
    busy = start(source, tmp_path / "out", 60) if doing == "waiting" else None
    if busy is not None:
        assert busy.stdout is not None
        assert any("writing" in line for line in iter(busy.stdout.readline, ""))
    with pytest.raises(KeyboardInterrupt):
        download_data(spec, tmp_path / "out", watch=stop)
    if busy is not None:
        busy.kill()
        busy.communicate()

    assert [doing] == [progress.doing for progress in seen]
    assert str(seen[0]) in {
        "counting train: 2,000 rows so far",
        "waiting for another run that prepares the same data, 0 s so far",
    }
    assert 2000 == prepare(source).file("train").rows


def test_a_full_disk_is_told_and_leaves_nothing(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    """The kernel's refusal to write on: here the largest size of a file; then room is made."""
    process = start(source, tmp_path / "out", 0, within="trap '' XFSZ; ulimit -f 100; ")
    _, said = process.communicate(timeout=60)

    assert "DatasetError: FINETUNE_CACHE: There is no room for the data" in said
    assert [] == entries(tmp_path / "out")
    assert 2000 == prepare(source).file("train").rows


def test_interrupted_by_a_person_it_stops_at_once_and_leaves_nothing(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    """What the watcher raises, as a run does that was asked to stop, ends the work."""
    threads = threading.active_count()

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    spec = DatasetSpec(
        path=str(source), train_split="train", test_split="train", generation_split=None
    )
    with pytest.raises(KeyboardInterrupt):
        download_data(spec, tmp_path / "out", watch=stop)

    assert [] == entries(tmp_path / "out")
    assert threads == threading.active_count()
    assert 2000 == prepare(source).file("train").rows


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """Hours of reading do not end with a full disk."""
    with pytest.raises(DatasetError, match=r"1,000,000,067 MB are needed and") as full:
        cache.require_space(tmp_path, 10**15)

    assert "FINETUNE_CACHE" == full.value.where


def on_small_disk(folder: Path, size: int, program: str, *words: Path) -> list[str]:
    """Run a program with *folder* on a disk of so many bytes; return the lines that it prints."""
    folder.mkdir()
    disk = f'mount -t tmpfs -o size={size} none "$1" && exec "${{@:2}}"'
    if shutil.which("unshare") is None:
        pytest.skip("only Linux lends a user a disk")
    shell = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", disk, "bash", folder]
    done = subprocess.run(
        [*shell, sys.executable, "-c", textwrap.dedent(SMALL + program), *words, folder],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"this machine lends no disk: {done.stderr}")
    return done.stdout.splitlines()


def test_older_entries_go_where_the_disk_has_no_room(tmp_path: Path) -> None:
    """It is known before anything is written; what was of use in the last hour is not touched."""
    rows = [{"messages": turns(n)} for n in range(20_000)]
    file = write_lines(tmp_path / "source" / "train.jsonl", rows)
    program = """
    prepare(100)
    os.utime(next(out.glob("*/manifest.json")), (time.time() - 7200,) * 2)
    prepare(99)
    prepare(98)
    """

    room = cache._SPARE_BYTES + file.stat().st_size * 7 // 4
    said = on_small_disk(tmp_path / "small", room, program, file.parent)

    assert ["20000 rows, 1 kept", "19800 rows, 1 kept"] == said[:2]
    assert re.search(
        r"FINETUNE_CACHE: There is no room .*: \d+ MB are needed and \d+ free", said[2]
    )


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """Where the estimate was too low: here rows that are packed to a thousandth."""
    long = [{"role": role, "content": role * 10_000} for role in ("user", "assistant")]
    packed = gzip.compress(json.dumps({"messages": long}).encode() + b"\n") * 600
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "train.jsonl.gz").write_bytes(packed)
    program = """
    prepare(100)
    """

    room = cache._SPARE_BYTES + (4 << 20)
    (said,) = on_small_disk(tmp_path / "small", room, program, tmp_path / "source")

    assert "FINETUNE_CACHE: There is no room" in said
    assert "No space left on device" in said
    assert said.endswith(", 0 kept")


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes().replace("Là".encode(), "là".encode(), 1)),
        lambda file: file.unlink(),
        lambda file: (file.parent / cache.MANIFEST).write_text('{"key": '),
        lambda file: (file.parent / cache.MANIFEST).unlink(),
    ],
    ids=["cut short", "empty", "one letter", "gone", "half a manifest", "no manifest"],
)
def test_what_is_harmed_is_made_anew(
    harm: Callable[[Path], object], source: Path, prepare: Prepare
) -> None:
    """By whatever means: what is handed on has the digest that the manifest says."""
    first = prepare(source)
    harm(Path(first.file("train").path))

    again = prepare(source)

    assert first == again
    assert [turns(n) for n in range(2000)] == rows_of(again)


def test_a_harm_that_keeps_size_and_time_is_seen(source: Path, prepare: Prepare) -> None:
    """The time of last change of a file can be set; that of its inode cannot."""
    file = Path(prepare(source).file("train").path)
    stat = file.stat()
    file.write_bytes(file.read_bytes().replace(b"user", b"resu", 1))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    prepare(source)

    assert b"resu" not in file.read_bytes()


def test_a_hit_takes_no_time(tmp_path: Path, prepare: Prepare) -> None:
    """Under half a second, whatever the size: the file is not read again."""
    rows = [{"messages": turns(n)} for n in range(100_000)]
    source = write_lines(tmp_path / "source" / "train.jsonl", rows).parent
    first = prepare(source)
    began = time.monotonic()

    assert first == prepare(source)
    assert time.monotonic() - began < 0.5


def test_equal_rows_elsewhere_are_found_again(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    """The key is what the rows are, not where the folder lies or when it was copied."""
    first = prepare(source, model_suffix="chats")
    shutil.copytree(source, tmp_path / "copy")

    second = prepare(tmp_path / "copy", model_suffix="chats")

    assert first.files == second.files
    assert (str(source), str(tmp_path / "copy")) == (first.name, second.name)


@pytest.mark.parametrize(
    "values",
    [
        {"percentage": 50},
        {"rows": 10},
        {"rows": 10, "sampling": "random"},
        {"rows": 10, "sampling": "random", "seed": 1},
        {"max_tokens": 100},
        {"file_format": "parquet"},
    ],
    ids=str,
)
def test_whatever_changes_the_files_changes_the_key(
    values: dict[str, object], source: Path, prepare: Prepare
) -> None:
    """Nothing is found again for another question."""
    assert prepare(source).manifest != prepare(source, **values).manifest


@pytest.mark.parametrize(
    "values", [{}, {"sampling": "random", "rows": 700}, {"file_format": "parquet"}]
)
def test_equal_inputs_give_equal_bytes_in_another_process(
    values: dict[str, object], source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    """Files and manifest alike."""
    first = prepare(source, **values)
    manifest = Path(first.manifest or "").read_bytes()
    shutil.rmtree(tmp_path / "out")

    second = prepare(source, **values)

    assert [file.sha256 for file in first.files] == [file.sha256 for file in second.files]
    assert manifest == Path(second.manifest or "").read_bytes()


def test_the_manifest_says_what_the_files_are_and_depend_on(source: Path, prepare: Prepare) -> None:
    """Source, splits, sampling and version of what is written; rows, bytes and digest of a file."""
    result = prepare(source, rows=700, sampling="random", seed=3)
    file = Path(result.file("train").path)

    manifest = json.loads(Path(result.manifest or "").read_text(encoding="utf-8"))
    asked = manifest["inputs"]
    content = hashlib.sha256((source / "train.jsonl").read_bytes()).hexdigest()
    assert (str(source), None) == (manifest["name"], manifest["revision"])
    assert (700, "random", 3) == (asked["rows"], asked["sampling"], asked["seed"])
    assert ("train", "train") == (asked["train_split"], asked["test_split"])
    assert [["train.jsonl", content]] == asked["source"]
    assert isinstance(asked["schema_version"], int)
    (written,) = manifest["files"]
    assert {
        "split": "train",
        "path": "train.jsonl",
        "rows": 700,
        "source_rows": 2000,
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }.items() <= written.items()


def test_old_entries_make_room_for_new_ones(
    source: Path, tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound holds; what was of use in the last hour stays; the longest unused goes first."""
    folders = []
    for rows in (500, 400, 300):
        folders.append(Path(prepare(source, rows=rows).file("train").path).parent)
    for age, folder in zip((7200, 9000, 60), folders, strict=True):
        os.utime(folder / cache.MANIFEST, (time.time() - age,) * 2)
    size = sum(file.stat().st_size for file in folders[0].iterdir())
    monkeypatch.setenv("FINETUNE_CACHE_GB", str(2.3 * size / 1e9))

    kept = Path(prepare(source, rows=200).file("train").path).parent

    assert sorted([folders[0], folders[2], kept]) == entries(tmp_path / "out")


def test_a_bound_that_is_no_number_is_refused(
    source: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the name of the variable."""
    monkeypatch.setenv("FINETUNE_CACHE_GB", "plenty")

    with pytest.raises(ConfigurationError, match="FINETUNE_CACHE_GB"):
        prepare(source)


def test_another_machine_takes_what_was_shared(
    source: Path, tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a store that all reach, by digest: here a folder, elsewhere any address of fsspec."""
    monkeypatch.setenv("FINETUNE_SHARED_CACHE", f"file://{tmp_path / 'shared'}")
    first = prepare(source)
    shutil.rmtree(tmp_path / "out")
    (shared,) = (tmp_path / "shared").iterdir()
    marked = shared / "manifest.json"
    marked.write_text(marked.read_text().replace('"leaked": {}', '"leaked": {"fetched": 1}'))

    second = prepare(source)

    assert first.file("train").sha256 == second.file("train").sha256
    assert {"fetched": 1} == second.leaked


@pytest.mark.parametrize("harm", ["damaged", "unreachable"])
def test_a_shared_store_that_fails_costs_only_time(
    harm: str, source: Path, tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it gives is checked, and without it the data is prepared here."""
    monkeypatch.setenv("FINETUNE_SHARED_CACHE", f"file://{tmp_path / 'shared'}")
    first = prepare(source)
    shutil.rmtree(tmp_path / "out")
    if harm == "damaged":
        (shared,) = (tmp_path / "shared").glob("*/train.jsonl")
        shared.write_bytes(b"something else\n")
    else:
        shutil.rmtree(tmp_path / "shared")
        (tmp_path / "shared").write_text("no folder")

    assert first == prepare(source)


def test_threads_of_one_process_do_the_work_once(source: Path, prepare: Prepare) -> None:
    """As two flows in one server's process would."""
    results: list[DatasetResult] = []
    threads = [threading.Thread(target=lambda: results.append(prepare(source))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [results[0]] * 3 == results


def test_a_source_that_changes_while_it_is_read_is_not_kept(source: Path, tmp_path: Path) -> None:
    """Half of yesterday's rows and half of today's are no data set; the next try may have one."""
    spec = DatasetSpec(
        path=str(source), train_split="train", test_split="train", generation_split=None
    )

    def change(progress: Progress) -> None:
        write_lines(source / "train.jsonl", [{"messages": turns(7)}])

    with pytest.raises(DatasetError, match="was changed while it was read") as changed:
        download_data(spec, tmp_path / "out", watch=change)

    assert changed.value.transient
    assert [] == entries(tmp_path / "out")
