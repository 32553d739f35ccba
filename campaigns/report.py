"""``python -m campaigns.report``: write docs/reliability.md from the results of the campaigns."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import kills, requests, results, skew
from .deployed import WAYS
from .results import BROKEN, HELD, NOT_REACHED

PAGE = results.FOLDER.parent / "docs" / "reliability.md"

NOT_RUN = "not run"
_KINDS = (
    "PUT, POST, DELETE in the workspace",
    "PUT, POST elsewhere",
    "GET, HEAD",
    "the cloud's metadata",
)

_INTRODUCTION = """\
# Reliability: the two guarantees, tried by breaking things

No endpoint outlives its purpose; never two live training jobs for one run. What keeps them is in
[how nothing is left behind](internals/cleanup.md) and [the step job](steps/job.md). This page is
the proof as far as it goes: four campaigns on the emulator, whose lists of cases
([campaigns/cases](../campaigns/cases)) and results, a line of JSON for each case
([campaigns/results](../campaigns/results)), are in the repository. `python -m campaigns.report`
writes this page from them; a case without a result is *not run*. Nothing here has run against
Azure itself.

A case **held** if all of this was so, by the emulator's ledger and inventory and not by what the
run says: no meter open at its end; no job submitted while another of its run was live, nor after
one had completed; and what the report, the exit code or the state in Prefect says is what was seen
(Completed: the job is, the model is registered, the endpoint was there and is gone; refused:
nothing was made; failed: with an error of ours, which has a code and a remedy). Else it is
**broken**.

```sh
make campaign-requests                    # goes on where the results end, for an hour at most
make campaign-skew                        # likewise
make campaign-kills OPTIONS='--sample 20 --seed 7'
make campaign-soak OPTIONS='--minutes 10'
.venv/bin/python -m campaigns.requests --shard 1/4     # every fourth case: for several machines
.venv/bin/python -m campaigns.requests --again         # also what has not held
```
"""

_FOUND = """\
## What the campaigns have found, and what was done

| found by | was | is |
|---|---|---|
| an upload whose answer is lost | storage refuses its repetition (409), and the run failed | \
transient: the step is tried again, and writes over what lies there unconfirmed |
| a token that expires on its way (401) | the run failed | transient; any other 401 still fails |
| a service for tokens that hangs | waited for azure-core's 300 s | as every other: 60 s, or \
`FINETUNE_READ_SECONDS` |
| SIGTERM in process | the report's error was `TerminationSignal`, and said nothing | says that a \
signal stopped the run |
| SIGKILL before create, by a worker | the hook of the crash deleted the next attempt's endpoint | \
it leaves what was made after the crash |
| SIGKILL during the stream, by a worker | the worker told of the crash a second time, and ended \
the attempt that had begun | a restart waits 90 s |
| the soak: an event lost by Prefect's server, whose SQLite was locked | a crashed run was not \
started again; nothing of it billed | `restart-missed` looks at the states themselves |
| a review: 404 for a moment after an accepted create, or submit | the endpoint was said to be \
deleted, the job to have ended; both were billed | waited out for a minute |
| a review: a run that was heard of after its crash, and died | it was taken for alive for ever | \
it is started again once it is silent |
| a review: a runner that dies during a cancellation | the run stayed Cancelling | it is cancelled |

