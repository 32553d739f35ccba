"""The training inputs: every one of the component is honoured, or said not to be."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from azureml_emulator.training.parameters import (
    NOT_APPLIED,
    TrainingParameters,
    notices,
    problem,
    read,
)

from tests.emulator.training.asking import declared, parameters

PAGE = Path("docs/internals/training.md")


def test_the_components_defaults_are_read_and_can_be_trained_with() -> None:
    """A job that sets nothing is trained with what the component declares."""
    training = read(parameters())

    assert None is problem(training)
    assert (2e-5, 1, False, -1) == (
        training.learning_rate,
        training.num_train_epochs,
        training.apply_lora,
        training.max_seq_length,
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"learning_rate": 0}, "Learning rate should be greater than 0."),
        ({"lora_r": 0}, "'lora_r': 0 should be 1 or more."),
        ({"lora_dropout": 1.0}, "'lora_dropout': 1.0 should be less than 1."),
        ({"adam_epsilon": 0}, "'adam_epsilon': 0.0 should be more than 0."),
        ({"seed": 2**32}, "'seed': 4294967296 should be 4294967295 or less."),
        ({"max_seq_length": 0}, "'max_seq_length': 0 should be -1"),
        (
            {"apply_early_stopping": "true", "evaluation_strategy": "disable"},
            "Set evaluation_strategy to one of steps or epoch",
        ),
    ],
)
def test_a_value_that_training_could_not_go_well_with_is_refused(
    given: dict[str, object], sentence: str
) -> None:
    """Minutes before the trainer would fall over it, in a sentence."""
    assert sentence in (problem(read(parameters(**given))) or "")


def test_what_is_accepted_and_not_applied_is_said() -> None:
    """Nobody believes that DeepSpeed ran; what was left at its default is not mentioned."""
    said = list(notices(parameters(apply_deepspeed="true", metric_for_best_model="f1")))

    assert ["apply_deepspeed = true", "metric_for_best_model = f1"] == [
        re.findall(r"applied: (.*?) \(", line)[0] for line in said
    ]
    assert [] == list(notices(parameters()))


def test_the_table_in_the_docs_has_every_input_of_the_component() -> None:
    """A reader finds each input, and what is not applied is called so."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    honoured = {field.name for field in fields(TrainingParameters)} - {"metric_for_best_model"}

    assert set(declared()) == set(rows)
    assert honoured == {name for name in honoured if rows[name] == "honoured"}
    assert {"accepted"} == {rows[name] for name in NOT_APPLIED}
