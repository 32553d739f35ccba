"""``make bench-data``: the data step beside the tutorial's way, streaming, pandas, and the disk.

On a synthetic UltraChat 200k (:mod:`benchmarks.ultrachat`) at a tenth, a third and all of its size,
for 5 % and 100 % of its rows. Each way is a process of its own, measured from its start to its exit
with all imports: wall time, largest resident memory, bytes asked of the kernel. All write the same
rows of all four splits as JSON lines. The files are in the page cache for all alike.

``limit`` does no work at all: it reads the bytes of the source that are wanted and writes as many
as the result has, and waits for the disk as ours does. ``limit, packed`` also decompresses what it
reads and hashes what it writes, which no way that gives a digest is spared, on a thread each, and
makes nothing of it. ``one core`` is ours on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import ultrachat

ROOT = Path(__file__).resolve().parent.parent
SCALES = {"1/10": 0.1, "1/3": 1 / 3, "full": 1.0}
SHARES = (5, 100)

TUTORIAL = "tutorial"
OURS = "ours"
LIMIT = "limit"

_HEAD = """\
import json, os, sys
source, out, percent = sys.argv[1], sys.argv[2], int(sys.argv[3])
splits = {splits!r}
"""
# What a row is asked of each way: the tutorial's own lines, and as people write the others.
_WAYS = {
    TUTORIAL: """
        from datasets import load_dataset
        for split in splits:
            rows = load_dataset(source, split=f"{split}[0%:{percent}%]")
            rows.to_json(f"{out}/{split}.jsonl")
    """,
    "streaming": """
        from datasets import load_dataset
        for split, total in splits.items():
            rows = load_dataset(source, split=split, streaming=True)
            with open(f"{out}/{split}.jsonl", "w") as file:
                for row in rows.take(max(1, round(total * percent / 100))):
                    file.write(json.dumps(row, ensure_ascii=False) + "\\n")
    """,
    "pandas": """
        import glob, pandas
        for split, total in splits.items():
            left = max(1, round(total * percent / 100))
            for path in sorted(glob.glob(f"{source}/data/{split}-*")):
                rows = pandas.read_parquet(path).head(left)
                rows["messages"] = [list(turns) for turns in rows["messages"]]
                rows.to_json(f"{out}/{split}.jsonl", orient="records", lines=True, mode="a",
                             force_ascii=False)
                left -= len(rows)
                if not left:
                    break
    """,
    OURS: """
        from pathlib import Path
        from lifecycle.dataset import DatasetSpec, download_data
        download_data(DatasetSpec(path=source, percentage=percent), Path(out))
    """,
    "ours, one core": """
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from pathlib import Path
        from lifecycle.dataset import DatasetSpec, download_data
        download_data(DatasetSpec(path=source, percentage=percent), Path(out))
    """,
    "ours, random": """
        from pathlib import Path
        from lifecycle.dataset import DatasetSpec, download_data
        download_data(DatasetSpec(path=source, percentage=percent, sampling="random"), Path(out))
    """,
}
_LIMITS = {
    LIMIT: """
    read, write = int(sys.argv[4]), int(sys.argv[5])
    piece = bytearray(1 << 20)
    for name in sorted(os.listdir(f"{source}/data")):
        with open(f"{source}/data/{name}", "rb", 0) as file:
            while read > 0 and (got := file.readinto(piece)):
                read -= got
    with open(f"{out}/all", "wb", 0) as file:
        while write > 0:
            write -= file.write(piece[:write])
        os.fsync(file.fileno())
    """,
    "limit, packed": """
    import hashlib, threading
    import pyarrow.parquet
    write = int(sys.argv[5])
    def unpack():
        for name in sorted(os.listdir(f"{source}/data")):
            with pyarrow.parquet.ParquetFile(f"{source}/data/{name}") as file:
                groups = list(range(-(-file.num_row_groups * percent // 100)))
                for _ in file.iter_batches(512, groups, ["messages"], use_threads=False):
                    pass
    reader = threading.Thread(target=unpack)
    reader.start()
    digest, piece = hashlib.sha256(), os.urandom(3 << 20)
    with open(f"{out}/all", "wb", 0) as file:
        while write > 0:
            digest.update(piece)
            write -= file.write(piece[:write])
        os.fsync(file.fileno())
    reader.join()
    """,
}


class Run(NamedTuple):
    """One run of one way.

    Args:
        size: Of the data set: a key of :data:`SCALES`.
        percent: Of its rows.
        way: Which.
        seconds: From the process's start to its exit.
        cpu_seconds: Of all its threads, which a machine that is busy with other work changes less.
        peak_mb: Largest resident memory.
        read_mb: Bytes asked of the kernel; None where it does not tell. A mapped file is not in it.
        written_mb: Size of the files written.
    """

    size: str
    percent: int
    way: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    read_mb: float | None
    written_mb: float


def main(arguments: list[str] | None = None) -> int:
    """Make the data, run everything, print the table, and write the JSON that is asked for."""
    chosen = _parser().parse_args(arguments)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="finetune-bench-", dir=chosen.folder) as folder:
        for size in chosen.sizes:
            source = Path(folder) / "ultrachat"
            scale = SCALES[size] * chosen.scale
            # In a process of its own: what it leaves in memory would count as its children's.
            make = "import sys; from benchmarks import ultrachat as u; from pathlib import Path; "
            make += "u.write(Path(sys.argv[1]), float(sys.argv[2]))"
            subprocess.run(
                [sys.executable, "-c", make, str(source), str(scale)], env=_environ(), check=True
            )
            _say(f"{size}: {_size(source / 'data') / 1e6:,.0f} MB of Parquet")
            for percent in SHARES:
                runs += measure(source, size, scale, percent, Path(folder), chosen.repeat)
            shutil.rmtree(source)
    Console(width=None if sys.stdout.isatty() else 120).print(table(runs))
    if chosen.json is not None:
        document = {
            "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("datasets", "pandas", "pyarrow", "orjson")},
            },
            "scale": chosen.scale,
            "runs": [run._asdict() for run in runs],
        }
        chosen.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(
    source: Path, size: str, scale: float, percent: int, folder: Path, repeat: int
) -> list[Run]:
    """Run every way on one data set, interleaved.

    Args:
        source: The data set.
        size: What it is called.
        scale: What it was made with.
        percent: How much of each split.
        folder: Where is written meanwhile.
        repeat: How often each.
    """
    splits = {name: ultrachat.scaled(rows, scale) for name, rows in ultrachat.ROWS.items()}
    head = _HEAD.format(splits=splits)
    runs: list[Run] = []
    for _ in range(repeat):
        for way, code in _WAYS.items():
            if "affinity" in code and not hasattr(os, "sched_setaffinity"):
                continue
            if way == "ours, random" and percent == 100:
                continue
            program = head + textwrap.dedent(code)
            runs.append(_run(program, source, folder, (size, percent, way), splits))
        written = next(int(run.written_mb * 1e6) for run in runs if run.way == OURS)
        read = _size(source / "data") * percent // 100
        for way, code in _LIMITS.items():
            program = head + textwrap.dedent(code)
            further = (str(read), str(written))
            runs.append(_run(program, source, folder, (size, percent, way), {}, *further))
    return runs


def table(runs: list[Run]) -> Table:
    """Return the runs as one table: the best of each way, beside the tutorial's and the limit."""
    shown = Table(
        title="The data step", caption="Best of each; × is the tutorial's time to its own."
    )
    for name in ("size", "rows", "way", "n", "s", "×", "of limit", "CPU s", "peak MB", "read MB"):
        shown.add_column(name, justify="left" if name in ("size", "way") else "right")
    groups: dict[tuple[str, int, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(run[:3], []).append(run)
    best = {place: min(group, key=lambda run: run.seconds) for place, group in groups.items()}
    for (size, percent, way), run in best.items():
        beside = best[size, percent, TUTORIAL].seconds / run.seconds
        limit = run.seconds / best[size, percent, LIMIT].seconds
        read = "" if run.read_mb is None else f"{run.read_mb:,.0f}"
        shown.add_row(
            size,
            f"{percent} %",
            way,
            str(len(groups[size, percent, way])),
            f"{run.seconds:.2f}",
            f"{beside:.1f}",
            f"{limit:.1f}",
            f"{min(one.cpu_seconds for one in groups[size, percent, way]):.1f}",
            f"{max(one.peak_mb for one in groups[size, percent, way]):,.0f}",
            read,
            end_section=way == list(_LIMITS)[-1],
        )
    return shown


def _run(
    program: str,
    source: Path,
    folder: Path,
    place: tuple[str, int, str],
    splits: dict[str, int],
    *further: str,
) -> Run:
    out = folder / "out"
    out.mkdir()
    environ = {
        **_environ(),
        # A cache of its own: what another run left would spare it the work.
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    said = folder / "read"
    program += f"{_TELL}\nopen({str(said)!r}, 'w').write(json.dumps(told))\n"
    command = [sys.executable, "-c", program, str(source), str(out), str(place[1]), *further]
    began = time.monotonic()
    process = subprocess.Popen(command, env=environ)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{place} ended with {process.returncode}")
    files = {path.stem: path for path in out.rglob("*.jsonl")}
    for split, rows in splits.items():
        _check_rows(files[split], max(1, round(rows * place[1] / 100)), place)
    written = sum(path.stat().st_size for path in (files.values() or out.iterdir()))
    read, peak = json.loads(said.read_text(encoding="utf-8"))
    run = Run(
        *place,
        seconds=round(seconds, 3),
        cpu_seconds=round(used.ru_utime + used.ru_stime, 3),
        # macOS counts bytes.
        peak_mb=round((peak * 1024 if peak else used.ru_maxrss) / 1e6, 1),
        read_mb=None if read is None else round(read / 1e6, 1),
        written_mb=written / 1e6,
    )
    _say(
        f"{' '.join(map(str, place))}: {run.seconds:.2f} s, {run.cpu_seconds:.2f} s of CPU, "
        f"{run.peak_mb:,.0f} MB, {run.read_mb} MB read"
    )
    shutil.rmtree(out)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return run


# What the kernel has counted: bytes asked for, and kilobytes of memory at the most.
_TELL = """
import re
told = [None, None]
if os.path.exists("/proc/self/io"):
    told = [int(re.search(r"rchar: (\\d+)", open("/proc/self/io").read())[1]),
            int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])]
"""


def _environ() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _check_rows(path: Path, rows: int, place: Any) -> None:
    """See that every way has done what was asked: a row more or less is no result."""
    with path.open("rb") as file:
        lines = sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
        file.seek(-1, os.SEEK_END)
        lines += file.read() != b"\n"
    if abs(lines - rows) > 1:
        raise SystemExit(f"{place}: {path.name} has {lines} rows, not {rows}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the rows, for smaller machines (default 1)"
    )
    parser.add_argument("--sizes", nargs="+", choices=SCALES, default=list(SCALES))
    parser.add_argument("--repeat", type=int, default=1, metavar="N")
    parser.add_argument("--folder", type=Path, help="where to write meanwhile: 12 GB at full size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
