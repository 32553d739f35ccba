"""What the command says on the terminal."""

from __future__ import annotations

import sys

from lifecycle.errors import FinetuneError, StillBilling


def show_error(error: FinetuneError, *, refused: bool) -> None:
    """Print one error, once: what, where, and what to do.

    Args:
        error: What went wrong.
        refused: Whether nothing had been created yet.
    """
    if refused:
        title = "refused, nothing was created"
    elif isinstance(error, StillBilling):
        title = "something may still be billing"
    else:
        title = "failed"
    print(f"finetune: {title} [{error.code}]", file=sys.stderr)
    if error.where:
        print(f"  where   {error.where}", file=sys.stderr)
    print(f"  what    {_indented(error.message)}", file=sys.stderr)
    print(f"  remedy  {_indented(error.remedy)}", file=sys.stderr)
    for note in getattr(error, "__notes__", []):
        print(f"  note    {_indented(note)}", file=sys.stderr)


def _indented(text: str) -> str:
    return text.strip().replace("\n", "\n          ")
