"""Is there room for it: memory and disk, looked at before they run out.

A process that takes too much memory is killed without a word, or makes the whole machine crawl; so
training is refused in a sentence where an estimate says that it cannot fit.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

from .request import StepFailed

GIB = 2**30
MIB = 2**20

RUNTIME_BYTES = 600 * MIB
"""What Python, torch, transformers and peft take before any model is loaded: 0.5 GB measured."""

_CGROUPS = Path("/sys/fs/cgroup")


def parameter_count(folder: Path) -> int:
    """Return how many numbers the weights in the Hugging Face *folder* are."""
    return sum(_tensor_sizes(folder)) or sum(
        path.stat().st_size // 2 for path in folder.glob("pytorch_model*.bin")
    )


def training_bytes(
    *, weights: int, trained: int, size: int, tokens: int, layers: int, hidden: int, vocabulary: int
) -> int:
    """Estimate the memory that training takes at its peak, in bytes.

    The factors were measured (docs/internals/training.md). They err to the low side: nothing is
    refused that would have fitted.

    Args:
        weights: Parameters of the model.
        trained: Those that are trained: all, or the adapters.
        size: Bytes of one weight as it is loaded.
        tokens: Tokens of one batch, padding included.
        layers: Layers of the model.
        hidden: Its hidden size.
        vocabulary: Tokens that it knows.
    """
    training = trained * 12
    activations = tokens * layers * hidden * 32 * size
    logits = tokens * vocabulary * 12
    return RUNTIME_BYTES + weights * size + training + activations + logits


def available_memory(cgroups: Path = _CGROUPS) -> int:
    """Return the bytes that this process may still take: of the machine, and of its container.

    Args:
        cgroups: Where Linux tells a container's limit.
    """
    import psutil

    return min([int(psutil.virtual_memory().available), *_container_memory(cgroups)])


def require_memory(needed: int, available: int, what: str) -> None:
    """Refuse *what* if it needs more memory than there is.

    Args:
        needed: Bytes.
        available: Bytes.
        what: What needs it, such as ``Training SmolLM2``.

    Raises:
        StepFailed: There is too little.
    """
    if needed > available:
        raise StepFailed(
            f"{what} needs about {needed / GIB:.1f} GiB of memory and {available / GIB:.1f} GiB "
            f"are available: close other programs, lower per_device_train_batch_size or "
            f"max_seq_length, or take a smaller model."
        )


def require_disk(needed: int, folder: Path, what: str) -> None:
    """Refuse *what* if it needs more disk than there is.

    Args:
        needed: Bytes.
        folder: Where they are to be written.
        what: What needs it.

    Raises:
        StepFailed: There is too little.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StepFailed(
            f"{what} needs about {needed / GIB:.1f} GiB on the disk that holds {folder}, and "
            f"{free / GIB:.1f} GiB are free: free some space, or start the emulator with --state "
            f"on another disk."
        )


def _tensor_sizes(folder: Path) -> Iterator[int]:
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for extent in tensor["shape"]:
                    count *= extent
                yield count


def _container_memory(cgroups: Path) -> Iterator[int]:
    # Version 2, then version 1; "max" and 2**63 say that there is no limit.
    for limit, used, stat, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        if (cgroups / limit).is_file():
            text = (cgroups / limit).read_text(encoding="ascii").strip()
            if text == "max":
                return
            rows = (cgroups / stat).read_text(encoding="ascii").splitlines()
            reclaimable = sum(int(row.split()[1]) for row in rows if row.split()[0] == cache)
            taken = int((cgroups / used).read_text(encoding="ascii")) - reclaimable
            yield max(int(text) - taken, 0)
            return
