"""``finetune sweep``: what runs have left. No Prefect is needed: cron or CI can run it."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import TextIO

from lifecycle.auth import authenticate
from lifecycle.errors import FinetuneError
from lifecycle.report import EXIT_CODES, EXIT_STILL_BILLING
from lifecycle.signals import deferred_signals
from lifecycle.sweep import SweepResult, sweep

from .console import OutputError, show_error, show_still_billing
from .workspace import workspace_of


def main(chosen: argparse.Namespace) -> int:
    """List what has outlived its run, delete it with ``--apply``; 3 where some of it is left."""
    pending: set[str] = set()
    try:
        ref = authenticate(workspace_of(chosen)).ref
        result = sweep(ref, chosen.apply, datetime.now(UTC), pending=pending)
    except (Exception, KeyboardInterrupt) as error:
        with deferred_signals(last=True):
            if isinstance(error, KeyboardInterrupt):
                return _interrupted(chosen.apply, sorted(pending))
            if not pending:
                raise
            if isinstance(error, FinetuneError):
                show_error(error, refused=False)
            else:
                print(f"finetune: failed: {type(error).__name__}: {error}", file=sys.stderr)
            show_still_billing(sorted(pending))
            return EXIT_STILL_BILLING
    with deferred_signals(last=True):
        try:
            if chosen.json:
                print(result.model_dump_json(indent=2), file=chosen.out)
            else:
                _show(result, ref.name, chosen.out)
            chosen.out.flush()
        except OutputError as error:
            print(f"finetune: {error}", file=sys.stderr)
            show_still_billing(result.overdue())
        return EXIT_STILL_BILLING if result.overdue() else EXIT_CODES["Completed"]


def _interrupted(applied: bool, pending: list[str]) -> int:
    if pending:
        print("finetune: interrupted; not everything was seen gone", file=sys.stderr)
        show_still_billing(pending)
        print("finetune: run `finetune sweep --apply` again", file=sys.stderr)
        return EXIT_STILL_BILLING
    said = "nothing was changed"
    if applied:
        said = "all that was to go so far is gone; not everything was looked at"
    print(f"finetune: interrupted; {said}", file=sys.stderr)
    return EXIT_CODES["Interrupted"]


def _show(result: SweepResult, workspace: str, out: TextIO) -> None:
    for found in result.found:
        done = "deleted" if found.name in result.deleted else found.verdict
        print(f"{done:8} {found.name}  {found.reason}", file=out)
    for job in result.jobs:
        verdict = "canceled" if job.name in result.canceled else job.verdict
        print(f"{verdict:8} {job.name}  {job.status}; {job.reason}", file=out)
    for cluster in result.clusters:
        print(f"{'idle':8} {cluster.name}  {cluster.nodes} nodes; {cluster.reason}", file=out)
    for failure in result.failed:
        print(f"FAILED   {failure.name}  {failure.error}", file=out)
    for trouble in result.unread:
        print(f"UNREAD   {trouble}", file=out)
    if not (result.found or result.jobs):
        print(f"No endpoint of ours, and no live job, in workspace {workspace}.", file=out)
