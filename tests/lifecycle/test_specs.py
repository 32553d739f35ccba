"""Whatever JSON is given for a configuration: a configuration comes of it, or one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle.config import FinetuneConfig, check_config, check_workspace, load_config
from lifecycle.errors import ConfigurationError
from lifecycle.plain import Spec

LOCAL = Path("profiles/local.yaml")
WHOLE = load_config(LOCAL).model_dump(mode="json")
LONGEST_MESSAGE = 4000

# Also what JSON allows and nobody means: halves of characters, numbers beyond all bounds.
TEXT = st.text(st.characters(codec=None), max_size=40)
NUMBERS = st.integers() | st.sampled_from([10**30, -(10**30), 10**400, 2**63, 1e308, -0.0, 5e-324])
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats() | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
SECTIONS: dict[str, type[Spec]] = {
    name: field.annotation
    for name, field in FinetuneConfig.model_fields.items()
    if field.annotation is not None
}

quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def near_misses(section: str) -> st.SearchStrategy[dict[str, Any]]:
    """A section that is right but for a few of its values, and perhaps a name that is unknown."""
    fields = SECTIONS[section].model_fields
    wrong = {
        name: JSON | st.sampled_from([field.default, *(field.examples or [])])
        for name, field in fields.items()
        if isinstance(field.default, str | int | float | bool | None) or field.is_required()
    }
    wrong |= {name: JSON for name in fields if name not in wrong}
    changed = st.dictionaries(st.sampled_from(sorted(wrong)), st.none(), min_size=1, max_size=3)
    drawn = changed.flatmap(
        lambda names: st.fixed_dictionaries({name: wrong[name] for name in names})
    )
    unknown = st.dictionaries(TEXT, JSON, max_size=1) | st.just({})
    return st.tuples(drawn, unknown).map(lambda pair: {**WHOLE[section], **pair[0], **pair[1]})


def clear_error(check: Callable[[], object]) -> ConfigurationError | None:
    """Return the one error that a check may raise, if it did: one that can be shown and kept."""
    try:
        check()
    except ConfigurationError as refusal:
        error = refusal
    else:
        return None
    assert error.where
    assert str(error).isprintable(), str(error)
    assert len(str(error)) < LONGEST_MESSAGE
    json.dumps(error.as_dict(), allow_nan=False)
    return error


def test_every_spec_is_a_section() -> None:
    """So that the tests below reach all of them."""
    specs = {spec for spec in Spec.__subclasses__() if spec.__name__.endswith("Spec")}

    assert specs == set(SECTIONS.values())


@quick
@given(JSON)
def test_any_json_is_a_configuration_or_one_clear_error(values: Any) -> None:
    """Not even an object need be given."""
    assert clear_error(lambda: check_config(values))


@pytest.mark.parametrize("section", SECTIONS)
@quick
@given(data=st.data())
def test_any_value_of_a_section_is_taken_or_refused_with_its_place(
    section: str, data: st.DataObject
) -> None:
    """What is taken is the same when it comes back from JSON, as it does from Prefect."""
    values = {**WHOLE, section: data.draw(near_misses(section) | JSON)}

    if not clear_error(lambda: check_config(values)):
        config = check_config(values)
        written = json.dumps(config.model_dump(mode="json"), allow_nan=False)
        assert config == check_config(json.loads(written))


@quick
@given(st.sampled_from(["dataset.percentage", "model.version", "training.overrides.x"]), TEXT)
def test_any_text_of_set_is_a_value_or_one_clear_error(name: str, text: str) -> None:
    """``--set name=text``, whatever YAML makes of the text."""
    clear_error(lambda: load_config(LOCAL, [f"{name}={text}"]))


@quick
@given(JSON)
def test_any_workspace_is_taken_or_refused(values: Any) -> None:
    """The section that the other verbs read alone."""
    clear_error(lambda: check_workspace({"workspace": values}))
