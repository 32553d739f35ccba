"""The campaign over all requests: its smallest sample, and that it sees what is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from campaigns import requests
from campaigns.inprocess import READ_SECONDS, Ground
from lifecycle.clients import forget

EVERY_DELETE = {"match": {"method": "DELETE", "path": "/onlineEndpoints/"}}


@pytest.fixture
def ground(prefect_server: str, azureml_emulator_port: int, tmp_path: Path) -> Iterator[Ground]:
    """Ground on the session's Prefect server; the environment is as it was, after."""
    was = dict(os.environ)
    prefect = {name: value for name, value in was.items() if name.startswith("PREFECT_")}
    environ = {**prefect, "FINETUNE_READ_SECONDS": str(READ_SECONDS)}
    with (tmp_path / "log").open("w") as log:
        yield Ground(tmp_path, environ, log, azureml_emulator_port)
    os.environ.clear()
    os.environ.update(was)
    forget()


def test_a_lost_answer_to_a_create_leaves_nothing(ground: Ground) -> None:
    """The smallest sample: the endpoint is made, its answer lost; all promises are kept."""
    row = requests.play(ground, "PUT {workspace}/onlineEndpoints/{}#1 reset-after")

    assert ("held", "Completed", []) == (row["verdict"], row["outcome"], row["problems"])


def test_an_endpoint_that_stays_is_seen(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign that could not find a broken promise would prove nothing."""
    monkeypatch.setattr(requests, "_rule", lambda request: EVERY_DELETE)
    # A lock is not asked again for ten minutes.
    locked = {"status": 409, "error": {"code": "ScopeLocked", "message": "It is locked."}}
    monkeypatch.setitem(requests.FAULTS, "refused", locked)

    row = requests.play(ground, "DELETE {workspace}/onlineEndpoints/{}#1 refused")

    assert "broken" == row["verdict"]
    assert row["problems"][0].startswith("still billed: local-")


@pytest.mark.parametrize("case", requests.cases()[:: len(requests.FAULTS)])
def test_a_case_names_its_request(case: str) -> None:
    """The rule of a case matches the path that it was made from, and its short name comes back."""
    request = case.rpartition(" ")[0]
    rule = requests._rule(request)

    assert request.partition("#")[0] == " ".join(
        (rule["match"]["method"], requests.template(_example(rule["match"]["path"])))
    )


@pytest.mark.long
def test_a_sample_holds(tmp_path: Path) -> None:
    """Twenty of the cases, drawn; the command's exit code says that all promises were kept."""
    command = [sys.executable, "-m", "campaigns.requests", "--sample", "20", "--seed", "7"]
    ran = subprocess.run(
        [*command, "--out", str(tmp_path / "out.jsonl")],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
    )

    assert 0 == ran.returncode, ran.stdout + ran.stderr[-3000:]
    rows: list[Any] = [json.loads(row) for row in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert 20 == len(rows)


def _example(pattern: str) -> str:
    """Return a path that the pattern of a rule matches."""
    plain = pattern.strip("^$").replace("[^/]+", "00000000-0000-4000-8000-000000000009")
    return plain.replace("\\", "")
