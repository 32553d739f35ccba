"""``finetune plan``: everything that ``run`` would check, and what it would cost; read-only."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Future, wait
from typing import Any

from rich.console import Console
from rich.table import Table

from lifecycle.aside import aside
from lifecycle.auth import WorkspaceResult, authenticate
from lifecycle.component import get_component
from lifecycle.compute import check_compute, list_sizes
from lifecycle.config import FinetuneConfig, load_config
from lifecycle.dataset import data_directory, download_data
from lifecycle.evaluation import pick_held_out
from lifecycle.model import select_model
from lifecycle.preflight import Plan, check
from lifecycle.prices import PriceLine, estimate, price_source
from lifecycle.readiness import (
    CREATE_CLUSTER,
    DELETE_CLUSTER,
    RIGHTS,
    Right,
    check_readiness,
)
from lifecycle.report import RunReport, recording

from .data import watching


def main(chosen: argparse.Namespace) -> int:
    """Print the plan; raises what is refused."""
    config = load_config(chosen.config, chosen.set)
    with recording(RunReport()) as report:
        workspace = authenticate(config.workspace)
        plan = make_plan(config, workspace)
        readiness = check_readiness(workspace, _rights(config, plan))
        prices = estimate(
            size=plan.size.name,
            nodes=config.compute.nodes,
            low_priority=config.compute.tier == "low_priority",
            instance_type=plan.instance_type.name,
            instance_count=config.endpoint.instance_count
            * (2 if config.evaluation.baseline else 1),
        )
    missing = [f"{one.said} {one.remedy}" for one in readiness if not one.is_ok]
    warnings = list(dict.fromkeys([*plan.warnings, *report.warnings, *missing]))
    plan = plan.model_copy(update={"warnings": warnings})
    if chosen.json:
        document = {
            "plan": plan.model_dump(mode="json"),
            "prices": [line.model_dump(mode="json") for line in prices],
            "price_source": price_source(),
            "warnings": plan.warnings,
            "refusals": [],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False), file=chosen.out)
    else:
        # Without a terminal rich would cut names at 80 columns.
        width = None if chosen.out.isatty() else 140
        _show(Console(file=chosen.out, width=width), config, plan, prices)
    chosen.out.flush()
    return 0


def make_plan(config: FinetuneConfig, workspace: WorkspaceResult) -> Plan:
    """Read what the run would read, side by side, and check it all.

    Raises:
        Refused: As the run would be.
    """
    ref = workspace.ref
    with watching() as watch:
        # Aside, that Ctrl-C need not wait for Azure or for a slow download.
        model = aside(lambda: select_model(ref, config.model))
        component = aside(lambda: get_component(ref, config.training))
        sizes = aside(lambda: list_sizes(ref))
        cluster = aside(lambda: check_compute(ref, config.compute))
        data = aside(
            lambda: download_data(config.dataset, data_directory(), workspace=ref, watch=watch)
        )
        reads: list[Future[Any]] = [model, component, sizes, cluster, data]
        wait(reads)
    plan = check(
        model.result(),
        component.result(),
        sizes.result(),
        cluster.result(),
        data.result(),
        compute=config.compute,
        dataset=config.dataset,
        training=config.training,
        endpoint=config.endpoint,
        evaluation=config.evaluation,
    )
    pick_held_out(plan.dataset, config.dataset, config.evaluation)
    return plan


def _rights(config: FinetuneConfig, plan: Plan) -> list[Right]:
    makes_cluster = config.compute.name is not None and plan.existing_compute is None
    if not makes_cluster:
        return list(RIGHTS)
    return [*RIGHTS, CREATE_CLUSTER, *([DELETE_CLUSTER] if config.compute.delete_after else [])]


def _show(console: Console, config: FinetuneConfig, plan: Plan, prices: list[PriceLine]) -> None:
    cluster = config.compute.name or "serverless"
    there = "already there" if plan.existing_compute else "would be created"
    facts = Table(show_header=False, box=None)
    facts.add_row("model", f"{plan.model.name} version {plan.model.version}")
    facts.add_row("component", f"{plan.component.name} version {plan.component.version}")
    facts.add_row("compute", f"{config.compute.nodes} × {plan.size.name} on {cluster} ({there})")
    rows = ", ".join(f"{file.split} {file.rows:,}" for file in plan.dataset.files)
    facts.add_row("data", f"{plan.dataset.name}: {rows} rows")
    facts.add_row("job", plan.display_name)
    facts.add_row("registers", plan.registered_name)
    facts.add_row("endpoint", f"{config.endpoint.instance_count} × {plan.instance_type.name}")
    console.print(facts)
    parameters = Table("parameter", "value", "from", title="Training parameters")
    for name, value in sorted(plan.parameters.values.items()):
        parameters.add_row(name, str(value), plan.parameters.origin[name])
    console.print(parameters)
    costs = Table("what", "size", "count", "per", "price", title="What it costs")
    for line in prices:
        costs.add_row(line.what, line.size, str(line.count), line.per, line.price)
    console.print(costs)
    console.print(price_source(), style="dim")
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    but = " but see the warnings;" if plan.warnings else ""
    console.print(f"A run would not be refused;{but} nothing was created.")
