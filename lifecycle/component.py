"""Step 2, *component*: the registry's pipeline component, and the parameters that it will accept.

Neither the SDK nor the service checks a literal against the component's own declaration of it:
``num_train_epochs=0`` is accepted, and fails forty minutes later. So it is checked here, before
anything is spent.
"""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import Field

from lifecycle import clients
from lifecycle.azure import translated
from lifecycle.clients import WorkspaceRef
from lifecycle.errors import ComponentInputError, ComponentNotFound
from lifecycle.model import Scalar
from lifecycle.plain import Result, Spec

T = TypeVar("T")

_BRIEF = reprlib.Repr()
_LARGEST_INTEGER = 2**31 - 1  # What the component's Python and its accelerators take.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$"


def _tutorial_parameters() -> dict[str, Scalar]:
    """Return the training and optimisation parameters that Microsoft's tutorial starts from."""
    return {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "learning_rate": 5e-6,
        "lr_scheduler_type": "cosine",
        "apply_lora": "true",
        "apply_deepspeed": "true",
        "deepspeed_stage": 2,
    }


class TrainingSpec(Spec):
    """Which component trains the model, under which experiment, with which parameters."""

    component: str = Field(
        default="chat_completion_pipeline",
        pattern=_NAME,
        title="Component",
        description="Pipeline component of the registry.",
        examples=["chat_completion_pipeline"],
    )
    component_version: str = Field(
        default="latest",
        pattern=_NAME,
        title="Version",
        description="A version of the component, or latest.",
        examples=["latest", "0.0.82"],
    )
    experiment_name: str = Field(
        default="chat_completion",
        pattern=_NAME,
        title="Experiment",
        description="Experiment of the workspace that the job is filed under.",
        examples=["chat_completion_Phi-3-mini-4k-instruct"],
    )
    defaults: dict[str, Scalar] = Field(
        default_factory=_tutorial_parameters,
        title="Defaults",
        description="Parameters of the component; what the model recommends goes before them.",
        examples=[{"num_train_epochs": 3}],
    )
    overrides: dict[str, Scalar] = Field(
        default_factory=dict,
        title="Overrides",
        description="Parameters of the component that go before all others.",
        examples=[{"learning_rate": 2e-5}],
    )


class ComponentInput(Result):
    """An input as the component declares it."""

    type: str = Field(
        title="Type", description="integer, number, string, boolean, or a kind of asset."
    )
    default: Scalar | None = Field(
        default=None, title="Default", description="What the component uses where none is given."
    )
    enum: list[str] | None = Field(
        default=None, title="Values", description="The values allowed, as text."
    )
    min: float | None = Field(default=None, title="Least", description="The least value allowed.")
    max: float | None = Field(default=None, title="Most", description="The greatest value allowed.")
    optional: bool = Field(
        default=False, title="Optional", description="Whether it may be left out."
    )
    unread: str | None = Field(
        default=None,
        title="Unread",
        description="What of its declaration is not understood: a value is passed unchecked then.",
    )


class ComponentResult(Result):
    """The component that was found."""

    name: str = Field(title="Component", description="Name.", examples=["chat_completion_pipeline"])
    version: str = Field(title="Version", description="The version found.", examples=["0.0.82"])
    id: str = Field(
        title="Asset id",
        description="What the job names it by.",
        examples=["azureml://registries/azureml/components/chat_completion_pipeline/versions/…"],
    )
    inputs: dict[str, ComponentInput] = Field(title="Inputs", description="By name.")
    outputs: list[str] = Field(
        title="Outputs", description="Names.", examples=[["mlflow_model_folder"]]
    )


class Dropped(Result):
    """A parameter of the model's publisher that the job is not given."""

    name: str = Field(title="Parameter", description="Name.", examples=["learning_rate_min"])
    value: Scalar = Field(title="Value", description="What was asked for.", examples=["5e-7"])
    origin: str = Field(title="Origin", description="Who asked for it.", examples=["model"])
    reason: str = Field(
        title="Reason",
        description="Why it was dropped.",
        examples=["chat_completion_pipeline 0.0.82 has no such input"],
    )


