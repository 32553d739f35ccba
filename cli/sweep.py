"""``finetune sweep``: endpoints that have expired. No Prefect is needed: cron or CI can run it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from lifecycle.auth import authenticate
from lifecycle.report import EXIT_STILL_BILLING
from lifecycle.sweep import sweep

from .workspace import workspace_of


def main(chosen: argparse.Namespace) -> int:
    """List what has expired, delete it with ``--apply``; 3 where something expired is left."""
    ref = authenticate(workspace_of(chosen)).ref
    result = sweep(ref, chosen.apply, datetime.now(UTC))
    if chosen.json:
        print(result.model_dump_json(indent=2), file=chosen.out)
    else:
        for found in result.found:
            done = "deleted" if found.name in result.deleted else found.verdict
            print(f"{done:8} {found.name}  {found.reason}", file=chosen.out)
        for failure in result.failed:
            print(f"FAILED   {failure.name}  {failure.error}", file=chosen.out)
        if not result.found:
            print(f"No endpoint of ours in workspace {ref.name}.", file=chosen.out)
    expired = {found.name for found in result.found if found.verdict == "delete"}
    return EXIT_STILL_BILLING if expired - set(result.deleted) else 0
