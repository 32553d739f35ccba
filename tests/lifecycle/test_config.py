"""A configuration is read, overridden and checked before anything is asked of Azure."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.component import TrainingSpec
from lifecycle.config import FinetuneConfig, check_workspace, load_config, read_values
from lifecycle.errors import ConfigurationError

PROFILES = Path("profiles")


@pytest.mark.parametrize("profile", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_is_a_configuration(profile: Path) -> None:
    """What the README names can be run as it is."""
    config = load_config(profile)

    assert isinstance(config, FinetuneConfig)


def test_the_tutorials_profile_is_the_tutorials_configuration() -> None:
    """Model, data, percentage and training values are the published ones."""
    config = load_config(PROFILES / "phi-3-mini-ultrachat.yaml")

    assert ("Phi-3-mini-4k-instruct", True) == (config.model.name, config.model.allow_retired)
    assert ("HuggingFaceH4/ultrachat_200k", 5) == (config.dataset.path, config.dataset.percentage)
    assert 5e-6 == config.training.defaults["learning_rate"]
    assert (600, 90) == (
        config.endpoint.liveness_probe_delay_seconds,
        config.endpoint.request_timeout_seconds,
    )


def test_set_overrides_the_file_and_reads_numbers_as_yaml_1_2(tmp_path: Path) -> None:
    """5e-6 is a number, in a file and in --set, and the last setting wins."""
    config = load_config(
        PROFILES / "local.yaml",
        [
            "training.overrides.learning_rate=5e-6",
            "dataset.percentage=7",
            "dataset.percentage=12.5",
            "model.version=3",
        ],
    )

    assert 5e-6 == config.training.overrides["learning_rate"]
    assert 12.5 == config.dataset.percentage
    assert "3" == config.model.version


@pytest.mark.parametrize(
    ("setting", "where", "said"),
    [
        ("modle.name=x", "modle", "there is no such parameter; did you mean 'model'?"),
        ("model.nmae=x", "model.nmae", "did you mean 'name'?"),
        ("dataset.percentage=0", "dataset.percentage", "greater than 0"),
        ("dataset.percentage=101", "dataset.percentage", "less than or equal to 100"),
        ("compute.nodes=two", "compute.nodes", "valid integer"),
        ("endpoint.name_prefix=9lives", "endpoint.name_prefix", "a letter first"),
        ("endpoint.request_timeout_seconds=181", "endpoint.request_timeout_seconds", "180"),
        ("model=Phi", "model", "dictionary"),
        ("nonsense", "--set", "a.b=value"),
        ("model.name.first=x", "model.name.first", "has no parts"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(setting: str, where: str, said: str) -> None:
    """Each kind of mistake names the parameter at fault and what would be right."""
    with pytest.raises(ConfigurationError) as refusal:
        load_config(PROFILES / "local.yaml", [setting])

    assert str(refusal.value.where).endswith(where)
    assert said in refusal.value.message


SECTIONS = ("workspace", "dataset", "training", "job", "evaluation")
REQUIRED = """
model: {name: Phi-4}
compute: {name: gpu-cluster, size: Standard_NC24ads_A100_v4}
endpoint: {instance_type: Standard_NC24ads_A100_v4}
dataset:
"""


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("empty", ["", " {}", " null", "\n  # path: x"])
def test_an_empty_section_is_its_defaults(tmp_path: Path, section: str, empty: str) -> None:
    """All keys commented out, or not there at all: one and the same."""
    whole, with_empty = tmp_path / "whole.yaml", tmp_path / "empty.yaml"
    whole.write_text(REQUIRED.replace("dataset:", "dataset: {}"))
    with_empty.write_text(REQUIRED.replace("dataset:\n", "") + f"{section}:{empty}\n")
    if section != "dataset":
        with_empty.write_text(with_empty.read_text() + "dataset:\n")

    assert load_config(whole) == load_config(with_empty)
    assert {} == read_values(with_empty)[section]


def test_what_an_empty_section_must_hold_is_named(tmp_path: Path) -> None:
    """By its own path, not as a section that is of the wrong type."""
    path = tmp_path / "empty.yaml"
    path.write_text("model:\ncompute:\n  # size: x\ndataset:\nendpoint:\n")

    with pytest.raises(ConfigurationError) as refusal:
        load_config(path)

    said = str(refusal.value)
    for name in ("model.name", "compute.size", "endpoint.instance_type"):
        assert f"{name}: a value is required" in said
    assert "dictionary" not in said


def test_a_setting_fills_a_section_that_is_empty(tmp_path: Path) -> None:
    """At any depth."""
    path = tmp_path / "empty.yaml"
    path.write_text(REQUIRED + "training:\njob: null\n")
    settings = ["training.overrides.max_steps=3", "job.run_deadline_minutes=5", "dataset.seed=4"]

    config = load_config(path, settings)

    assert {"max_steps": 3} == config.training.overrides
    assert (5, 4) == (config.job.run_deadline_minutes, config.dataset.seed)


def test_an_empty_mapping_in_a_section_is_its_default(tmp_path: Path) -> None:
    """The mappings of training and dataset; a value that may be null stays null."""
    path = tmp_path / "empty.yaml"
    path.write_text(
        REQUIRED
        + "  columns:\n  roles:\n  rows:\n  generation_split:\n"
        + "training: {overrides: , defaults: }\n"
    )

    config = load_config(path)

    assert TrainingSpec() == config.training
    assert [{}, {}] == [config.dataset.columns, config.dataset.roles]
    assert [None, None] == [config.dataset.rows, config.dataset.generation_split]


def test_a_value_has_no_parts_even_where_it_is_null(tmp_path: Path) -> None:
    """A setting below a parameter that holds one value is refused."""
    path = tmp_path / "config.yaml"
    path.write_text(REQUIRED + "  revision:\n")

    with pytest.raises(ConfigurationError, match="valid string") as refusal:
        load_config(path, ["dataset.revision.x=1"])

    assert str(refusal.value.where).endswith("dataset.revision")


UNREADABLE = "2001-99-99", "!!bool x", "!!int x", "{a", "*a", "9" * 5000, "[" * 2000, "&a [*a]"


@pytest.mark.parametrize("text", [*UNREADABLE, "x" * 5000])
def test_a_value_that_cannot_be_read_is_refused(text: str) -> None:
    """Whatever the YAML reader raises of it."""
    with pytest.raises(ConfigurationError) as refusal:
        load_config(PROFILES / "local.yaml", [f"dataset.percentage={text}"])

    assert "dataset.percentage" in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_verb_that_needs_the_workspace_alone_checks_it_alone() -> None:
    """An incomplete model section is no matter to a sweep; a misspelt name is told as ever."""
    named = {"workspace": {"name": "w"}, "model": {}}
    assert "w" == check_workspace(named).name

    for wrong, said in (
        ({"workspace": {"nmae": "w"}}, "did you mean 'name'?"),
        ({"worskpace": {"name": "w"}}, "did you mean 'workspace'?"),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            check_workspace(wrong)
        assert said in refusal.value.message


def test_all_mistakes_are_named_at_once() -> None:
    """Two wrong values are one message, not two attempts."""
    with pytest.raises(ConfigurationError) as refusal:
        load_config(PROFILES / "local.yaml", ["dataset.percentage=0", "compute.nodes=-1"])

    assert "dataset.percentage" in str(refusal.value)
    assert "compute.nodes" in str(refusal.value)


def test_a_file_that_is_not_there_or_no_yaml_is_refused(tmp_path: Path) -> None:
    """A wrong --config says which file and why."""
    torn = tmp_path / "torn.yaml"
    torn.write_text("model: {name: x\n")
    twice = tmp_path / "twice.yaml"
    twice.write_text("model: {name: x}\nmodel: {name: y}\n")

    for path, said in ((tmp_path / "none.yaml", "cannot be read"), (torn, "YAML"), (twice, "YAML")):
        with pytest.raises(ConfigurationError, match=said) as refusal:
            load_config(path)
        assert str(path) == refusal.value.where