class Parameters(Result):
    """The parameters that the job is given, each checked against the component."""

    values: dict[str, str | int | float] = Field(
        title="Values", description="As the job is given them.", examples=[{"apply_lora": "true"}]
    )
    origin: dict[str, str] = Field(
        title="Origin",
        description="Where each comes from: defaults, model or overrides.",
        examples=[{"apply_lora": "model"}],
    )
    dropped: list[Dropped] = Field(title="Dropped", description="What was left out, and why.")


def get_component(ref: WorkspaceRef, spec: TrainingSpec) -> ComponentResult:
    """Find the pipeline component in the registry and read what it declares.

    Raises:
        ComponentNotFound: The registry has no such component or version.
        ServiceError: The registry did not answer, or with an error.
    """
    latest = spec.component_version == "latest"
    which = {"label": "latest"} if latest else {"version": spec.component_version}
    doing = f"reading the component {spec.component} in the registry {ref.registry}"
    with translated(doing, where="training.component", not_found=ComponentNotFound):
        component = clients.registry_client(ref).components.get(spec.component, **which)
        return ComponentResult(
            name=str(component.name),
            version=str(component.version),
            id=str(component.id),
            inputs={str(name): read_input(item) for name, item in component.inputs.items()},
            outputs=sorted(str(name) for name in component.outputs),
        )


def merge_parameters(
    component: ComponentResult, spec: TrainingSpec, model_defaults: Mapping[str, Scalar]
) -> Parameters:
    """Merge ``spec.defaults`` < ``model_defaults`` < ``spec.overrides``, and check each value.

    What the model recommends and the component does not declare is dropped and named. Anything
    else that the component would not accept is refused, all of it in one error. Truth values
    become ``"true"`` and ``"false"``, as the components of the registry spell them.

    Args:
        component: What :func:`get_component` returned.
        spec: The parameters asked for.
        model_defaults: The publisher's tag, ``ModelResult.defaults``.

    Raises:
        ComponentInputError: A name that the component does not declare (with the nearest ones),
            one that the job step sets itself, or a value of the wrong type, not among those
            allowed, or out of bounds; or a required input has no value.
    """
    values: dict[str, str | int | float] = {}
    origin: dict[str, str] = {}
    dropped: list[Dropped] = []
    problems: list[tuple[str, str, str]] = []
    layers = {"defaults": spec.defaults, "model": model_defaults, "overrides": spec.overrides}
    for layer, parameters in layers.items():
        for name, value in parameters.items():
            unwelcome = _unwelcome(component, name)
            try:
                checked = None if unwelcome else check_value(component.inputs[name], value)
                reason = unwelcome or ""
            except ValueError as error:
                checked, reason = None, str(error)
            if checked is not None:
                values[name], origin[name] = checked, layer
            elif layer == "model" and (unwelcome or name in spec.overrides):
                dropped.append(Dropped(name=name, value=value, origin=layer, reason=reason))
            else:
                problems.append((layer, name, reason))
    problems += [
        ("overrides", name, "the component requires it, and nothing gives it")
        for name, declared in component.inputs.items()
        if _is_required(declared) and not _wired_by(name) and name not in values
    ]
    if problems:
        raise _refusal(problems)
    return Parameters(values=values, origin=origin, dropped=dropped)


def check_value(declared: ComponentInput, value: Scalar) -> str | int | float:
    """Return ``value`` as the input takes it: numbers as numbers, the rest as text.

    Text that reads as a number is taken for one where the input is a number: YAML reads ``5e-6``
    as text, and the publishers' tags hold both.

    Raises:
        ValueError: Wrong type, not among the values allowed, or out of bounds; says which.
    """
    if declared.unread is not None:
        return _as_text(value) if isinstance(value, bool) else value
    checked = _CASTS.get(declared.type, _as_text)(value)
    if declared.enum is not None:
        folded = {item.lower(): item for item in declared.enum}
        if str(checked).lower() not in folded:
            raise ValueError(f"{value!r} is not one of {', '.join(declared.enum)}")
        checked = folded[str(checked).lower()] if isinstance(checked, str) else checked
    if isinstance(checked, (int, float)):
        if declared.min is not None and checked < declared.min:
            raise ValueError(f"{value!r} is below the least value, {declared.min:g}")
        if declared.max is not None and checked > declared.max:
            raise ValueError(f"{value!r} is above the greatest value, {declared.max:g}")
    return checked


