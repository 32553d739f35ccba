"""What a person can do about an error that ended a step; a bug of ours is none of these."""

from __future__ import annotations

from collections.abc import Iterator

from .request import Request, StepFailed

# In words, for safetensors and torch tell of these in exceptions of their own.
_DISK = ("No space left on device",)
_MEMORY = ("allocate memory", "not enough memory", "CUDA out of memory")


def explain(error: BaseException, request: Request) -> str | None:
    """Return one sentence with the remedy, or None for an error that nobody foresaw.

    Args:
        error: What ended the step.
        request: The step.
    """
    for cause in _chain(error):
        if isinstance(cause, StepFailed):
            return str(cause)
        if _says(cause, _DISK):
            return (
                f"The disk that holds {request.work} is full: free some space, or start the "
                f"emulator with --state on another disk."
            )
        if isinstance(cause, MemoryError) or _says(cause, _MEMORY):
            return (
                "The memory ran out: close other programs, lower per_device_train_batch_size or "
                "max_seq_length, or take a smaller model."
            )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _says(error: BaseException, signs: tuple[str, ...]) -> bool:
    return any(sign in str(error) for sign in signs)
