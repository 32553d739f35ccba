"""The preprocess step: the model's own template, a split where there is none, and honest counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from azureml_emulator.training import model_import, preprocess
from azureml_emulator.training.encoding import load
from azureml_emulator.training.request import Events, Request, StepFailed
from azureml_emulator.weights import STANDIN

from tests.emulator.training.asking import chat, request, write_rows

ROWS = [chat(f"question {number}", f"answer {number}") for number in range(10)]


def run(folder: Path, files: dict[str, Path | None], **given: object) -> Path:
    """Run the step, after the import of the stand-in, and return its output."""
    for step in (model_import, preprocess):
        asked: Request = request(folder, step.__name__.rpartition(".")[2], files, **given)
        step.run(asked, Events(asked.events))
    return asked.outputs["output_dir"]


def test_a_fifth_of_train_is_held_out_where_no_validation_file_is_given(tmp_path: Path) -> None:
    """The last rows, as on Azure; none of them is trained on."""
    train = write_rows(tmp_path / "train.jsonl", ROWS)

    alone = run(tmp_path / "alone", {"train_file_path": train}, batch_size=3)
    both = run(tmp_path / "both", {"train_file_path": train, "validation_file_path": train})

    tokenizer = preprocess.load_tokenizer(STANDIN)
    kept = [tokenizer.decode(load(alone, "validation")[row]["tokens"]) for row in range(2)]
    assert (8, 2) == (len(load(alone, "train")), len(load(alone, "validation")))
    assert (10, 10) == (len(load(both, "train")), len(load(both, "validation")))
    assert all(f"question {row}" in text for row, text in zip((8, 9), kept, strict=True))


def test_only_answers_of_all_turns_are_learned(tmp_path: Path) -> None:
    """Of a conversation of two turns with a system prompt, with the stand-in's own template."""
    row = chat("one", "first", "two", "second")
    row["messages"].insert(0, {"role": "system", "content": "Be brief."})
    path = write_rows(tmp_path / "train.jsonl", [row])

    output = run(tmp_path, {"train_file_path": path, "validation_file_path": path})

    encoded = load(output, "train")[0]
    tokenizer = preprocess.load_tokenizer(STANDIN)
    said = tokenizer.decode(encoded["tokens"][encoded["answers"]], skip_special_tokens=True)
    assert ["first", "second"] == said.split()


def test_rows_that_are_too_long_are_counted_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut, or dropped where no answer is left; where all are, the step fails with the remedy."""
    path = write_rows(tmp_path / "train.jsonl", [chat("short", "word " * 99), *ROWS[:1]])
    files: dict[str, Path | None] = {"train_file_path": path, "validation_file_path": path}

    output = run(tmp_path, files, max_seq_length=40)

    assert "1 rows cut at 40 tokens, 0 dropped" in capsys.readouterr().out
    assert 40 == json.loads((output / preprocess.INFO).read_text())["train"]["longest"]
    with pytest.raises(StepFailed, match=r"first 2 tokens: raise max_seq_length"):
        run(tmp_path, files, max_seq_length=2)


def test_a_model_that_fits_no_chats_is_refused(tmp_path: Path) -> None:
    """One without a chat template, with what to do about it."""
    base = tmp_path / "base"
    shutil.copytree(STANDIN, base)
    (base / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings))

    with pytest.raises(StepFailed, match="no chat template"):
        preprocess.load_tokenizer(base)
