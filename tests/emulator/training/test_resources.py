"""Room is looked for before it runs out, and errors that a person can mend are sentences."""

from __future__ import annotations

import errno
import json
import struct
import sys
from pathlib import Path

import pytest
from azureml_emulator.training.failures import explain
from azureml_emulator.training.request import Events, StepFailed
from azureml_emulator.training.resources import (
    GIB,
    MIB,
    available_memory,
    parameter_count,
    require_disk,
    require_memory,
    training_bytes,
)

from tests.emulator.training.asking import request


def test_the_estimate_is_below_what_was_measured_and_not_far() -> None:
    """SmolLM2 with LoRA and batches of 952 tokens took 3.0 GiB in bfloat16, 4.6 in float32."""
    shape = {"weights": 134_515_008, "trained": 4_884_480, "tokens": 952}
    model = {"layers": 30, "hidden": 576, "vocabulary": 49_152}

    half = training_bytes(size=2, **shape, **model) / GIB
    full = training_bytes(size=4, **shape, **model) / GIB

    assert 2.0 < half < 3.0
    assert 3.0 < full < 4.6


def test_too_little_memory_or_disk_is_told_with_figures_and_remedy(tmp_path: Path) -> None:
    """Instead of a kill without a word."""
    with pytest.raises(StepFailed, match=r"needs about 3.0 GiB .* 1.5 GiB are available: close"):
        require_memory(3 * GIB, 3 * GIB // 2, "Training tiny")
    with pytest.raises(StepFailed, match=r"on the disk that holds .* GiB are free: free some"):
        require_disk(2**62, tmp_path, "Training tiny")

    require_memory(GIB, GIB, "Training tiny")
    require_disk(1, tmp_path, "Training tiny")


@pytest.mark.parametrize(
    "files",
    [
        {
            "memory.max": "104857600",
            "memory.current": "94371840",
            "memory.stat": "anon 5\ninactive_file 10485760",
        },
        {
            "memory/memory.limit_in_bytes": "104857600",
            "memory/memory.usage_in_bytes": "94371840",
            "memory/memory.stat": "total_rss 5\ntotal_inactive_file 10485760",
        },
    ],
)
def test_the_limit_of_a_container_counts(tmp_path: Path, files: dict[str, str]) -> None:
    """Of either version of control groups; file cache that can be dropped is free."""
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="ascii")

    assert 20 * MIB == available_memory(tmp_path)


def test_without_a_container_the_machine_counts(tmp_path: Path) -> None:
    """No limit, said in words or not at all."""
    machine = available_memory(tmp_path)
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")

    assert machine == pytest.approx(available_memory(tmp_path), rel=0.2)


def test_parameters_are_counted_without_loading_them(tmp_path: Path) -> None:
    """From the headers of all files of the weights."""
    for name, shape in (("a", [2, 3]), ("b", [4])):
        header = {"__metadata__": {"format": "pt"}, name: {"dtype": "F32", "shape": shape}}
        data = json.dumps(header).encode()
        (tmp_path / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)

    assert 10 == parameter_count(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    """As Python tells it, and as safetensors does."""
    asked = request(tmp_path, "finetune")
    try:
        Events(Path("/dev/full")).metrics({"loss": 1.0}, step=1)
    except OSError as full:
        told = explain(full, asked)
    in_words = explain(RuntimeError("I/O error: No space left on device (os error 28)"), asked)

    assert told == in_words
    assert "is full: free some space" in (told or "")


def test_an_error_that_nobody_foresaw_is_not_explained_away(tmp_path: Path) -> None:
    """It stays a crash with its traceback; what lies behind an error is looked at."""
    asked = request(tmp_path, "finetune")
    behind = RuntimeError("while saving")
    behind.__cause__ = OSError(errno.ENOMEM, "Cannot allocate memory")

    assert explain(ValueError("a bug"), asked) is None
    assert "memory ran out" in (explain(behind, asked) or "")
    assert "memory ran out" in (explain(MemoryError(), asked) or "")
