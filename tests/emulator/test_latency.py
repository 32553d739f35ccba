"""How long things take: by name, from a table that a file may change."""

from __future__ import annotations

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
    file = tmp_path / "latency.yaml"
    file.write_text("endpoint.create: 2.5\n")
    latency = Latency(str(file))

    assert 2.5 == latency.seconds("endpoint.create")
    assert REALISTIC["endpoint.delete"] == latency.seconds("endpoint.delete")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("endpoint.creates: 1\n", "unknown rows"),
        ("- 1\n", "unknown rows"),
        ("endpoint.create: soon\n", "endpoint.create must be seconds"),
        ("endpoint.create: -1\n", "endpoint.create must be seconds"),
        ("endpoint.create: .inf\n", "endpoint.create must be seconds"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A misspelt row would be silently slow, so it is an error that names it."""
    file = tmp_path / "latency.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        Latency(str(file))


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
