"""The two kinds of data that pass between steps: what is asked for, and what was found or made."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """What is asked for: a part of the flow's parameters. Unknown keys are refused."""

    # A version of 3 in a YAML file is a number; where text is asked for it is meant as "3".
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True
    )


class Result(BaseModel):
    """What was found or made: small, frozen, JSON; never a client, a credential or a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)
