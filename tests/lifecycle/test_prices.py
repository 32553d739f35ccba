"""Prices come from the committed table, and what is not known is said to be unknown."""

from __future__ import annotations

import pytest

from lifecycle.prices import estimate, find_size, price_of, price_source


@pytest.mark.parametrize("size", ["Standard_NC24ads_A100_v4", "STANDARD_NC24ADS_A100_V4"])
def test_a_size_is_found_in_any_spelling(size: str) -> None:
    """Azure changes the case of a size between two answers."""
    assert 3.673 == price_of(size, low_priority=False)


def test_an_unknown_size_has_no_price() -> None:
    """Nothing looks free because nobody knows its price."""
    assert None is price_of("Standard_NC9999", low_priority=False)
    assert None is find_size("Standard_NC9999")


def test_low_priority_has_no_price() -> None:
    """The dedicated price is not passed off as the low-priority one."""
    assert None is price_of("Standard_NC24ads_A100_v4", low_priority=True)


def test_every_size_has_a_price_and_a_status() -> None:
    """The table is whole: retired sizes are in it, with the date where one is known."""
    retired = find_size("Standard_NC6s_v3")

    assert retired is not None
    assert ("retired", "2025-09-30", 3.06) == (
        retired.status,
        retired.retired_on,
        retired.usd_per_hour,
    )


def test_the_estimate_counts_nodes_and_instances() -> None:
    """An hour of training is all its nodes; a forgotten endpoint is all its instances, 24 hours."""
    training, endpoint, day = estimate(
        size="Standard_ND96amsr_A100_v4",
        nodes=2,
        low_priority=False,
        instance_type="Standard_NC24ads_A100_v4",
        instance_count=3,
    )

    assert ("training", 2, "hour", 65.54) == (
        training.what,
        training.count,
        training.per,
        training.usd,
    )
    assert ("endpoint", 3, "hour", 11.02) == (
        endpoint.what,
        endpoint.count,
        endpoint.per,
        endpoint.usd,
    )
    assert ("day", 264.46, "264.46 USD") == (day.per, day.usd, day.price)


def test_the_estimate_says_unknown_and_never_zero() -> None:
    """A line without a price reads `unknown`."""
    lines = estimate(
        size="Standard_NC9999",
        nodes=1,
        low_priority=False,
        instance_type="Standard_NC9999",
        instance_count=1,
    )

    assert [None, None, None] == [line.usd for line in lines]
    assert {"unknown"} == {line.price for line in lines}


def test_the_source_and_date_are_told() -> None:
    """A person can judge how old the prices are."""
    assert "2026-11-21" in price_source()
    assert "SkyPilot" in price_source()