Known, and left: where a private cloud is described by `ARM_CLOUD_METADATA_URL`, the SDK asks for
that description again and again, without a retry of its own; one lost answer fails the step, with a
clear error. In public Azure there is no such request. A 401 to the storage account's `listSecrets`
has the SDK go on with the identity's own rights there: a run whose identity has none fails.
"""


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(results.FOLDER / "results"), encoding="utf-8")
    print(PAGE)
    return 0


def page(folder: Path) -> str:
    """Return the page, from the results in *folder*."""
    parts = [
        _INTRODUCTION,
        _requests(results.latest(folder / "requests.jsonl")),
        _skew(results.latest(folder / "skew.jsonl")),
        _kills(results.latest(folder / "kills.jsonl")),
        _soak(results.rows(folder / "soak.jsonl")),
        _FOUND,
    ]
    return "\n".join(_wrapped(line) for line in "\n".join(parts).split("\n"))


def _requests(found: dict[str, dict[str, Any]]) -> str:
    cases = requests.cases()
    known = {case: found[case] for case in cases if case in found}
    by_fault = [
        (fault, *_counts([case for case in cases if case.endswith(f" {fault}")], known))
        for fault in requests.FAULTS
    ]
    by_kind = [
        (name, *_counts([case for case in cases if requests.importance(case) == rank], known))
        for rank, name in enumerate(_KINDS)
    ]
    head = ("", "cases", "completed", "failed, clearly", "not reached", BROKEN, NOT_RUN)
    lines = [
        "## Every request, every fault",
        "",
        f"A clean run on the emulator sends {len(cases) // len(requests.FAULTS)} requests. Each of "
        f"them meets each of {len(requests.FAULTS)} faults, one at a time: {len(cases)} runs. The "
        "faults that lose an answer (`reset-after`, `hang`, `504-page`) do so after the change was "
        "made. *Not reached*: the run did not send that request this time, and was judged all the "
        "same.",
        "",
        "Command: `make campaign-requests`, no seed: the cases are run in order, what changes "
        f"something first. {_provenance(known.values())}",
        "",
        *_table(head, [*by_fault, ("**all**", *_counts(cases, known))]),
        "",
        *_table(("of these", *head[1:]), by_kind),
        "",
        *_broken(known),
    ]
    return "\n".join(lines)


def _skew(found: dict[str, dict[str, Any]]) -> str:
    cases = skew.cases()
    known = {case: found[case] for case in cases if case in found}
    routes = dict.fromkeys(case.partition(" | ")[0] for case in cases)
    by_route = [
        (
            f"`{route}`",
            "courtesy" if skew.is_courtesy(route) else "essential",
            *_counts([case for case in cases if case.startswith(f"{route} | ")], known),
        )
        for route in routes
    ]
    kinds = dict.fromkeys(_kind(case) for case in cases)
    by_kind = [
        (kind, *_counts([case for case in cases if _kind(case) == kind], known)) for kind in kinds
    ]
    head = ("cases", "completed", "failed, clearly", "not reached", BROKEN, NOT_RUN)
    lines = [
        "## Every answer, other than expected",
        "",
        f"A clean run asks {len(routes)} routes. Every answer of one of them is changed for the "
        "whole run, one change at a time, by a front before an emulator that does not know of it: "
        f"{len(cases)} runs. A *courtesy* is what a run goes on without: whatever it answers, the "
        "run must complete. Where an *essential* call is changed, the run completes, or fails with "
        "an error of ours that says what failed. Nowhere may a healthy job be canceled, unless it "
        "is the job itself that cannot be read, and whatever is left billed must be named (exit "
        f"code 3). Our clock runs {skew.FACTOR:g} times as fast, so that deadlines are met.",
        "",
        f"Command: `make campaign-skew`, no seed. {_provenance(known.values())}",
        "",
        *_table(("change", *head), [*by_kind, ("**all**", *_counts(cases, known))]),
        "",
        *_table(("route", "is", *head), by_route),
        "",
        *_broken(known),
    ]
    return "\n".join(lines)


def _kind(case: str) -> str:
    """Return what a case changes: the whole answer in a way, or a property in a way."""
    name = case.partition(" | ")[2]
    for what in ("removed", "null", "of another type", "unknown"):
        if name.endswith(f" {what}"):
            return f"a property {what}"
    return name


def _counts(cases: list[str], known: dict[str, dict[str, Any]]) -> list[int]:
    rows = [known[case] for case in cases if case in known]
    good = [row for row in rows if row["verdict"] == HELD]
    completed = sum(row["outcome"] == "Completed" for row in good)
    return [
        len(cases),
        completed,
        len(good) - completed,
        sum(row["verdict"] == NOT_REACHED for row in rows),
        sum(row["verdict"] == BROKEN for row in rows),
        len(cases) - len(rows),
    ]


def _kills(found: dict[str, dict[str, Any]]) -> str:
    cases = kills.cases()
    known = {case: found[case] for case in cases if case in found}
    counted = Counter(row["verdict"] for row in known.values())
    lines = [
        "## Kill matrix",
        "",
        f"{len(kills.KINDS)} ways to die at {len(kills.MOMENTS)} moments, of a run in process "
        f"(`finetune run`), by `serve` and by a process worker: {len(cases)} cells. Of them "
        f"{counted[HELD]} held, {counted[BROKEN]} are broken, {counted[NOT_REACHED]} were not "
        f"reached (the run had ended before the blow), {len(cases) - len(known)} were not run. "
        "By `serve` and by a worker the automations of "
        "[deployments/automations.py](../deployments/automations.py) are at work, so that a run "
        "that crashed comes back by itself: it must then complete with the one job it had. An "
        f"endpoint that was there at the blow must be gone {kills.BOUND_SECONDS:g} s later, after "
        "a host's or a worker's death three heartbeats more. A run that a person ends must be "
        "cancelled. In process, SIGKILL leaves nobody: what is checked is that a sweep of the "
        "minute in which the endpoint has expired puts it away.",
        "",
        "Command: `make campaign-kills`, no seed: the cells are run in the order of their list, "
        "which begins with one for each way to die and each moment. "
        f"{_provenance(known.values())}",
        "",
    ]
    for way in (kills.IN_PROCESS, *WAYS):
        rows = [
            [moment, *(_cell(f"{way} | {kind} | {moment}", cases, known) for kind in kills.KINDS)]
            for moment in kills.MOMENTS
        ]
        lines += [f"### {way}", "", *_table(("", *kills.KINDS), rows), ""]
    return "\n".join([*lines, *_broken(known)])


def _cell(case: str, cases: list[str], known: dict[str, dict[str, Any]]) -> str:
    if case not in cases:
        return "–"
    return known[case]["verdict"] if case in known else f"*{NOT_RUN}*"


def _soak(rows: list[dict[str, Any]]) -> str:
    lines = [
        "## Soak",
        "",
        "Several runs at once by `serve`, under random faults on a few requests of a hundred, and "
        "something killed or cancelled every half minute, all from a seed. At the end the faults "
        "stop, every run is given time to end, and the ledger is read.",
        "",
        "Command: `make campaign-soak`, 30 minutes unless `--minutes` says otherwise.",
        "",
    ]
    table = [
        (
            row["case"],
            row["verdict"],
            row["outcome"],
            f"{row['faults']} of {row['requests']}",
            ", ".join(f"{count} × {kind}" for kind, count in row["blows"].items()),
            row["commit"],
        )
        for row in rows
    ]
    if not table:
        return "\n".join([*lines, f"*{NOT_RUN}*", ""])
    head = ("", "verdict", "runs", "requests that met a fault", "blows", "commit")
    broken = {row["case"]: row for row in rows if row["problems"]}
    return "\n".join([*lines, *_table(head, table), "", *_broken(broken)])


def _broken(known: dict[str, dict[str, Any]]) -> list[str]:
    rows = [row for row in known.values() if row["verdict"] == BROKEN]
    if not rows:
        return []
    lines = ["Broken:", ""]
    for row in rows:
        told = "; ".join(row["problems"]).replace("\n", " ")
        lines.append(f"- `{row['case']}` ({row['outcome']}): {told[:300]}")
    return [*lines, ""]


def _provenance(rows: Iterable[dict[str, Any]]) -> str:
    found = list(rows)
    if not found:
        return "Not run yet."
    commits = Counter(row["commit"] for row in found)
    days = sorted({row["at"][:10] for row in found})
    told = ", ".join(f"{commit} ({count})" for commit, count in commits.most_common())
    hours = sum(row["seconds"] for row in found) / 3600
    return f"Run on {' and '.join(days)}, {hours:.1f} hours in all, at the commits {told}."


def _wrapped(line: str) -> str:
    """Return a line of prose as lines of 100 columns; tables stay."""
    if len(line) <= 100 or line.startswith("|"):
        return line
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(
        line, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    return [
        f"| {' | '.join(map(str, head))} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


if __name__ == "__main__":
    sys.exit(main())
