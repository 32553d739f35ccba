"""The two kinds of data that pass between steps: what is asked for, and what was found or made."""

from __future__ import annotations

from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, model_validator


class Spec(BaseModel):
    """What is asked for: a part of the flow's parameters. Unknown keys are refused.

    An empty section is the section's defaults, and so is an empty mapping in it: whoever comments
    out all keys of one in YAML leaves a null.
    """

    # A version of 3 in a YAML file is a number; where text is asked for it is meant as "3".
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, values: Any) -> Any:
        if values is None:
            return {}
        if not isinstance(values, dict):
            return values
        return {
            name: value
            for name, value in values.items()
            if value is not None or not cls._is_mapping(name)
        }

    @classmethod
    def _is_mapping(cls, name: Any) -> bool:
        field = cls.model_fields.get(name)
        return field is not None and get_origin(field.annotation) is dict


class Result(BaseModel):
    """What was found or made: small, frozen, JSON; never a client, a credential or a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)
