"""The campaign that changes the world: its changes, that it sees what is broken, and a sample."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from campaigns import skew
from campaigns.changes import change, places, properties, whole
from campaigns.front import Answer, Asked
from campaigns.inprocess import Ran
from campaigns.verdicts import Seen

ASKED = Asked("GET", "/x", "a=1")
FIRST = {"name": "a", "status": "Running", "at": "2026-11-28T09:00:00.5Z", "n": 1}
DOCUMENT = {
    "value": [FIRST, {"n": 2}],
    "by": {f"key{number}": {"min": number} for number in range(20)},
}


def made(name: str, document: Any = DOCUMENT) -> Answer:
    """The answer with that change."""
    headers = {"content-type": "application/json", "x-skew-host": "localhost:1"}
    return change(name)(ASKED, Answer(200, headers, json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("value[].status removed", {"name": "a", "at": "2026-11-28T09:00:00.5Z", "n": 1}),
        ("value[].n null", {**FIRST, "n": None}),
        ("value[].n of another type", {**FIRST, "n": "text"}),
        ("value[].status unknown", {**FIRST, "status": "Flummoxed"}),
        ("offset", {**FIRST, "at": "2026-11-28T09:00:00+02:00"}),
        ("seven digits", {**FIRST, "at": "2026-11-28T09:00:00.1234567Z"}),
    ],
)
def test_a_change_changes_what_it_names(name: str, document: Any) -> None:
    """At its place, in every item of a list, and nothing else."""
    assert name in [*whole(DOCUMENT), *properties(DOCUMENT)]
    assert document == made(name).document()["value"][0]


def test_maps_count_once() -> None:
    """The inputs of a component are names, not properties."""
    assert ["by", "by.*.min", "value", "value[].at", "value[].n", "value[].name"] == sorted(
        place for place, _ in places(DOCUMENT) if place != "value[].status"
    )


def test_a_list_is_paged_one_by_one() -> None:
    """Following the links gives every item once."""
    first = made("paged").document()
    link = first["nextLink"]
    second = change("paged")(
        Asked("GET", "/x", link.partition("?")[2]), made("more properties", DOCUMENT)
    ).document()

    assert [1, 1] == [len(first["value"]), len(second["value"])]
    assert 2 == second["value"][0]["n"]
    assert "nextLink" not in second


def test_what_is_late_shows_after_half_a_minute() -> None:
    """By the clock of whoever asks."""
    now = 0.0
    late = change("late", lambda: now)

    def seen(text: bytes) -> bytes:
        return late(ASKED, Answer(200, {}, text)).body

    assert b"old" == seen(b"old")
    now = 20.0
    assert b"old" == seen(b"new")
    now = 51.0
    assert b"new" == seen(b"newer")


def _ran(state: str, code: int, **more: Any) -> Ran:
    error = {"code": "ServiceError", "message": "Azure answered 403.", "remedy": "Ask."}
    report = {"state": state, "still_billing": [], "error": error if code else None, **more}
    return Ran(code, report)


def test_a_courtesy_that_ends_a_run_and_a_canceled_job_are_seen() -> None:
    """A campaign that could not find a broken promise would prove nothing."""
    job = {"name": "ft-x-a1", "status": "Canceled", "ended": "2026-11-28T09:00:00+00:00"}
    seen = Seen([], [{**job, "tags": {}, "created": "2026-11-28T08:00:00+00:00"}], [])
    failed = _ran("Failed", 1)

    assert 2 == len(skew.judged("GET /history/v1.0{workspace}/runs/{}/details", failed, seen))
    assert 1 == len(skew.judged("PUT {workspace}/onlineEndpoints/{}", failed, seen))
    assert [] == skew.judged("GET {workspace}/jobs/{}", failed, seen)


def test_what_is_billed_is_broken_unless_it_is_named() -> None:
    """An endpoint that cannot be deleted is no fault of ours where the run says so."""
    meter = {"resource": "/x/onlineEndpoints/e-a1", "kind": "endpoint", "stopped": None}
    seen = Seen([meter], [], [])
    named = _ran("Failed", 3, still_billing=["onlineEndpoints/e-a1"])

    assert [] == skew.judged("DELETE {workspace}/onlineEndpoints/{}", named, seen)
    assert skew.judged("DELETE {workspace}/onlineEndpoints/{}", _ran("Failed", 1), seen)


def test_every_courtesy_is_a_route_of_a_run() -> None:
    """The table of courtesies names what a run asks for."""
    routes = {case.partition(" | ")[0] for case in skew.cases()}

    assert 10 <= sum(map(skew.is_courtesy, routes)) < len(routes) / 2


@pytest.mark.long
def test_a_sample_holds(tmp_path: Path) -> None:
    """Thirty of the cases, drawn; the command's exit code says that all promises were kept."""
    command = [sys.executable, "-m", "campaigns.skew", "--sample", "30", "--seed", "7"]
    ran = subprocess.run(
        [*command, "--out", str(tmp_path / "out.jsonl")],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
    )

    assert 0 == ran.returncode, ran.stdout + ran.stderr[-3000:]
    assert 30 == len((tmp_path / "out.jsonl").read_text().splitlines())
