"""A shape tells how an answer is built, and nothing of what is in it."""

from __future__ import annotations

import pytest

from cli.shapes import Difference, compare, shape, template

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (
            f"https://management.azure.com/subscriptions/{SUBSCRIPTION}/resourcegroups/jobs/providers"
            "/Microsoft.MachineLearningServices/workspaces/models/computes/Data?api-version=1&sig=x",
            "/subscriptions/*/resourceGroups/*/providers/Microsoft.MachineLearningServices"
            "/workspaces/*/computes/*",
        ),
        ("https://eastus2.api.azureml.ms/discovery", "/discovery"),
        ("https://stor123.blob.core.windows.net/acme/secret/std_log.txt?sig=x", "/*/*/*"),
    ],
)
def test_a_path_loses_every_name(url: str, path: str) -> None:
    """Also a name that is a word of the API; the host and the query go too."""
    assert path == template(url)


def test_fields_have_types_and_no_values() -> None:
    """Objects and lists are followed; several types of one field are kept apart."""
    answer = {"value": [{"name": "acme", "count": 1}, {"name": None, "count": 1.5, "on": True}]}

    assert {
        "(body)": {"object"},
        "value": {"array"},
        "value[]": {"object"},
        "value[].name": {"string", "null"},
        "value[].count": {"integer", "number"},
        "value[].on": {"boolean"},
    } == shape(answer)


@pytest.mark.parametrize(
    "answer",
    [
        {"tags": {"acme": "1"}},
        {"properties": {"properties": {"acme": "1"}}},
        {"properties": {"traffic": {"acme": 100}}},
        {"properties": {"inputs": {"acme": {"path": "x"}}}},
        {"identity": {"userAssignedIdentities": {"/subscriptions/acme": {}}}},
        {"anything": {"acme.example.com": 1, "acme-prod": 2, SUBSCRIPTION: 3}},
    ],
)
def test_keys_that_people_choose_are_not_kept(answer: dict[str, object]) -> None:
    """A tag's name, a deployment's, a resource id: as much a value as what it stands for."""
    assert "acme" not in str(shape(answer))
    assert SUBSCRIPTION not in str(shape(answer))


def test_the_properties_of_a_run_are_its_owners() -> None:
    """Run history keeps its map of properties at the top, where Resource Manager keeps fields."""
    answer = {"properties": {"acme": "1"}}

    assert {"(body)", "properties", "properties.*"} == set(shape(answer, "GET /history/v1.0 200"))
    assert {"(body)", "properties", "properties.acme"} == set(shape(answer, "GET /x 200"))


def test_what_differs_is_named_with_both_types() -> None:
    """Missing on either side, or of another type. Null may be anything; routes must be in both."""
    recorded = {
        "GET /a 200": {"gone": "string", "kind": "integer", "same": "string", "late": "null"},
        "GET /b 200": {"x": "string"},
    }
    seen = {
        "GET /a 200": {
            "new": "null|object",
            "kind": "string",
            "same": "null|string",
            "late": "array",
        },
        "GET /c 200": {"x": "string"},
    }

    assert [
        Difference("GET /a 200", "gone", "string", "absent"),
        Difference("GET /a 200", "kind", "integer", "string"),
        Difference("GET /a 200", "new", "absent", "null|object"),
    ] == compare(recorded, seen)
