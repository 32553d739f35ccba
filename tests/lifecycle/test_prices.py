"""Prices come from the committed table, and what is not known is said to be unknown."""

from __future__ import annotations

import pytest

from lifecycle.prices import (
    Rates,
    estimate,
    find_size,
    price_of,
    price_run,
    price_source,
    rates,
)

HOURLY = Rates(
    size="trains",
    nodes=2,
    node_hour_usd=3.6,
    instance_type="serves",
    instances=3,
    instance_hour_usd=0.5,
)


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


def test_a_run_is_priced_by_what_it_took() -> None:
    """All nodes for as long as the job ran, all instances for as long as each deployment was up."""
    cost = price_run(HOURLY, training_seconds=1000, serving_seconds=[3600, 1800])

    assert [2.0, 2.25, 4.25] == [cost.training_usd, cost.endpoint_usd, cost.total_usd]
    assert ("USD", 72.0) == (cost.currency, cost.forgotten_day_usd)
    assert "1000 s of 2 × trains at 3.60 USD an hour" in cost.assumptions[0]
    assert price_source() == cost.assumptions[-1]


def test_a_run_without_an_endpoint_still_tells_what_a_day_of_it_costs() -> None:
    """One deployment, as it would have been."""
    cost = price_run(HOURLY, training_seconds=0, serving_seconds=[])

    assert (0.0, 36.0) == (cost.total_usd, cost.forgotten_day_usd)


def test_a_price_that_is_not_known_makes_the_total_unknown() -> None:
    """Half a bill is not passed off as the whole."""
    low = rates(
        size="Standard_NC24ads_A100_v4",
        nodes=1,
        low_priority=True,
        instance_type="Standard_NC24ads_A100_v4",
        instance_count=1,
    )
    cost = price_run(low, training_seconds=3600, serving_seconds=[3600])

    assert (None, 3.673, None) == (cost.training_usd, cost.endpoint_usd, cost.total_usd)
    assert "an unknown price" in cost.assumptions[0]
