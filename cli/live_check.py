"""``make live-check``: does this work on a workspace of yours, and does Azure answer as we think?

First it only reads: sign-in, workspace, model, component, sizes, quota, endpoints. Then, asked for
with ``--life-cycle`` and within ``LIVE_BUDGET_USD``, it runs one small life cycle. It records the
shapes of Azure's answers, compares them with those of the bundled emulator, and writes a report
with no secret, id, name or address of yours, to be shared. What Azure said in full is on the
terminal only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

from lifecycle import clients
from lifecycle.auth import authenticate
from lifecycle.azure import translated
from lifecycle.clients import WorkspaceRef, data_plane, ml_client
from lifecycle.component import get_component
from lifecycle.compute import check_compute, read_sizes
from lifecycle.config import FinetuneConfig, load_config
from lifecycle.errors import ConfigurationError, FinetuneError, ServiceError
from lifecycle.leftovers import list_ours
from lifecycle.model import select_model
from lifecycle.prices import find_size, price_source
from lifecycle.report import EXIT_CODES

from . import run
from .console import show_error
from .shapes import Difference, Recorded, Shapes, compare

BUDGET = "LIVE_BUDGET_USD"
PROFILE = Path("profiles/live-check.yaml")
EMULATOR_SHAPES = Path("docs/live/emulator-shapes.json")
REPORT = Path("live-check-report.json")
_PACKAGES = ("azure-ai-ml", "azure-identity", "azure-core", "prefect")


class Check(NamedTuple):
    """One thing that was looked at; ``said`` names nothing of the user's."""

    what: str
    state: Literal["ok", "problem"]
    said: str


def main(arguments: list[str] | None = None) -> int:
    """Check, write the report, and return the exit code.

    0 all was well; 1 something was not; 2 refused, nothing was created; and those of
    ``finetune run`` where the life cycle ran.
    """
    chosen = _parser().parse_args(arguments)
    shapes = Shapes()
    try:
        config = load_config(chosen.config, chosen.set)
        if chosen.life_cycle:
            require_budget(config, os.environ.get(BUDGET))
    except FinetuneError as error:
        show_error(error, refused=True)
        return EXIT_CODES["Refused"]
    clients.observe(shapes.see)
    try:
        checks = list(_shown(read_only(config)))
        code = EXIT_CODES["Failed" if _problems(checks) else "Completed"]
        if chosen.life_cycle and code == 0:
            code = run.main(
                argparse.Namespace(
                    config=chosen.config, set=chosen.set, report=None, out=sys.stdout
                )
            )
            checks.append(_life_cycle_check(code))
    finally:
        clients.observe(None)
    _write(chosen.report, checks, shapes.recorded())
    if chosen.record is not None:
        _write_json(chosen.record, shapes.recorded())
    return code


def read_only(config: FinetuneConfig) -> Iterator[Check]:
    """Look at everything that a run needs, in the order of its steps; nothing is changed."""
    found: list[WorkspaceRef] = []

    def sign_in() -> str:
        found.append(authenticate(config.workspace).ref)
        return "a token was given, and the workspace answers"

    first = _check("sign-in", sign_in)
    yield first
    if not found:
        return
    ref = found[0]
    yield _check("model", lambda: _model(ref, config))
    yield _check("component", lambda: _component(ref, config))
    yield _check("sizes", lambda: _sizes(ref))
    yield _check("cluster", lambda: _cluster(ref, config))
    yield _check("quota", lambda: _quota(ref))
    yield _check("endpoints", lambda: _endpoints(ref))
    yield _check("data plane", lambda: _data_plane(ref))


def worst_case(config: FinetuneConfig) -> float:
    """Return the most that the life cycle can cost, in USD, by its own deadlines.

    The nodes are paid for as long as the job may wait and run (they may be up while an image is
    pulled) and until they are gone for idleness, the endpoint until a sweep deletes it.

    Raises:
        ConfigurationError: A price is not known, or nothing bounds the bill.
    """
    waiting, running = config.job.queue_deadline_minutes, config.job.run_deadline_minutes
    if not waiting or not running:
        raise ConfigurationError("without both deadlines nothing bounds the bill.", where="job")
    if config.endpoint.keep:
        raise ConfigurationError(
            "an endpoint that is kept has no last bill.", where="endpoint.keep"
        )
    if config.compute.tier != "dedicated" or config.compute.allow_low_priority:
        raise ConfigurationError(
            "the price of a low-priority node is not known.", where="compute.tier"
        )
    minutes = waiting + running + config.compute.idle_seconds_before_scale_down / 60
    training = _price(config.compute.size, "compute.size") * config.compute.nodes
    serving = _price(config.endpoint.instance_type, "endpoint.instance_type")
    serving *= config.endpoint.instance_count
    return (training * minutes + serving * config.endpoint.expires_after_minutes) / 60


def require_budget(config: FinetuneConfig, budget: str | None) -> None:
    """Refuse a life cycle that may cost more than *budget*.

    Raises:
        ConfigurationError: No budget is set, it is no amount, or it is too small.
    """
    estimate = worst_case(config)
    said = f"The life cycle may cost {estimate:.2f} USD at most. {price_source()}"
    try:
        amount = float(budget or "")
    except ValueError:
        problem = "is not set" if budget is None else f"is no amount: {budget!r}"
        raise ConfigurationError(
            f"{BUDGET} {problem}, and a life cycle costs money.", where=BUDGET, remedy=said
        ) from None
    if not estimate <= amount:
        raise ConfigurationError(
            f"{amount:.2f} USD are not enough for the life cycle.",
            where=BUDGET,
            remedy=f"{said} Raise the budget, or lower job.run_deadline_minutes, "
            "endpoint.expires_after_minutes or the sizes.",
        )
    print(said)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cli.live_check", description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=PROFILE, metavar="FILE", help=f"default: {PROFILE}"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=value", help="as for finetune run"
    )
    parser.add_argument(
        "--life-cycle",
        action="store_true",
        help=f"also run one life cycle, which costs money: at most {BUDGET}",
    )
    parser.add_argument(
        "--report", type=Path, default=REPORT, metavar="FILE", help=f"default: {REPORT}"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="also write the shapes that were seen"
    )
    return parser


