"""The meter: what is billed, since when, for how much, and what was left running."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_emulator.ledger import Ledger
from azureml_emulator.store import Store


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    store = Store(tmp_path / "store.sqlite")
    yield Ledger(store)
    store.close()


def _open(ledger: Ledger, resource: str, at: float, **changes: float) -> None:
    quantity, price = int(changes.get("quantity", 1)), changes.get("price", 4.0)
    ledger.open(
        resource, "deployment", at=at, sku="Standard_X", quantity=quantity, usd_per_hour=price
    )


def test_a_closed_meter_costs_what_it_ran(ledger: Ledger) -> None:
    """Price × instances × hours between beginning and end."""
    _open(ledger, "/a", 0, quantity=2)
    ledger.close("/a", at=1800, reason="deleted")
    report = ledger.report(now=99999)

    assert (0, 4.0) == (report["open"], report["usd"])
    assert ("deleted", 0.5, 4.0) == tuple(
        report["meters"][0][key] for key in ("reason", "hours", "usd")
    )


def test_an_open_meter_runs_on(ledger: Ledger) -> None:
    """A resource left behind is listed as open and gets dearer."""
    _open(ledger, "/a", 0)

    assert (1, 4.0) == (ledger.report(now=3600)["open"], ledger.report(now=3600)["usd"])
    assert 8.0 == ledger.report(now=7200)["usd"]
    assert ledger.report(now=7200)["meters"][0]["stopped"] is None


def test_a_resource_made_again_has_a_meter_of_its_own(ledger: Ledger) -> None:
    """Every billable resource ever made stays listed."""
    for began in (0, 7200):
        _open(ledger, "/a", began)
        ledger.close("/A", at=began + 3600, reason="deleted")

    assert [1, 2] == [meter["meter"] for meter in ledger.report(now=0)["meters"]]
    assert 8.0 == ledger.report(now=0)["usd"]


def test_closing_what_is_not_billed_is_no_error(ledger: Ledger) -> None:
    """A delete that comes twice neither fails nor adds an entry."""
    ledger.close("/a", at=0, reason="deleted")
    _open(ledger, "/a", 0)
    ledger.close("/a", at=3600, reason="deleted")
    ledger.close("/a", at=7200, reason="again")

    assert ["deleted"] == [meter["reason"] for meter in ledger.report(now=0)["meters"]]


def test_the_moment_of_a_change_costs_nothing_twice(ledger: Ledger) -> None:
    """A deployment that is scaled up is billed at the new size from then on."""
    _open(ledger, "/a", 0, quantity=1)
    ledger.close("/a", at=3600, reason="changed")
    _open(ledger, "/a", 3600, quantity=3)

    assert 4.0 + 12.0 == ledger.report(now=7200)["usd"]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE ledger SET at = 0",
        "DELETE FROM ledger",
        "INSERT OR REPLACE INTO ledger SELECT seq, 0, entry, meter, resource, details FROM ledger",
        "INSERT INTO ledger SELECT seq, 0, entry, meter, resource, details FROM ledger WHERE true "
        "ON CONFLICT (seq) DO UPDATE SET at = 0",
    ],
)
def test_no_entry_can_be_changed_or_taken_away(ledger: Ledger, tmp_path: Path, sql: str) -> None:
    """The database itself refuses, also whoever opens the file with another tool."""
    _open(ledger, "/a", 3600)
    _open(ledger, "/b", 3600)
    before = ledger.report(now=7200)
    other = sqlite3.connect(tmp_path / "store.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="the ledger is append-only"):
        other.execute(sql)
    other.close()
    _open(ledger, "/c", 3600)

    assert before["meters"] == ledger.report(now=7200)["meters"][:2]
    assert 3 == ledger.report(now=7200)["open"]
