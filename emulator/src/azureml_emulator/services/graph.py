"""What a submitted pipeline is made of, and what the service refuses at submit.

The one kind of graph that is carried out is a job around one pipeline component of the registry,
which is what the fine-tuning tutorials submit. Its steps and their wiring are read from the
component itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..emulator import Emulator
from ..errors import BadRequest, NotEmulated
from ..store import Document
from . import compute

SERVERLESS = "serverless"

_COMPONENT_ID = re.compile(r"azureml://registries/([^/]+)/components/([^/]+)/versions/([^/]+)")
_INPUT = re.compile(r"\$\{\{parent\.inputs\.([\w.-]+)\}\}")
_UPSTREAM = re.compile(r"\$\{\{parent\.jobs\.([\w-]+)\.outputs\.([\w-]+)\}\}")
_OUTPUT = re.compile(r"\$\{\{parent\.outputs\.([\w-]+)\}\}")


def plan(emulator: Emulator, properties: Mapping[str, Any]) -> Document:
    """Return how the pipeline job with the REST *properties* is to be carried out.

    Returns:
        ``node`` (the component's key in the job), ``component``, ``parameters`` (its inputs as
        strings, defaults filled in), ``declared`` (what it declares of those), ``outputs`` (the
        job's output by the component's), ``steps`` in order, ``continue`` (on step failure).

    Raises:
        BadRequest: The component, an input, an output or a compute does not exist.
        NotEmulated: It is another kind of job.
    """
    node_key, node = _only_node(properties)
    component = _component(emulator, node_key, node)
    parameters = _parameters(node_key, node, component, properties)
    outputs = _outputs(node_key, node, component, properties)
    steps = _steps(component["jobs"])
    for key, step in steps.items():
        name = bound(step["compute"], parameters)
        if name != SERVERLESS and compute.find(emulator, name) is None:
            raise BadRequest(
                f"Compute target '{name}' of step '{key}' was not found in the workspace.",
                target="compute",
            )
    return {
        "node": node_key,
        "component": component["name"],
        "parameters": parameters,
        "declared": {name: component["inputs"][name] for name in parameters},
        "outputs": outputs,
        "steps": steps,
        "continue": (properties.get("settings") or {}).get("continue_on_step_failure", True),
    }


def bound(value: Any, parameters: Mapping[str, str]) -> str:
    """Return *value*, or the parameter that it is bound to; "" where there is none."""
    match = _INPUT.fullmatch(str(value))
    return parameters.get(match[1], "") if match else str(value)


def _only_node(properties: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    kind = properties.get("jobType")
    if kind != "Pipeline":
        raise NotEmulated(f"Jobs of type {kind} are not emulated, only Pipeline.")
    jobs = properties.get("jobs") or {}
    if not jobs:
        raise BadRequest("A pipeline job must have at least one job.", target="jobs")
    if len(jobs) > 1:
        raise NotEmulated(
            f"Pipelines of several jobs {sorted(jobs)} are not emulated, only of one component."
        )
    return next(iter(jobs.items()))


def _component(emulator: Emulator, node_key: str, node: Mapping[str, Any]) -> Document:
    component_id = str(node.get("componentId", ""))
    match = _COMPONENT_ID.fullmatch(component_id)
    if match is None:
        raise NotEmulated(
            f"Job '{node_key}' has the component '{component_id}'; only pipeline components of a "
            f"registry are emulated."
        )
    for component in emulator.catalog.components:
        if (component["name"], component["version"]) == (match[2], match[3]):
            if component.get("jobs"):
                return component
            raise NotEmulated(f"Component {match[2]} is no pipeline; only those are carried out.")
    raise BadRequest(
        f"Component {match[2]} with version {match[3]} was not found in registry {match[1]}.",
        target=f"jobs.{node_key}.componentId",
    )


def _parameters(
    node_key: str,
    node: Mapping[str, Any],
    component: Mapping[str, Any],
    properties: Mapping[str, Any],
) -> dict[str, str]:
    declared, given = component["inputs"], node.get("inputs") or {}
    if unknown := sorted(set(given) - set(declared)):
        raise BadRequest(
            f"Job '{node_key}' has inputs {unknown} that component {component['name']} does not "
            f"declare.",
            target=f"jobs.{node_key}.inputs",
        )
    values = {
        name: str(spec["default"])
        for name, spec in declared.items()
        if spec.get("default") is not None
    }
    for name, entry in given.items():
        value = str(entry.get("value", entry.get("uri", "")))
        if match := _INPUT.fullmatch(value):
            outer = (properties.get("inputs") or {}).get(match[1])
            if outer is None:
                raise BadRequest(
                    f"Input '{name}' of job '{node_key}' is bound to the pipeline input "
                    f"'{match[1]}', which there is not.",
                    target=f"jobs.{node_key}.inputs",
                )
            value = str(outer.get("value", outer.get("uri", "")))
        values[name] = value
    required = {name for name, spec in declared.items() if not _optional(spec)}
    if missing := sorted(required - set(values)):
        raise BadRequest(
            f"Job '{node_key}' lacks the required inputs {missing}.",
            target=f"jobs.{node_key}.inputs",
        )
    return values


def _optional(spec: Mapping[str, Any]) -> bool:
    return str(spec.get("optional", False)).lower() == "true"


def _outputs(
    node_key: str,
    node: Mapping[str, Any],
    component: Mapping[str, Any],
    properties: Mapping[str, Any],
) -> dict[str, str]:
    bindings: dict[str, str] = {}
    for name, entry in (node.get("outputs") or {}).items():
        match = _OUTPUT.fullmatch(str(entry.get("value", "")))
        if name not in component["outputs"]:
            raise BadRequest(
                f"Job '{node_key}' has the output '{name}' that component {component['name']} "
                f"does not declare.",
                target=f"jobs.{node_key}.outputs",
            )
        if match is None:
            continue
        if match[1] not in (properties.get("outputs") or {}):
            raise BadRequest(
                f"Output '{name}' of job '{node_key}' is bound to the pipeline output "
                f"'{match[1]}', which there is not.",
                target=f"jobs.{node_key}.outputs",
            )
        bindings[name] = match[1]
    return bindings


def _steps(jobs: Mapping[str, Any]) -> dict[str, Document]:
    steps = {key: _step(key, job) for key, job in jobs.items()}
    for step in steps.values():
        for source, output in step["upstream"].values():
            steps[source]["outputs"].setdefault(output, None)
    return steps


def _step(key: str, job: Mapping[str, Any]) -> Document:
    inputs = {name: _text(value) for name, value in (job.get("inputs") or {}).items()}
    upstream = {
        name: [match[1], match[2]]
        for name, value in inputs.items()
        if (match := _UPSTREAM.fullmatch(value))
    }
    outputs: dict[str, str | None] = {
        name: match[1] if (match := _OUTPUT.fullmatch(_text(value))) else None
        for name, value in (job.get("outputs") or {}).items()
    }
    resources = job.get("resources") or {}
    component = str(job.get("component", job.get("componentId", key)))
    return {
        "component": re.sub(r".*/components/|^azureml:|[:/].*", "", component) or key,
        "compute": job.get("compute", job.get("computeId", SERVERLESS)),
        "size": resources.get("instance_type", ""),
        "nodes": resources.get("instance_count", "1"),
        "upstream": upstream,
        "needs": sorted({step for step, _ in upstream.values()}),
        "outputs": outputs,
    }


def _text(value: Any) -> str:
    return str(value.get("value", value.get("uri", ""))) if isinstance(value, dict) else str(value)