def _check(what: str, look: Callable[[], str]) -> Check:
    try:
        with translated(f"looking at the {what}"):
            return Check(what, "ok", look())
    except FinetuneError as error:
        show_error(error, refused=False)
        if isinstance(error.__cause__, ValueError | AttributeError | LookupError | TypeError):
            # An answer that our code, or the SDK's, cannot read: just what this is here to find.
            traceback.print_exception(error.__cause__)
            *_, last = traceback.extract_tb(error.__cause__.__traceback__)
            place = f"{Path(last.filename).name}:{last.lineno}"
            return Check(what, "problem", f"{type(error.__cause__).__name__} at {place}")
        status = f", status {error.status}" if isinstance(error, ServiceError) else ""
        return Check(what, "problem", f"{error.code}{status}")


def _model(ref: WorkspaceRef, config: FinetuneConfig) -> str:
    spec = config.model.model_copy(update={"allow_retired": True})
    found = select_model(ref, spec)
    archived = ", archived" if found.archived else ""
    retires = f", fine-tuned until {found.retirement_date}" if found.retirement_date else ""
    lists = f"allow lists found in: {found.allow_list_source}"
    return f"{found.name} version {found.version}{archived}{retires}; {lists}"


def _component(ref: WorkspaceRef, config: FinetuneConfig) -> str:
    found = get_component(ref, config.training)
    return f"{found.name} version {found.version}, {len(found.inputs)} inputs"


def _sizes(ref: WorkspaceRef) -> str:
    sizes = read_sizes(ref)
    with_gpus = [size for size in sizes.values() if size.gpus]
    priced = [size for size in with_gpus if find_size(size.name)]
    return f"{len(sizes)}, of which {len(with_gpus)} have GPUs and {len(priced)} of them a price"


def _cluster(ref: WorkspaceRef, config: FinetuneConfig) -> str:
    return "not there" if check_compute(ref, config.compute) is None else "there"


def _quota(ref: WorkspaceRef) -> str:
    usages = list(ml_client(ref).compute.list_usage())
    return f"{len(usages)} usages, of which {sum(bool(usage.limit) for usage in usages)} not zero"


def _endpoints(ref: WorkspaceRef) -> str:
    return f"{len(list_ours(ref))} with a tag of ours"


def _data_plane(ref: WorkspaceRef) -> str:
    data_plane(ref)
    return "the discovery service gives its address"


def _price(size: str, where: str) -> float:
    known = find_size(size)
    if known is None:
        raise ConfigurationError(f"the price of {size} is not known.", where=where)
    return known.usd_per_hour


def _life_cycle_check(code: int) -> Check:
    return Check("life cycle", "problem" if code else "ok", f"exit code {code}")


def _shown(checks: Iterator[Check]) -> Iterator[Check]:
    for check in checks:
        print(f"{check.state:8} {check.what:12} {check.said}", flush=True)
        yield check


def _problems(checks: list[Check]) -> bool:
    return any(check.state == "problem" for check in checks)


def _write(path: Path, checks: list[Check], seen: Recorded) -> None:
    recorded: Recorded = json.loads(EMULATOR_SHAPES.read_text(encoding="utf-8"))
    differences = compare(recorded, seen)
    unknown = sorted(set(seen) - set(recorded))
    versions = {name: version(name) for name in _PACKAGES}
    document = {
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "versions": versions,
        "checks": [check._asdict() for check in checks],
        "differences": [difference._asdict() for difference in differences],
        "routes_not_recorded": unknown,
        "shapes": seen,
    }
    _write_json(path, document)
    text = path.with_suffix(".txt")
    text.write_text(_readable(versions, checks, differences, unknown, seen), encoding="utf-8")
    print(f"{len(seen)} kinds of answer seen; {len(differences)} fields are not as the emulator's,")
    print(f"{len(unknown)} kinds it does not know. Read {text} before you share {path}.")


def _readable(
    versions: dict[str, str],
    checks: list[Check],
    differences: list[Difference],
    unknown: list[str],
    seen: Recorded,
) -> str:
    lines = ["Live check of azureml-finetune-flows", ""]
    lines += [f"{name} {found}" for name, found in versions.items()]
    lines += ["", "Checks"]
    lines += [f"  {check.state:8} {check.what:12} {check.said}" for check in checks]
    lines += ["", f"Fields that differ from the emulator's ({len(differences)})"]
    route = None
    for difference in differences:
        if difference.route != route:
            route = difference.route
            lines.append(f"  {route}")
        lines.append(
            f"    {difference.field}: emulator {difference.recorded}, here {difference.seen}"
        )
    lines += ["", f"Kinds of answer that the emulator does not give ({len(unknown)})"]
    lines += [f"  {name}" for name in unknown]
    lines += ["", f"Kinds of answer seen ({len(seen)})"]
    lines += [f"  {name}" for name in seen]
    return "\n".join(lines) + "\n"


def _write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
