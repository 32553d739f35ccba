"""``finetune doctor``: is this machine, and this workspace, ready? Each finding with its remedy."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple

from lifecycle.auth import WorkspaceResult, authenticate, resolve_workspace
from lifecycle.azure import translated
from lifecycle.clients import ml_client, registry_client
from lifecycle.courtesy import what_failed
from lifecycle.errors import ConfigurationError, FinetuneError
from lifecycle.readiness import CREATE_CLUSTER, RIGHTS, check_readiness

from .server import check_prefect_server, prefect_api_url
from .workspace import workspace_of

_PACKAGES = ("azure-ai-ml", "azure-identity", "datasets", "mlflow-skinny", "pandas", "prefect")
# Versions with which a plain install of Prefect 3.8.8 breaks: deploying, the server, its schedules.
_CEILINGS = {"fastapi": (0, 151), "sqlalchemy": (2, 1)}


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "warning", "problem"]
    said: str
    remedy: str | None = None


def main(chosen: argparse.Namespace) -> int:
    """Print every finding; 2 where there is a problem."""
    findings = list(examine(chosen))
    if chosen.json:
        document = [finding._asdict() for finding in findings]
        print(json.dumps(document, indent=2), file=chosen.out)
    else:
        for finding in findings:
            print(f"{finding.state:8} {finding.what:14} {finding.said}", file=chosen.out)
            if finding.remedy and finding.state != "ok":
                print(f"{'':23} {finding.remedy}", file=chosen.out)
    chosen.out.flush()
    return 2 if any(finding.state == "problem" for finding in findings) else 0


def examine(chosen: argparse.Namespace) -> Iterator[Finding]:
    """Look at versions and Prefect, then at the workspace, and at what a run will need of it.

    A lock, a missing right and what cannot be read are warnings: a run may do without, or find it
    otherwise.
    """
    yield _python()
    for name in _PACKAGES:
        yield _package(name)
    for name, ceiling in _CEILINGS.items():
        yield _below(name, ceiling)
    yield _prefect()
    try:
        spec = workspace_of(chosen)
        named = resolve_workspace(spec)
        yield Finding("workspace", "ok", f"{named.name} in resource group {named.resource_group}")
        found = authenticate(spec)
    except FinetuneError as error:
        what = "workspace" if isinstance(error, ConfigurationError) else error.code
        yield Finding(what, "problem", error.message, error.remedy)
        return
    except Exception as error:
        yield _unread("workspace", error, "problem")
        return
    yield Finding("credential", "ok", f"gives a token for tenant {found.tenant_id}")
    yield Finding("region", "ok", found.region or "Azure does not say")
    yield _asked("registry", lambda: _registry(found), otherwise="problem")
    yield _asked("quota", lambda: _quota(found), otherwise="warning")
    for check in check_readiness(found, [*RIGHTS, CREATE_CLUSTER]):
        yield Finding(check.what, "ok" if check.is_ok else "warning", check.said, check.remedy)


def _python() -> Finding:
    said = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", "ok", said)
    return Finding("python", "problem", said, "Use Python 3.11, 3.12 or 3.13.")


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "problem", "is not installed", "Run make test, or make run.")


def _below(name: str, ceiling: tuple[int, int]) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "problem", "is not installed", "Run make test, or make run.")
    release = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if release < ceiling:
        return Finding(name, "ok", found)
    limit = ".".join(str(part) for part in ceiling)
    said = f"{found} breaks Prefect 3.8.8"
    return Finding(name, "problem", said, f"Install {name}<{limit}, as constraints/ does.")


def _prefect() -> Finding:
    try:
        url = prefect_api_url()
        if url is None:
            said = "none is configured: each run starts one of its own, and its page goes with it"
            return Finding("prefect api", "warning", said, "Start one with `prefect server start`.")
        check_prefect_server(url)
    except ConfigurationError as error:
        return Finding("prefect api", "problem", error.message, error.remedy)
    return Finding("prefect api", "ok", url)


def _asked(
    what: str, look: Callable[[], Finding], *, otherwise: Literal["warning", "problem"]
) -> Finding:
    try:
        with translated(f"looking at the {what}"):
            return look()
    except Exception as error:
        return _unread(what, error, otherwise)


def _unread(what: str, error: Exception, state: Literal["warning", "problem"]) -> Finding:
    remedy = "Check the network and your role assignments."
    if isinstance(error, FinetuneError):
        remedy = error.remedy
    return Finding(what, state, what_failed(error, f"looking at the {what}"), remedy)


def _registry(found: WorkspaceResult) -> Finding:
    component = registry_client(found.ref).components.get(
        name="chat_completion_pipeline", label="latest"
    )
    said = f"{found.ref.registry}: chat_completion_pipeline version {component.version}"
    return Finding("registry", "ok", said)


def _quota(found: WorkspaceResult) -> Finding:
    rows = [_usage(vars(usage)) for usage in ml_client(found.ref).compute.list_usage()]
    readable = [row for row in rows if row is not None]
    free = [f"{name} {left}" for family, name, left in readable if left > 0 and _is_gpu(family)]
    if free:
        return Finding("quota", "ok", "free GPU cores: " + ", ".join(free))
    if not rows or len(readable) < len(rows):
        unread = f"{len(rows) - len(readable)} of {len(rows)} rows of the quota cannot be read"
        said = unread if rows else "Azure lists no quota"
        return Finding("quota", "warning", said, "Look at the quota in Azure ML studio.")
    none = "no free cores of any GPU family in this region"
    return Finding("quota", "problem", none, "Ask for quota in Azure ML studio, or change region.")


def _usage(row: dict[str, Any]) -> tuple[str, str, int] | None:
    """Return a row's family, its name for people, and the cores left; None where one is missing."""
    # The SDK takes over the wire's spelling (currentValue) beside its own, which stays empty.
    name, limit, used = row.get("name"), row.get("limit"), row.get("currentValue")
    if not isinstance(name, dict) or not isinstance(name.get("value"), str):
        return None
    if not isinstance(limit, int) or not isinstance(used, int):
        return None
    return name["value"], str(name.get("localizedValue") or name["value"]), limit - used


def _is_gpu(family: str) -> bool:
    return family.lower().removeprefix("standard").startswith(("nc", "nd", "nv"))
