"""Reading JSON whose shape is a guess: a null, another spelling or another type is no exception.

For what informs a person. What decides anything is read strictly, and refused where it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_FIRST_YEAR = 1970  # "0001-01-01T00:00:00" is how the service spells that there is none.


def look_up(place: Any, name: str) -> Any:
    """Return the value under *name*, however it is spelled: ``runId``, ``run_id``, ``RunId``.

    None where there is none, or *place* is no object.
    """
    if not isinstance(place, Mapping):
        return None
    if name in place:
        return place[name]
    wanted = _spelling(name)
    return next((value for key, value in place.items() if _spelling(str(key)) == wanted), None)


def as_object(value: Any) -> Mapping[str, Any]:
    """Return an object as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def as_items(value: Any) -> list[Any]:
    """Return a list as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str | None:
    """Return text or a number as text that can be written anywhere; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        return str(value).encode("utf-8", "replace").decode() or None
    except ValueError:  # A number of thousands of digits.
        return None


def as_moment(value: Any) -> datetime | None:
    """Return a date with its time zone, UTC where it names none; None where it is no date."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC) if moment.year >= _FIRST_YEAR else None
    except (ValueError, OverflowError):
        return None


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
