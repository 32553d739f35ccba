"""Lists of cases and results: committed, resumed, sampled, and told as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaigns import kills, report, requests, results

CASES = [f"case {number}" for number in range(20)]


def _choose(out: Path, *words: str) -> results.Chosen:
    return results.choice(results.parser("x", None).parse_args(["--out", str(out), *words]))


def _end(out: Path, case: str, verdict: str) -> None:
    results.append(out, {"case": case, "verdict": verdict})


def test_a_campaign_goes_on_where_it_ended(tmp_path: Path) -> None:
    """What has a result is not run again; what was broken is, where it is asked for."""
    out = tmp_path / "out.jsonl"
    _end(out, "case 0", results.HELD)
    _end(out, "case 1", results.BROKEN)

    assert CASES[2:] == list(results.to_run(CASES, _choose(out)))
    assert CASES[1:] == list(results.to_run(CASES, _choose(out, "--again")))

    _end(out, "case 1", results.HELD)
    assert CASES[2:] == list(results.to_run(CASES, _choose(out, "--again")))


def test_a_sample_is_the_same_for_a_seed(tmp_path: Path) -> None:
    """Anybody can draw it again."""
    out = tmp_path / "out.jsonl"
    drawn = list(results.to_run(CASES, _choose(out, "--sample", "5", "--seed", "3")))

    assert 5 == len(drawn)
    assert drawn == list(results.to_run(CASES, _choose(out, "--sample", "5", "--seed", "3")))
    assert drawn != list(results.to_run(CASES, _choose(out, "--sample", "5", "--seed", "4")))


def test_shards_share_the_cases(tmp_path: Path) -> None:
    """Each case is in one of them."""
    out = tmp_path / "out.jsonl"
    shares = [results.to_run(CASES, _choose(out, "--shard", f"{i}/3")) for i in (1, 2, 3)]

    assert sorted(CASES) == sorted(case for share in shares for case in share)


def test_no_case_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    """A shard has its time."""
    assert [] == list(results.to_run(CASES, _choose(tmp_path / "out.jsonl", "--minutes", "0")))


@pytest.mark.parametrize("verdict", [results.HELD, results.BROKEN])
def test_the_page_says_what_was_not_run(tmp_path: Path, verdict: str) -> None:
    """One case has a result; the others are not run, and nothing else is said of them."""
    case = kills.cases()[0]
    row = {"outcome": "x", "problems": ["p"], "seconds": 1, "at": "2026-01-01T00", "commit": "c"}
    results.append(tmp_path / "kills.jsonl", {"case": case, "verdict": verdict, **row})

    page = report.page(tmp_path)

    assert len(kills.cases()) - 1 == page.count(f"*{report.NOT_RUN}* |")
    assert 1 == page.partition("## Kill matrix")[2].count(f"| {verdict} |")
    assert f"{len(requests.cases())} runs" in page


def test_the_page_is_what_the_results_say() -> None:
    """docs/reliability.md was written from the results that are committed."""
    assert report.page(results.FOLDER / "results") == report.PAGE.read_text(encoding="utf-8")


def test_the_list_of_kills_is_full_and_its_beginning_covers_all_pairs() -> None:
    """Each way to die at each moment, and each way to run with each of both."""
    cases = kills.cases()
    first = [case.split(" | ") for case in cases[: len(kills.KINDS) * len(kills.MOMENTS)]]

    assert kills.full_list() == cases
    assert len(set(cases)) == len(cases)
    assert len(kills.KINDS) * len(kills.MOMENTS) == len({(kind, at) for _, kind, at in first})
    assert {(way, kind) for way, kind, _ in (case.split(" | ") for case in cases)} == {
        (way, kind) for way, kind, _ in first
    }
    assert {(way, at) for way, _, at in (case.split(" | ") for case in cases)} == {
        (way, at) for way, _, at in first
    }
