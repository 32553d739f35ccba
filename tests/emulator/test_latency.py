"""How long things take: by name, from a table that a file may change."""

from __future__ import annotations

import math
import re
from pathlib import Path

import azureml_emulator
import pytest
from azureml_emulator.latency import REALISTIC, Latency
from azureml_emulator.services import deployments, endpoints

_NAME = re.compile(r'latency\.seconds\("([^"]+)"\)')


def test_instant_takes_no_time_at_all() -> None:
    """The fast tests wait for nothing."""
    instant = Latency("instant")

    assert {0.0} == {instant.seconds(name) for name in REALISTIC}
    assert not instant.manual


@pytest.mark.parametrize("choice", ["realistic", "manual"])
def test_realistic_and_manual_take_the_table(choice: str) -> None:
    """Both have the same durations; only who moves the clock differs."""
    assert REALISTIC["endpoint.create"] == Latency(choice).seconds("endpoint.create")
    assert (choice == "manual") == Latency(choice).manual


def test_a_file_changes_single_rows(tmp_path: Path) -> None:
    """What it does not name stays realistic."""
    latency = Latency(_file(tmp_path, "endpoint.create: 2.5"))

    assert 2.5 == latency.seconds("endpoint.create")
    assert REALISTIC["endpoint.delete"] == latency.seconds("endpoint.delete")


def _file(folder: Path, text: str) -> str:
    file = folder / "latency.yaml"
    file.write_text(text)
    return str(file)


def test_a_policy_holds_for_a_row_a_resource_or_everything(tmp_path: Path) -> None:
    """The narrower wins: a row, then its resource, then the star, then what is realistic."""
    latency = Latency(
        _file(
            tmp_path,
            """
            "*": immediate
            endpoint: timed
            endpoint.delete: manual
            endpoint.update: 3
            deployment: manual
            deployment.delete: immediate
            """,
        )
    )
    told = {name: latency.seconds(name) for name in REALISTIC}

    assert 0 == told["compute.create"] == told["job.step"] == told["deployment.delete"]
    assert REALISTIC["endpoint.create"] == told["endpoint.create"]
    assert [math.inf, 3, math.inf] == [
        told[name] for name in ("endpoint.delete", "endpoint.update", "deployment.create")
    ]
    assert not latency.manual


def test_a_name_is_never_kept_for_ever(tmp_path: Path) -> None:
    """Nothing happens when a name is free, so nobody could let it happen."""
    latency = Latency(_file(tmp_path, "endpoint: manual"))

    assert REALISTIC["endpoint.name_reuse"] == latency.seconds("endpoint.name_reuse")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 120), ("compute: immediate", 0), ("compute.scale_down: 7", 7), ('"*": manual', math.inf)],
)
def test_what_the_user_set_follows_the_policy_too(
    tmp_path: Path, text: str, seconds: float
) -> None:
    """Nodes idle as long as the cluster says, unless the emulator is told otherwise."""
    latency = Latency(_file(tmp_path, text or "{}"))

    assert seconds == latency.of_user("compute.scale_down", 120)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("endpoint.creates: 1\n", "unknown rows"),
        ("1: 1\n", "unknown rows"),
        ("- 1\n", "unknown rows"),
        ("endpoint.create: soon\n", "endpoint.create must be seconds, 0 or more, or immediate or"),
        ("endpoint.create: -1\n", "endpoint.create must be seconds"),
        ("endpoint.create: .inf\n", "endpoint.create must be seconds"),
        ("endpoint.create: true\n", "endpoint.create must be seconds"),
        ("endpoint.create: [1]\n", "endpoint.create must be seconds"),
        ("endpoint: 1\n", "endpoint must be immediate or timed or manual, not 1"),
        ('"*": instant\n', "must be immediate or timed or manual, not 'instant'"),
        ("endpoint.name_reuse: manual\n", "must be seconds, 0 or more, or immediate or timed, not"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A misspelt row would be silently slow, so it is an error that names it."""
    with pytest.raises(ValueError, match=re.escape(said)):
        Latency(_file(tmp_path, text))


def test_neither_a_name_nor_a_file_is_refused() -> None:
    """The error says what may be given."""
    with pytest.raises(ValueError, match="neither instant, realistic, manual nor a file"):
        Latency("quick")


def test_every_duration_that_a_service_asks_for_is_in_the_table() -> None:
    """No handler can fail on a name that the table lacks, under any latency."""
    root = Path(azureml_emulator.__path__[0])
    asked = {name for file in root.rglob("*.py") for name in _NAME.findall(file.read_text("utf-8"))}

    asked |= {*endpoints.EVENTS, *deployments.EVENTS}

    assert set() == asked - set(REALISTIC)
