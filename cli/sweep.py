"""``finetune sweep``: what runs have left. No Prefect is needed: cron or CI can run it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TextIO

from lifecycle.auth import authenticate
from lifecycle.report import EXIT_STILL_BILLING
from lifecycle.sweep import SweepResult, sweep

from .workspace import workspace_of


def main(chosen: argparse.Namespace) -> int:
    """List what has outlived its run, put it away with ``--apply``; 3 where some of it is left."""
    ref = authenticate(workspace_of(chosen)).ref
    result = sweep(ref, chosen.apply, datetime.now(UTC))
    if chosen.json:
        print(result.model_dump_json(indent=2), file=chosen.out)
    else:
        _show(result, ref.name, chosen.out)
    return EXIT_STILL_BILLING if result.overdue() else 0


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
