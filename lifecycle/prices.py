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


def price_source() -> str:
    """Say in one sentence where the prices come from."""
    table = _table()
    return (
        f"{table['price_kind']}, in {table['currency']}, collected {table['collected']} from "
        f"{table['price_source']}. Your contract and region may differ."
    )


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
