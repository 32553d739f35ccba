"""Fault rules: which requests they hit, and that a rule that makes no sense is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator.errors import BadRequest
from azureml_emulator.faults import EFFECTS, Faults
from azureml_emulator.store import Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ERROR = {"code": "X", "message": "x"}


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    store = Store(tmp_path / "store.sqlite")
    yield Faults(store)
    store.close()


def _rule(match: dict[str, str], **rest: Any) -> dict[str, Any]:
    return {"match": match, "effect": {"status": 503}, **rest}


def _hits(faults: Faults, *, at: Iterable[float] = (0,), path: str = "/a") -> list[bool]:
    return [bool(faults.effects("GET", path, now=now)) for now in at]


def test_a_rule_hits_by_method_and_by_a_pattern_in_the_path(faults: Faults) -> None:
    """The path is searched without case, since the SDK spells it in more than one way."""
    faults.replace([_rule({"method": "put", "path": "/onlineEndpoints/[^/]+$"})])

    assert {"status": 503} == faults.effects("PUT", "/x/ONLINEENDPOINTS/e", now=0)
    assert {} == faults.effects("GET", "/x/onlineEndpoints/e", now=0)
    assert {} == faults.effects("PUT", "/x/onlineEndpoints/e/deployments/d", now=0)


def test_nth_counts_the_matches_from_one(faults: Faults) -> None:
    """Only the named ones of the requests that match are hit."""
    faults.replace([_rule({"path": "/a"}, nth=[1, 3])])
    hits = [bool(faults.effects("GET", path, now=0)) for path in ("/a", "/b", "/a", "/a", "/a")]

    assert [True, False, False, True, False] == hits
    assert [4] == [rule["matched"] for rule in faults.rules()]


def test_probability_strikes_the_same_requests_for_the_same_seed(faults: Faults) -> None:
    """About as many as it says, reproducibly, and others for another seed."""

    def struck(seed: int, chance: float) -> list[bool]:
        faults.replace([_rule({}, probability=chance, seed=seed)])
        return _hits(faults, at=[0] * 200)

    first, again, other = struck(7, 0.2), struck(7, 0.2), struck(8, 0.2)
    faults.replace([_rule({}, probability=0.2, seed=7)])
    counted = [sum(_hits(faults, at=[0] * 200)), faults.rules()[0]["struck"]]

    assert first == again != other
    assert 20 <= sum(first) <= 60
    assert [sum(first), sum(first)] == counted
    assert ([False] * 200, [True] * 200) == (struck(7, 0), struck(7, 1))


def test_seconds_end_a_rule_so_long_after_its_first_match(faults: Faults) -> None:
    """A deletion that is refused for a while goes through after it, however often it is tried."""
    faults.replace([_rule({"path": "/a"}, seconds=60)])
    before = _hits(faults, at=[5], path="/b")

    assert [False] == before
    assert [True, True, True, False, False] == _hits(faults, at=[10, 11, 69.9, 70, 1000])


def test_the_rules_can_be_read_and_set_again(faults: Faults) -> None:
    """What GET answers PUT takes; counting begins anew, and a time window too."""
    faults.replace([_rule({}, seconds=60)])
    _hits(faults, at=[0, 10])
    (told,) = faults.rules()
    faults.replace([told])

    assert (2, 2) == (told["matched"], told["struck"])
    assert {"match", "effect", "seconds", "matched", "struck"} == set(told)
    assert [True, True, False] == _hits(faults, at=[100, 159, 160])


def test_two_rules_that_hit_are_merged_the_later_wins(faults: Faults) -> None:
    """A delay and a status may come from different rules."""
    faults.replace(
        [
            {"match": {}, "effect": {"delay": 1, "status": 500}},
            {"match": {"path": "/a"}, "effect": {"status": 429, "headers": {"Retry-After": "1"}}},
        ]
    )

    struck = faults.effects("GET", "/a", now=0)

    assert {"delay": 1, "status": 429, "headers": {"Retry-After": "1"}} == struck


def test_new_rules_take_the_place_of_the_old_and_count_anew(faults: Faults) -> None:
    """Rules are set as one list, and an empty one ends all faults."""
    faults.replace([_rule({})])
    faults.effects("GET", "/", now=0)
    faults.replace([_rule({}, nth=[1])])
    first = faults.effects("GET", "/", now=0)
    faults.replace([])

    assert {"status": 503} == first
    assert {} == faults.effects("GET", "/", now=0)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("x", "Rule 0 needs a match and an effect"),
        ({"match": {}}, "Rule 0 needs a match and an effect"),
        (_rule({}, when=1), "unknown fields ['when']"),
        ({"match": "/a", "effect": {}}, "a match that is no text by name"),
        ({"match": {"path": 1}, "effect": {}}, "a match that is no text by name"),
        ({"match": {"verb": "GET"}, "effect": {}}, "unknown match ['verb']"),
        ({"match": {"path": "("}, "effect": {}}, "no regular expression"),
        (_rule({}, nth=1), "an nth that is no list"),
        (_rule({}, nth=[0]), "an nth that is no list of whole numbers, 1 or more"),
        (_rule({}, nth=[True]), "an nth that is no list"),
        (_rule({}, nth=[1], probability=0.5, seed=1), "both nth and probability"),
        (_rule({}, probability=0.5), "both probability and seed, or neither"),
        (_rule({}, seed=1), "both probability and seed, or neither"),
        (_rule({}, probability=1.5, seed=1), "not from 0 to 1"),
        (_rule({}, probability=0.5, seed="x"), "a seed that is no whole number"),
        (_rule({}, seconds=-1), "seconds that are no number"),
        ({"match": {}, "effect": []}, "an effect that is no object"),
        ({"match": {}, "effect": {"statos": 1}}, "unknown effects ['statos']"),
        *(
            ({"match": {}, "effect": effect}, f"has the {next(iter(effect))} ")
            for effect in (
                {"status": "503"},
                {"status": 199},
                {"status": True},
                {"delay": -1},
                {"delay": float("nan")},
                {"delay": 10**400},
                {"after": 1, "status": 500},
                {"headers": {"X": 1}, "status": 500},
                {"headers": {"X": "a\nb"}, "status": 500},
                {"headers": {"X Y": "a"}, "status": 500},
                {"body": {}, "status": 500},
                {"error": {"code": "X"}, "status": 500},
                {"hang": False},
                {"reset": "yes"},
                {"truncate": -1},
                {"truncate": 0.5},
                {"operation_error": {"code": "X"}},
                {"job": "Failed"},
                {"job": {"status": "Completed"}},
                {"job": {"status": "Failed", "step": 1}},
                {"token_lifetime": "soon"},
                {"hidden": True},
                {"settling": None},
            )
        ),
        ({"match": {}, "effect": {"status": 500, "reset": True}}, "more than one of status, hang"),
        ({"match": {}, "effect": {"after": True}}, "an after without status, hang or reset"),
        ({"match": {}, "effect": {"body": "x"}}, "has body without a status"),
        ({"match": {}, "effect": {"headers": {}}}, "has headers without a status"),
        (
            {"match": {}, "effect": {"status": 500, "body": "x", "error": ERROR}},
            "has both a body and an error",
        ),
        ({"match": {}, "effect": {"truncate": 1, "hang": True}}, "truncate and hang"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(faults: Faults, rule: Any, said: str) -> None:
    """A test with a misspelt fault fails when it sets it, and the rules there were stay."""
    faults.replace([_rule({"path": "/a"})])
    with pytest.raises(BadRequest) as refused:
        faults.replace([rule])

    assert said in refused.value.message
    assert {"status": 503} == faults.effects("GET", "/a", now=0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
RULES = JSON | st.fixed_dictionaries(
    {
        "match": JSON | st.fixed_dictionaries({}, optional={"method": JSON, "path": JSON}),
        "effect": JSON | st.dictionaries(st.sampled_from(sorted(EFFECTS)), JSON, max_size=3),
    },
    optional=dict.fromkeys(("nth", "probability", "seed", "seconds", "matched"), JSON),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rule=RULES)
def test_any_json_is_a_rule_or_refused_in_a_sentence(faults: Faults, rule: Any) -> None:
    """Nothing that is sent is a bug of the emulator, neither when it is set nor when it strikes."""
    try:
        faults.replace([rule])
    except BadRequest as refusal:
        said = refusal.message
    else:
        said = "Rule 0 is set"

    assert said.startswith("Rule 0 ")
    assert faults.effects("GET", "/a", now=0).keys() <= EFFECTS


def test_every_rule_in_the_docs_can_be_set(faults: Faults) -> None:
    """What a reader copies is taken, and every effect but a mere delay is shown."""
    pages = (Path("docs/faults.md"), Path("emulator/README.md"))
    blocks = [
        json.loads(block)
        for page in pages
        for block in re.findall(r"```json\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    rules = [rule for block in blocks for rule in block.get("rules", [block])]
    faults.replace(rules)

    shown = {effect for rule in rules for effect in rule["effect"]}
    assert {"delay"} == EFFECTS - shown
