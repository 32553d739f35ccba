"""How the commands of this folder end: exit code and message, the same for each."""

from __future__ import annotations

import sys
from collections.abc import Callable

import httpx

from lifecycle.errors import FinetuneError, Refused


def exit_code(program: str, work: Callable[[], None]) -> int:
    """Do the work, and return 0 where it is done.

    1 where Azure or Prefect did not answer, 2 where it was refused; one sentence on the standard
    error says why.

    Args:
        program: What the sentence begins with.
        work: What the command does; it prints what it did.
    """
    try:
        work()
    except FinetuneError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1
    except httpx.HTTPError as error:
        print(f"{program}: Prefect did not answer: {error}", file=sys.stderr)
        return 1
    return 0
