"""What an hour of a GPU size costs: list prices from a committed file, for orientation only.

The file says where each figure comes from and when it was collected. It holds no low-priority
prices and no contract's discounts; what it does not know is None, never 0.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from lifecycle.plain import Result

_FILE = Path(__file__).parent / "data" / "azure_gpu_skus.json"


class SizePrice(Result):
    """A GPU size, its list price, and whether it can still be had."""

    name: str = Field(title="Size", description="The VM size, as Azure spells it.")
    gpu: str = Field(title="GPU", description="Which GPU it has.")
    gpus: int = Field(title="GPUs", description="How many.", ge=1)
    usd_per_hour: float = Field(title="USD per hour", description="Pay as you go.", gt=0)
    price_region: str = Field(title="Region", description="Where the price was read.")
    status: Literal["active", "retired", "unclear"] = Field(
        title="Status", description="Whether Azure still offers it."
    )
    retired_on: str | None = Field(title="Retired on", description="The date, where one is known.")
    note: str | None = Field(title="Note", description="What the sources say beyond that.")


class PriceLine(Result):
    """One line of the price table of a plan."""

    what: str = Field(title="What", description="What is billed.")
    size: str = Field(title="Size", description="The VM size.")
    count: int = Field(title="Count", description="Nodes or instances.", ge=1)
    per: Literal["hour", "day"] = Field(title="Per", description="What the price is for.")
    usd: float | None = Field(
        title="USD", description="The price of them all; none where it is not known."
    )

    @property
    def price(self) -> str:
        """The price as a person reads it: ``unknown`` where it is not known."""
        return "unknown" if self.usd is None else f"{self.usd:,.2f} USD"


class Rates(Result):
    """What a run pays by the hour, known before it begins."""

    size: str = Field(title="Size", description="The VM size that trains.")
    nodes: int = Field(title="Nodes", description="How many of it.", ge=1)
    node_hour_usd: float | None = Field(
        title="A node", description="USD for an hour of one; none where it is not known."
    )
    instance_type: str = Field(title="Instance type", description="The VM size that serves.")
    instances: int = Field(title="Instances", description="How many in each deployment.", ge=1)
    instance_hour_usd: float | None = Field(
        title="An instance", description="USD for an hour of one; none where it is not known."
    )


class RunCost(Result):
    """What a run costs at list prices; what is not known is none, never 0."""

    currency: str = Field(title="Currency", description="Of all figures.", examples=["USD"])
    training_usd: float | None = Field(title="Training", description="The nodes, while it ran.")
    endpoint_usd: float | None = Field(
        title="Endpoint", description="The instances of all its deployments, while they were up."
    )
    total_usd: float | None = Field(title="Total", description="Both.")
    forgotten_day_usd: float | None = Field(
        title="A forgotten day", description="Those instances for 24 hours."
    )
    assumptions: list[str] = Field(title="Assumptions", description="How it was reckoned.")


def price_source() -> str:
    """Say in one sentence where the prices come from."""
    table = _table()
    return (
        f"{table['price_kind']}, in {table['currency']}, collected {table['collected']} from "
        f"{table['price_source']}. Your contract and region may differ."
    )


def collected() -> str:
    """Return the day on which the table was collected, as ``2026-11-21``."""
    return str(_table()["collected"])


def known_sizes() -> list[SizePrice]:
    """Return every size of the table."""
    return list(_sizes().values())


def find_size(size: str) -> SizePrice | None:
    """Return what is known of a VM size, in any spelling of upper and lower case, or None."""
    return _sizes().get(size.lower())


def price_of(size: str, low_priority: bool) -> float | None:
    """Return USD for an hour of one node of this size, or None where it is not known.

    No price of a low-priority node is known: it changes with the region and the day.
    """
    known = find_size(size)
    return None if known is None or low_priority else known.usd_per_hour


def estimate(
    *, size: str, nodes: int, low_priority: bool, instance_type: str, instance_count: int
) -> list[PriceLine]:
    """Price an hour of training, and an hour and a forgotten day of the endpoint.

    Args:
        size: The VM size that trains.
        nodes: How many of it, 1 or more.
        low_priority: Whether they are low-priority nodes.
        instance_type: The VM size that serves.
        instance_count: How many of it, 1 or more.
    """
    training = price_of(size, low_priority)
    serving = price_of(instance_type, low_priority=False)
    return [
        _line("training", size, nodes, "hour", training),
        _line("endpoint", instance_type, instance_count, "hour", serving),
        _line("endpoint left running", instance_type, instance_count, "day", serving),
    ]


def rates(
    *, size: str, nodes: int, low_priority: bool, instance_type: str, instance_count: int
) -> Rates:
    """Look up what an hour costs. Args are :func:`estimate`'s."""
    return Rates(
        size=size,
        nodes=nodes,
        node_hour_usd=price_of(size, low_priority),
        instance_type=instance_type,
        instances=instance_count,
        instance_hour_usd=price_of(instance_type, low_priority=False),
    )


def price_run(rates: Rates, *, training_seconds: float, serving_seconds: list[float]) -> RunCost:
    """Price a run by what it took.

    Args:
        rates: What an hour costs.
        training_seconds: How long the job ran.
        serving_seconds: How long each deployment was up, from the request that made it on.
    """
    training = _times(rates.node_hour_usd, rates.nodes * training_seconds / 3600)
    serving = _times(rates.instance_hour_usd, rates.instances * sum(serving_seconds) / 3600)
    deployments = max(len(serving_seconds), 1)
    return RunCost(
        currency=str(_table()["currency"]),
        training_usd=training,
        endpoint_usd=serving,
        total_usd=None if training is None or serving is None else round(training + serving, 4),
        forgotten_day_usd=_times(rates.instance_hour_usd, rates.instances * deployments * 24),
        assumptions=[
            f"Training: {training_seconds:.0f} s of {rates.nodes} × {rates.size} at "
            f"{_hourly(rates.node_hour_usd)}; the minutes in which nodes start and stand idle "
            "are not counted.",
            f"Endpoint: {sum(serving_seconds):.0f} s of {rates.instances} × {rates.instance_type} "
            f"at {_hourly(rates.instance_hour_usd)}, all its deployments together.",
            "As long as this run took, on the machines that it had; others take another time.",
            price_source(),
        ],
    )


def _times(usd_per_hour: float | None, hours: float) -> float | None:
    return None if usd_per_hour is None else round(usd_per_hour * hours, 4)


def _hourly(usd: float | None) -> str:
    return "an unknown price" if usd is None else f"{usd:,.2f} USD an hour"


def _line(
    what: str, size: str, count: int, per: Literal["hour", "day"], usd_per_hour: float | None
) -> PriceLine:
    hours = 24 if per == "day" else 1
    usd = None if usd_per_hour is None else round(usd_per_hour * count * hours, 2)
    return PriceLine(what=what, size=size, count=count, per=per, usd=usd)


@cache
def _table() -> dict[str, object]:
    table: dict[str, object] = json.loads(_FILE.read_text(encoding="utf-8"))
    return table


@cache
def _sizes() -> dict[str, SizePrice]:
    sizes = TypeAdapter(list[SizePrice]).validate_python(_table()["sizes"])
    return {size.name.lower(): size for size in sizes}
