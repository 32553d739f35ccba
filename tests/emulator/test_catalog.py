"""The catalogues that come with the emulator agree with themselves, and a bad one is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from azureml_emulator.catalog import Catalog
from azureml_emulator.weights import STANDIN, WeightsError

BUNDLED = ["today", "2024"]
WIRED = re.compile(r"\$\{\{parent\.(inputs|jobs|outputs)\.([\w]+)(?:\.outputs\.([\w]+))?\}\}")


def _bindings(value: Any) -> list[tuple[str, ...]]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in _bindings(item)]
    return [match.groups() for match in WIRED.finditer(str(value))]


@pytest.mark.parametrize("choice", BUNDLED)
def test_every_size_has_a_quota(choice: str) -> None:
    """No size is sold whose family has no row: that it has no cores is then said, not implied."""
    catalog = Catalog.load(choice)

    assert set() == {size["family"] for size in catalog.sizes.values()} - set(catalog.quotas)


@pytest.mark.parametrize("choice", BUNDLED)
def test_the_component_runs_on_what_is_sold(choice: str) -> None:
    """The component's default sizes for serverless steps are sold, but for the retired one."""
    catalog = Catalog.load(choice)
    (component,) = catalog.components
    defaults = {
        spec["default"].lower()
        for name, spec in component["inputs"].items()
        if name.startswith("instance_type_")
    }

    assert (set() if choice == "2024" else {"standard_nc24rs_v3"}) == defaults - set(catalog.sizes)


def test_served_models_can_be_trained_on_what_is_sold_today() -> None:
    """Every size that a model in service allows is on sale, so its preflight can pass."""
    catalog = Catalog.load("today")
    allowed = {
        size.lower()
        for model in catalog.models
        if not model.get("archived")
        for sizes in model["system_metadata"]["supportedComputes"].values()
        for size in sizes
    }

    assert set() == allowed - set(catalog.sizes)


def test_today_sells_nothing_that_was_retired() -> None:
    """The tutorial's V100 and K80 sizes are gone; in 2024 the V100s were still sold."""
    gone = {"standard_nc6s_v3", "standard_nc24rs_v3", "standard_nc6", "standard_nc24"}

    assert set() == gone & set(Catalog.load("today").sizes)
    assert {"standard_nc6s_v3", "standard_nc24rs_v3"} == gone & set(Catalog.load("2024").sizes)


def test_a_quota_refusal_can_be_shown_today() -> None:
    """One family of A100 is generous, H100 is zero."""
    quotas = Catalog.load("today").quotas

    assert quotas["standardNCADSA100v4Family"] >= 96
    assert 0 == quotas["standardNCadsH100v5Family"]


def test_the_pipeline_is_wired_to_what_it_declares() -> None:
    """Each step binds inputs that the component has, and outputs of steps before it."""
    (component,) = Catalog.load("today").components
    before: set[str] = set()
    for key, job in component["jobs"].items():
        for kind, name, _ in _bindings(job):
            known = {"inputs": component["inputs"], "outputs": component["outputs"]}.get(
                kind, before
            )
            assert name in known, (key, name)
        before.add(key)

    assert [
        "ft_nlp_common_validation",
        "chat_completion_model_import",
        "chat_completion_datapreprocess",
        "chat_completion_finetune",
        "ft_nlp_model_converter",
    ] == list(component["jobs"])


def test_prices_are_looked_up_in_any_case() -> None:
    """A size costs the same however it is spelled; one that is not sold costs nothing."""
    catalog = Catalog.load("today")

    assert 3.673 == catalog.price("STANDARD_NC24ADS_A100_V4")
    assert 0.0 == catalog.price("Standard_NC6")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sizes": [{"name": "Standard_A1"}]}, r"sizes\[0\] lacks"),
        ({"models": [{"name": "tiny"}]}, r"models\[0\] lacks"),
        ({"regions": []}, "must have just the sections"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A catalogue of the user's own with a gap is refused at start, naming the place."""
    empty: dict[str, Any] = {"sizes": [], "quotas": {}, "models": [], "components": []}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"location": "eastus2", **empty, **change}))

    with pytest.raises(ValueError, match=said):
        Catalog.load(str(file))


def test_a_model_that_does_not_say_is_backed_by_the_stand_in() -> None:
    """Every model of a catalogue can be trained; one that it lacks is backed by nothing."""
    catalog = Catalog.load("today")

    assert "smollm2" == catalog.weights("smollm2-135m-instruct", "1")
    assert "tiny" == catalog.weights("Phi-4", "8")
    assert catalog.weights("Phi-4", "9") is None


def test_a_folder_backs_all_versions_of_a_model(tmp_path: Path) -> None:
    """``--weights`` names a model, whichever version a job takes, and leaves the rest alone."""
    catalog = Catalog.load("today").backed_by({"PHI-3-mini-4k-instruct": STANDIN})

    assert {str(STANDIN)} == {
        catalog.weights("Phi-3-mini-4k-instruct", version) for version in ("1", "15")
    }
    assert "tiny" == catalog.weights("Phi-4", "8")
    with pytest.raises(WeightsError, match="cannot back a model"):
        catalog.backed_by({"Phi-4": tmp_path})


def test_an_unknown_name_is_refused() -> None:
    """A name that is neither bundled nor a file is refused with what there is."""
    with pytest.raises(ValueError, match="neither today, 2024 nor a file"):
        Catalog.load("tomorrow")
