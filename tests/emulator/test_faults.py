"""Fault rules: which requests they hit, and that a rule that makes no sense is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator.errors import BadRequest
from azureml_emulator.faults import Faults
from azureml_emulator.store import Store


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    store = Store(tmp_path / "store.sqlite")
    yield Faults(store)
    store.close()


def _rule(match: dict[str, str], **rest: Any) -> dict[str, Any]:
    return {"match": match, "effect": {"status": 503}, **rest}


def test_a_rule_hits_by_method_and_by_a_pattern_in_the_path(faults: Faults) -> None:
    """The path is searched without case, since the SDK spells it in more than one way."""
    faults.replace([_rule({"method": "put", "path": "/onlineEndpoints/[^/]+$"})])

    assert {"status": 503} == faults.effects("PUT", "/x/ONLINEENDPOINTS/e")
    assert {} == faults.effects("GET", "/x/onlineEndpoints/e")
    assert {} == faults.effects("PUT", "/x/onlineEndpoints/e/deployments/d")


def test_nth_counts_the_matches_from_one(faults: Faults) -> None:
    """Only the named ones of the requests that match are hit."""
    faults.replace([_rule({"path": "/a"}, nth=[1, 3])])
    hits = [bool(faults.effects("GET", path)) for path in ("/a", "/b", "/a", "/a", "/a")]

    assert [True, False, False, True, False] == hits
    assert [4] == [rule["matched"] for rule in faults.rules()]


def test_two_rules_that_hit_are_merged_the_later_wins(faults: Faults) -> None:
    """A delay and a status may come from different rules."""
    faults.replace(
        [
            {"match": {}, "effect": {"delay": 1, "status": 500}},
            {"match": {"path": "/a"}, "effect": {"status": 429, "headers": {"Retry-After": "1"}}},
        ]
    )

    assert {"delay": 1, "status": 429, "headers": {"Retry-After": "1"}} == faults.effects(
        "GET", "/a"
    )


def test_new_rules_take_the_place_of_the_old_and_count_anew(faults: Faults) -> None:
    """Rules are set as one list, and an empty one ends all faults."""
    faults.replace([_rule({})])
    faults.effects("GET", "/")
    faults.replace([_rule({}, nth=[1])])
    first = faults.effects("GET", "/")
    faults.replace([])

    assert {"status": 503} == first
    assert {} == faults.effects("GET", "/")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("x", "Rule 0 needs a match and an effect"),
        ({"match": {}}, "Rule 0 needs a match and an effect"),
        ({"match": {}, "effect": {"statos": 1}}, "unknown effects"),
        ({"match": {"verb": "GET"}, "effect": {}}, "unknown match"),
        ({"match": {"path": "("}, "effect": {}}, "no regular expression"),
        ({"match": {}, "effect": {}, "nth": 1}, "nth"),
        ({"match": {}, "effect": {"status": "503"}}, "status"),
        ({"match": {}, "effect": {"delay": -1}}, "delay"),
        ({"match": {}, "effect": {"operation_error": {"code": "X"}}}, "operation_error"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(faults: Faults, rule: Any, said: str) -> None:
    """A test with a misspelt fault fails when it sets it, and the rules there were stay."""
    faults.replace([_rule({"path": "/a"})])
    with pytest.raises(BadRequest) as refused:
        faults.replace([rule])

    assert said in refused.value.message
    assert {"status": 503} == faults.effects("GET", "/a")