_WIRED = (
    (re.compile(r"mlflow_model_path|pytorch_model_path"), "model.name"),
    (re.compile(r"compute_.+"), "compute.name"),
    (re.compile(r"instance_type_.+"), "compute.size"),
    (re.compile(r".+_(?:file|mltable)_path"), "dataset.path"),
    (re.compile(r"number_of_gpu_to_use_finetuning"), "compute.size"),
    (re.compile(r"num_nodes_finetune"), "compute.nodes"),
)

_ASSETS = frozenset(
    {"custom_model", "mlflow_model", "mltable", "triton_model", "uri_file", "uri_folder"}
)


def read_input(item: Any) -> ComponentInput:
    """Read what the registry says of an input; what is not understood is named, and not checked."""
    unread: list[str] = []

    def said(name: str, read: Callable[[Any], T]) -> T | None:
        value = getattr(item, name, None)
        if value is None:
            return None
        try:
            return read(value)
        except (TypeError, ValueError, OverflowError):
            unread.append(f"{name} = {_BRIEF.repr(value)}")
            return None

    return ComponentInput(
        type=said("type", _type) or "string",
        default=said("default", _scalar),
        enum=said("enum", _values),
        min=said("min", _bound),
        max=said("max", _bound),
        # Text, since YAML's "true" and the service's "True" both come so.
        optional=str(getattr(item, "optional", False)).lower() == "true",
        unread=", ".join(unread) or None,
    )


def _type(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("no name of a type")
    return value.strip().lower()


def _scalar(value: Any) -> Scalar:
    if not isinstance(value, (str, int, float)):
        raise ValueError("no text and no number")
    return value


def _values(value: Any) -> list[str] | None:
    if not isinstance(value, (list, tuple)):
        raise ValueError("no list")
    return [_as_text(_scalar(one)) for one in value] or None


def _bound(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("no number")
    number = float(value)
    if math.isnan(number):
        raise ValueError("no number")
    return number


def _unwelcome(component: ComponentResult, name: str) -> str | None:
    """Return why the job is not given a parameter of this name; None where it may be."""
    parameter = _wired_by(name)
    if parameter:
        return f"the job step sets it: use {parameter}"
    declared = component.inputs.get(name)
    if declared is None:
        near = difflib.get_close_matches(name, component.inputs, n=3)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        return f"{component.name} {component.version} has no such input{hint}"
    if declared.type in _ASSETS:
        return f"it takes a {declared.type}, which is no parameter"
    return None


def _wired_by(name: str) -> str | None:
    return next((given for pattern, given in _WIRED if pattern.fullmatch(name)), None)


def _is_required(declared: ComponentInput) -> bool:
    if declared.optional or declared.unread is not None:
        return False
    return declared.default is None and declared.type not in _ASSETS


def _refusal(problems: list[tuple[str, str, str]]) -> ComponentInputError:
    (layer, name, reason), *others = problems
    where = _place(layer, name)
    remedy = (
        f"Set training.overrides.{name}, which goes before what the model's publisher says."
        if layer == "model"
        else ComponentInputError.default_remedy
    )
    also = "; ".join(f"{_place(layer, name)}: {reason}" for layer, name, reason in others)
    return ComponentInputError(
        f"{reason}.",
        where=where,
        remedy=f"{remedy} Also: {also}." if also else remedy,
    )


def _place(layer: str, name: str) -> str:
    return f"model_specific_defaults.{name}" if layer == "model" else f"training.{layer}.{name}"


def _as_integer(value: Scalar) -> int:
    number = _as_number(value)
    if not float(number).is_integer():
        raise ValueError(f"{value!r} is no whole number")
    if abs(number) > _LARGEST_INTEGER:
        raise ValueError(f"{value!r} is beyond {_LARGEST_INTEGER}")
    return int(number)


def _as_number(value: Scalar) -> int | float:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no number")
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number


def _as_boolean(value: Scalar) -> str:
    text = _as_text(value).lower()
    if text not in {"true", "false"}:
        raise ValueError(f"{value!r} is neither true nor false")
    return text


def _as_text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_CASTS = {"integer": _as_integer, "number": _as_number, "boolean": _as_boolean}
