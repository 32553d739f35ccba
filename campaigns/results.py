"""Results of a campaign: a line of JSON for each case, so that it can be resumed and sampled."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
HELD, BROKEN, NOT_REACHED = "held", "broken", "not reached"


@dataclass(frozen=True)
class Chosen:
    """Which cases to run now.

    Args:
        sample: How many, drawn with *seed*; None for all.
        seed: Of the draw.
        shard: This one, from 1, of so many.
        minutes: No case is begun after that.
        again: Also the cases that have not held.
        only: Only cases with this text in their name.
        out: The file of results.
    """

    sample: int | None
    seed: int
    shard: tuple[int, int]
    minutes: float
    again: bool
    only: str
    out: Path


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the options that every campaign with a list of cases has."""
    options = argparse.ArgumentParser(prog=f"python -m campaigns.{name}", description=description)
    options.add_argument("--sample", type=int, metavar="N", help="so many cases, drawn")
    options.add_argument("--seed", type=int, default=7, metavar="S", help="of the draw")
    options.add_argument(
        "--shard", type=_shard, default=(1, 1), metavar="I/N", help="every n-th case, from the i-th"
    )
    options.add_argument(
        "--minutes", type=float, default=60, metavar="M", help="no case is begun after that"
    )
    options.add_argument("--again", action="store_true", help="also cases that have not held")
    options.add_argument("--only", default="", metavar="TEXT", help="cases with it in their name")
    options.add_argument(
        "--out",
        type=Path,
        default=FOLDER / "results" / f"{name}.jsonl",
        metavar="FILE",
        help="results, of earlier runs too",
    )
    return options


def choice(given: argparse.Namespace) -> Chosen:
    """Return what the command line chose."""
    return Chosen(
        given.sample,
        given.seed,
        given.shard,
        given.minutes,
        given.again,
        given.only,
        given.out,
    )


def to_run(cases: Sequence[str], chosen: Chosen) -> Iterator[str]:
    """Yield the cases that are chosen and have no result yet, until the time is over."""
    known = {row["case"]: row["verdict"] for row in latest(chosen.out).values()}
    done = {case for case, verdict in known.items() if not (chosen.again and verdict != HELD)}
    if chosen.sample is not None:
        drawn = random.Random(chosen.seed).sample(list(cases), min(chosen.sample, len(cases)))
        cases = [case for case in cases if case in set(drawn)]
    mine, of = chosen.shard
    end = time.monotonic() + 60 * chosen.minutes
    for number, case in enumerate(cases):
        if number % of == mine - 1 and case not in done and chosen.only in case:
            if time.monotonic() >= end:
                return
            yield case


def play_all(cases: Sequence[str], play: Callable[[str], dict[str, Any]], chosen: Chosen) -> int:
    """Play the chosen cases, print and keep each result, and return 1 where a promise was broken.

    Args:
        cases: All of them, in order.
        play: Returns a case's ``verdict``, ``outcome``, ``seconds`` and ``problems``.
        chosen: Which of them, and where results go.
    """
    worst, checked_out = 0, commit()
    for case in to_run(cases, chosen):
        row = {"case": case, **play(case), **stamp(checked_out)}
        append(chosen.out, row)
        print(f"{row['verdict']:12} {row['outcome']:22} {row['seconds']:6.1f} s  {case}")
        for problem in row["problems"]:
            print(f"             {problem}")
        sys.stdout.flush()
        worst |= row["verdict"] == BROKEN
    return worst


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a line to the results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def latest(*paths: Path) -> dict[str, dict[str, Any]]:
    """Return the last result of each case, by its name."""
    return {row["case"]: row for row in rows(*paths)}


def rows(*paths: Path) -> list[dict[str, Any]]:
    """Return every result, oldest first."""
    lines: Iterable[str] = (
        line
        for path in paths
        if path.exists()
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    return [json.loads(line) for line in lines]


def commit() -> str:
    """Return the commit that is checked out, with ``+`` where files were changed since.

    Asked before the first case, since what runs is what was there then.
    """

    def git(*words: str) -> str:
        ran = subprocess.run(
            ["git", *words], capture_output=True, text=True, check=False, cwd=FOLDER
        )
        return ran.stdout.strip()

    mark = "+" if git("status", "--porcelain", "--untracked-files=no", "--", "..", ":!.") else ""
    return (git("rev-parse", "--short=7", "HEAD") or "unknown") + mark


def stamp(commit: str) -> dict[str, str]:
    """Return what every result bears: the moment and the commit."""
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit}


def _shard(text: str) -> tuple[int, int]:
    mine, _, of = text.partition("/")
    if not (mine.isdigit() and of.isdigit() and 1 <= int(mine) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with I from 1 to N")
    return int(mine), int(of)
