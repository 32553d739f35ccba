"""``finetune doctor``: is this machine, and this workspace, ready? Each finding with its remedy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple

from lifecycle.auth import WorkspaceResult, authenticate, resolve_workspace
from lifecycle.clients import ml_client, registry_client
from lifecycle.errors import ConfigurationError, FinetuneError

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
    """Look at versions, workspace, credential, registry, quota and Prefect, in that order."""
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
    yield Finding("credential", "ok", f"gives a token for tenant {found.tenant_id}")
    yield Finding("region", "ok", found.region or "Azure does not say")
    yield _asked("registry", lambda: _registry(found))
    yield _asked("quota", lambda: _quota(found))


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
    found = version(name)
    major, minor = (int(part) for part in found.split(".")[:2])
    if (major, minor) < ceiling:
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


def _asked(what: str, look: Callable[[], Finding]) -> Finding:
    from azure.core.exceptions import AzureError

    from lifecycle.azure import translated

    try:
        with translated(f"looking at the {what}"):
            return look()
    except FinetuneError as error:
        return Finding(what, "problem", error.message, error.remedy)
    except AzureError as error:
        return Finding(what, "problem", str(error), "Check the network and your role assignments.")


def _registry(found: WorkspaceResult) -> Finding:
    component = registry_client(found.ref).components.get(
        name="chat_completion_pipeline", label="latest"
    )
    said = f"{found.ref.registry}: chat_completion_pipeline version {component.version}"
    return Finding("registry", "ok", said)


def _quota(found: WorkspaceResult) -> Finding:
    free = []
    for usage in ml_client(found.ref).compute.list_usage():
        # The SDK takes over the wire's spelling (currentValue) beside its own, which stays empty.
        said = vars(usage)
        left = (said["limit"] or 0) - (said.get("currentValue") or 0)
        if left > 0 and _is_gpu(said["name"]["value"]):
            free.append(f"{said['name'].get('localizedValue') or said['name']['value']} {left}")
    if free:
        return Finding("quota", "ok", "free GPU cores: " + ", ".join(free))
    none = "no free cores of any GPU family in this region"
    return Finding("quota", "problem", none, "Ask for quota in Azure ML studio, or change region.")


def _is_gpu(family: str) -> bool:
    return family.lower().removeprefix("standard").startswith(("nc", "nd", "nv"))
