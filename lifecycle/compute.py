"""Step 3, *compute*: the GPU cluster that the job runs on, or serverless compute of a given size.

The cluster is looked at before anything is spent, and made only when Azure says that it is not
there: any other failure to read it is a failure, since making it twice costs money.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field

from lifecycle import clients, prices
from lifecycle.azure import find, translated
from lifecycle.clients import WorkspaceRef
from lifecycle.courtesy import courtesy, warn
from lifecycle.errors import (
    ComputeNotUsable,
    ConfigurationError,
    ServiceError,
    SizeNotAllowed,
    SizeUnknown,
)
from lifecycle.job import OWNER_TAG
from lifecycle.loose import as_text, look_up
from lifecycle.operation import Change, carry_out, state_of
from lifecycle.patience import within
from lifecycle.plain import Result, Spec
from lifecycle.waiting import SYSTEM_CLOCK, Clock, growing, reporting, wait_until

logger = logging.getLogger(__name__)

Tier = Literal["dedicated", "low_priority"]

CREATE_SECONDS = 900.0


class ComputeSpec(Spec):
    """What to train on: a cluster by name, or serverless compute."""

    name: str | None = Field(
        default="gpu-cluster-big",
        pattern=r"^[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]$",
        title="Cluster",
        description="Name of the compute cluster, made if it is not there. None: serverless.",
        examples=["gpu-cluster-big", None],
    )
    size: str = Field(
        min_length=1,
        title="VM size",
        description="Size of a node, in any case. It must have GPUs, and the model must allow it.",
        examples=["Standard_NC24ads_A100_v4"],
    )
    tier: Tier = Field(
        default="dedicated",
        title="Tier",
        description="dedicated, or low_priority: cheaper, but may be taken away in mid-job.",
        examples=["dedicated"],
    )
    allow_low_priority: bool = Field(
        default=False,
        title="Allow low priority",
        description="Where no dedicated cluster can be made, make or use a low priority one.",
        examples=[False],
    )
    gpus_per_node: int | None = Field(
        default=None,
        ge=1,
        le=64,
        title="GPUs of a node",
        description="Only where neither Azure nor the table that comes with this package knows "
        "the size. None: as they say.",
        examples=[None, 8],
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=100,
        title="Nodes",
        description="Nodes that the job trains on; the component's num_nodes_finetune.",
        examples=[1],
    )
    max_instances: int = Field(
        default=1,
        ge=1,
        le=1000,
        title="Most nodes",
        description="Nodes that a new cluster may grow to; at least nodes. It shrinks to none.",
        examples=[2],
    )
    idle_seconds_before_scale_down: int = Field(
        default=120,
        ge=0,
        le=86_400,
        title="Idle time",
        description="Seconds that a node of a new cluster may idle before it is given back.",
        examples=[120],
    )
    delete_after: bool = Field(
        default=False,
        title="Delete afterwards",
        description="Delete the cluster when the job has ended, if this run made it. It costs "
        "nothing either way: without a job it shrinks to no node.",
        examples=[False],
    )

    @property
    def label(self) -> str:
        """What people call it: the cluster's name, or that there is none."""
        return self.name or "serverless compute"


class SizeInfo(Result):
    """A VM size."""

    name: str = Field(
        title="Size", description="As Azure spells it.", examples=["Standard_NC24ads_A100_v4"]
    )
    gpus: int = Field(
        ge=0, title="GPUs", description="GPUs of a node; 0 also where nobody knows.", examples=[1]
    )
    vcpus: int = Field(
        ge=0, title="vCPUs", description="Virtual CPUs of a node; 0: not known.", examples=[24]
    )
    memory_gb: float = Field(
        ge=0, title="Memory", description="In GB; 0: not known.", examples=[220.0]
    )
    low_priority: bool = Field(
        title="Low priority",
        description="Whether it can be had as low priority, as far as is known.",
        examples=[True],
    )
    source: Literal["azure", "table", "nobody"] = Field(
        default="azure", title="Source", description="Who says how many GPUs it has."
    )


class ComputeState(Result):
    """A cluster as it stands."""

    name: str = Field(title="Cluster", description="Name.", examples=["gpu-cluster-big"])
    size: str = Field(
        title="VM size", description="Size of a node.", examples=["Standard_NC24ads_A100_v4"]
    )
    tier: str = Field(title="Tier", description="Tier of its nodes.", examples=["dedicated"])
    provisioning_state: str = Field(
        title="State", description="As Azure says it.", examples=["Succeeded"]
    )
    provisioning_error: str | None = Field(
        default=None,
        title="Error",
        description="Azure's code where provisioning failed.",
        examples=["QuotaExceeded"],
    )
    min_instances: int = Field(title="Fewest nodes", description="Kept up.", examples=[0])
    max_instances: int = Field(title="Most nodes", description="May grow to.", examples=[2])
    owner: str | None = Field(
        default=None, title="Owner", description="Id of the flow run that made it, if one did."
    )


class ComputeResult(Result):
    """What the job will run on."""

    name: str | None = Field(
        title="Cluster", description="None for serverless.", examples=["gpu-cluster-big"]
    )
    size: str = Field(
        title="VM size", description="Size of a node.", examples=["Standard_NC24ads_A100_v4"]
    )
    tier: str = Field(title="Tier", description="Tier of its nodes.", examples=["dedicated"])
    gpus_per_node: int = Field(ge=1, title="GPUs", description="GPUs of a node.", examples=[1])
    nodes: int = Field(ge=1, title="Nodes", description="Nodes the job uses.", examples=[1])
    serverless: bool = Field(
        title="Serverless", description="Whether there is no cluster.", examples=[False]
    )
    created: bool = Field(
        title="Created", description="Whether this run made the cluster.", examples=[False]
    )


def list_sizes(ref: WorkspaceRef) -> dict[str, SizeInfo]:
    """Return the VM sizes of the workspace's region, by name in lower case.

    Where Azure does not list them, a warning says so, and they are those of the table that comes
    with this package; :func:`is_listed` tells them apart.
    """
    return courtesy(
        "listing the VM sizes of the region",
        lambda: read_sizes(ref),
        otherwise=_bundled(),
        instead=f"GPUs are taken from the table of {prices.collected()} that comes with this "
        "package; whether the region offers a size is not checked.",
    )


def read_sizes(ref: WorkspaceRef) -> dict[str, SizeInfo]:
    """Return the VM sizes that Azure lists, by name in lower case.

    Raises:
        ServiceError: Azure did not answer, with an error, or with nothing that can be understood.
    """
    with translated("listing the VM sizes of the region", where="compute.size"):
        found = list(clients.ml_client(ref).compute.list_sizes())
    sizes = [size for one in found if (size := _size_info(one)) is not None]
    if not any(size.source == "azure" for size in sizes):
        raise ServiceError("Azure lists no VM size of the region that can be understood.")
    return {size.name.lower(): size for size in sizes}


def is_listed(sizes: Mapping[str, SizeInfo]) -> bool:
    """Say whether these are the sizes of the region, as Azure lists them."""
    return any(size.source == "azure" for size in sizes.values())


def check_compute(ref: WorkspaceRef, spec: ComputeSpec) -> ComputeState | None:
    """Return the cluster as it stands; None for serverless, or where Azure answers 404.

    Raises:
        ComputeNotUsable: The name is taken by a compute that is no cluster.
        ServiceError: Azure did not answer, or with an error.
    """
    if spec.name is None:
        return None
    found = _found(ref, spec)
    if found is None:
        return None
    if found.type and _text(found.type).lower() != "amlcompute":
        raise ComputeNotUsable(
            f"{spec.name} is a {found.type}, not a compute cluster.", where="compute.name"
        )
    if not found.size:
        warn(f"Azure does not say of what size the nodes of {spec.name} are: taken as asked for.")
    return ComputeState(
        name=str(spec.name),
        size=str(found.size or spec.size),
        tier=_text(found.tier or "dedicated").lower(),
        provisioning_state=_text(found.provisioning_state),
        provisioning_error=found.provisioning_errors or None,
        min_instances=int(found.min_instances or 0),
        max_instances=spec.nodes if found.max_instances is None else int(found.max_instances),
        owner=(found.tags or {}).get(OWNER_TAG),
    )


def validate_compute(
    spec: ComputeSpec,
    found: ComputeState | None,
    sizes: Mapping[str, SizeInfo],
    allow_list: list[str] | None,
) -> SizeInfo:
    """Return the size asked for, if the job can run on it and on the cluster found.

    Args:
        spec: The compute asked for.
        found: What :func:`check_compute` returned.
        sizes: What :func:`list_sizes` returned.
        allow_list: The sizes that the model allows; None where it does not say, and then none
            is refused.

    Raises:
        SizeUnknown: The region does not offer the size, or nobody knows how many GPUs it has.
        ConfigurationError: ``spec.gpus_per_node`` is not what Azure or the table says.
        SizeNotAllowed: It has no GPU, the model does not allow it, or not as low priority.
        ComputeNotUsable: The cluster failed, or is of another size or tier, or too small.
    """
    size = _with_known_gpus(find_size(spec.size, sizes, where="compute.size"), spec)
    if size.gpus == 0:
        raise SizeNotAllowed(
            f"{size.name} has no GPU, and fine-tuning needs one.",
            where="compute.size",
            remedy=f"Choose one with GPUs: {_some(_with_gpus(sizes))}.",
        )
    require_allowed(size, allow_list, sizes, use="fine-tune", where="compute.size")
    if spec.tier == "low_priority" and not size.low_priority:
        raise SizeNotAllowed(
            f"{size.name} cannot be had as low priority.",
            where="compute.tier",
            remedy="Set compute.tier to dedicated, or choose another size.",
        )
    if found is not None:
        _require_usable(spec, found)
    return size


def find_size(name: str, sizes: Mapping[str, SizeInfo], *, where: str) -> SizeInfo:
    """Return the size called ``name``, in any case; one that nobody knows where Azure lists none.

    Raises:
        SizeUnknown: The region does not offer it.
    """
    size = sizes.get(name.lower())
    if size is not None:
        return size
    if not is_listed(sizes):
        return _unknown(name)
    near = [sizes[key].name for key in difflib.get_close_matches(name.lower(), sizes, n=3)]
    raise SizeUnknown(
        f"The workspace's region does not offer {name}.",
        where=where,
        remedy=f"Choose another size, such as {_some(near or _with_gpus(sizes))}.",
    )


def require_allowed(
    size: SizeInfo,
    allow_list: list[str] | None,
    sizes: Mapping[str, SizeInfo],
    *,
    use: str,
    where: str,
) -> None:
    """Refuse a size that the model's publisher does not allow; None allows every size.

    Args:
        size: The size asked for.
        allow_list: The sizes that the model allows, or None.
        sizes: What :func:`list_sizes` returned, to say which of them the region offers.
        where: The parameter that asks for the size.
        use: What it would be used for, as a verb: ``fine-tune`` or ``serve``.

    Raises:
        SizeNotAllowed: It is not on the list.
    """
    if allow_list is None or size.name.lower() in {name.lower() for name in allow_list}:
        return
    offered = [name for name in allow_list if name.lower() in sizes]
    raise SizeNotAllowed(
        f"The model does not allow {size.name} to {use} it.",
        where=where,
        remedy=f"Choose one that it allows and the region offers: {', '.join(offered)}."
        if offered
        else f"The region offers none that it allows ({', '.join(allow_list)}): "
        "choose another region or model.",
    )


def ensure_compute(
    ref: WorkspaceRef,
    spec: ComputeSpec,
    size: SizeInfo,
    *,
    owner: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> ComputeResult:
    """Return the compute to train on, and make the cluster if Azure says that it is not there.

    A new cluster shrinks to no node when idle. A dedicated one is tried first; a low priority one
    only where ``spec.allow_low_priority`` is set and Azure refused the dedicated one for good.

    Args:
        ref: The workspace.
        spec: The compute asked for.
        size: What :func:`validate_compute` returned.
        owner: The flow run's id, which a new cluster is tagged with.
        clock: Whose time passes.

    Raises:
        ComputeNotUsable: The cluster cannot be used, or Azure refuses to make it (quota).
        ServiceError: Azure did not answer, or with an error.
    """
    if spec.name is None:
        return _result(spec, size, tier=spec.tier, created=False)
    found = check_compute(ref, spec)
    if found is not None:
        _require_usable(spec, found)
        is_ours = owner is not None and found.owner == owner
        return _result(spec, size, tier=found.tier, created=is_ours)
    try:
        _create(ref, spec, size, spec.tier, owner, clock)
        return _result(spec, size, tier=spec.tier, created=True)
    except ComputeNotUsable as refusal:
        if spec.tier == "low_priority" or not spec.allow_low_priority or not size.low_priority:
            raise
        logger.warning(
            "%s Making %s as low priority, which Azure may take away in mid-job.",
            refusal.message,
            spec.name,
        )
    _create(ref, spec, size, "low_priority", owner, clock)
    return _result(spec, size, tier="low_priority", created=True)


def _require_usable(spec: ComputeSpec, found: ComputeState) -> None:
    state = found.provisioning_state.lower()
    if state in {"failed", "canceled", "deleting"}:
        code = f" ({found.provisioning_error})" if found.provisioning_error else ""
        raise ComputeNotUsable(
            f"The cluster {found.name} is {state}{code}.",
            where="compute.name",
            remedy="Delete it, or name another.",
        )
    if found.size.lower() != spec.size.lower():
        raise ComputeNotUsable(
            f"The cluster {found.name} is made of {found.size}, not {spec.size}.",
            where="compute.size",
        )
    low_priority_will_do = spec.allow_low_priority and found.tier == "low_priority"
    if found.tier != spec.tier and not low_priority_will_do:
        raise ComputeNotUsable(
            f"The cluster {found.name} is {found.tier}, not {spec.tier}.", where="compute.tier"
        )
    if found.max_instances < spec.nodes:
        raise ComputeNotUsable(
            f"The cluster {found.name} grows to {found.max_instances} nodes at most, "
            f"and {spec.nodes} are asked for.",
            where="compute.nodes",
            remedy="Raise the cluster's maximum, ask for fewer nodes, or name another.",
        )


def _create(
    ref: WorkspaceRef,
    spec: ComputeSpec,
    size: SizeInfo,
    tier: Tier,
    owner: str | None,
    clock: Clock,
) -> None:
    """Make the cluster and wait until it stands.

    Raises:
        ComputeNotUsable: Azure refuses it for good. What it had made of it is deleted.
        ServiceError: Azure did not answer, and there is no such cluster.
    """
    from azure.ai.ml.entities import AmlCompute

    cluster = AmlCompute(
        name=str(spec.name),
        size=size.name,
        tier=tier,
        min_instances=0,
        max_instances=max(spec.max_instances, spec.nodes),
        idle_time_before_scale_down=spec.idle_seconds_before_scale_down,
        tags=None if owner is None else {OWNER_TAG: owner},
    )
    client = clients.ml_client(ref).compute
    change = Change(
        doing=f"creating the {tier.replace('_', ' ')} cluster {spec.name} of {size.name}",
        where="compute.name",
        begin=lambda: client.begin_create_or_update(cluster),
        look=lambda: _found(ref, spec),
        as_wanted=lambda entity: str(entity.size).lower() == size.name.lower(),
        failed=ComputeNotUsable,
        unseen=ComputeNotUsable,
        remedy="Look at the cluster in Azure ML studio, and run again.",
    )
    try:
        carry_out(change, deadline_seconds=CREATE_SECONDS, clock=clock)
    except ComputeNotUsable as refusal:
        if isinstance(refusal.__cause__, ServiceError) and refusal.__cause__.status in {401, 403}:
            raise refusal.__cause__ from refusal
        courtesy(
            f"deleting the failed cluster {spec.name}",
            lambda: _remove_failed(ref, spec, owner, clock),
            otherwise=None,
            instead="Its name is taken until somebody deletes it in Azure ML studio.",
        )
        if "quota" in refusal.message.lower():
            refusal.remedy = (
                "Ask for quota of this VM family in the Azure portal, choose another size, "
                "or set compute.allow_low_priority."
            )
        raise


def _remove_failed(ref: WorkspaceRef, spec: ComputeSpec, owner: str | None, clock: Clock) -> None:
    """Delete the cluster that :func:`_create` left half made, so that the name is free again."""
    doing = f"deleting the failed cluster {spec.name}"

    def is_gone() -> bool | None:
        found = _found(ref, spec)
        is_ours = found is not None and (found.tags or {}).get(OWNER_TAG) == owner
        if is_ours and state_of(found) == "Failed":
            with within(CREATE_SECONDS, clock), translated(doing, where="compute.name"):
                clients.ml_client(ref).compute.begin_delete(str(spec.name))
        return None if is_ours else True

    look = reporting(is_gone, doing, clock)
    if not wait_until(look, every=growing(0.25, 5.0), deadline=CREATE_SECONDS, clock=clock):
        raise ServiceError(f"Azure was not done after {CREATE_SECONDS:.0f} s of {doing}.")


def _found(ref: WorkspaceRef, spec: ComputeSpec) -> Any | None:
    return find(
        f"reading the compute {spec.name}",
        "compute.name",
        lambda: clients.ml_client(ref).compute.get(str(spec.name)),
    )


def _result(spec: ComputeSpec, size: SizeInfo, *, tier: str, created: bool) -> ComputeResult:
    return ComputeResult(
        name=spec.name,
        size=size.name,
        tier=tier,
        gpus_per_node=size.gpus,
        nodes=spec.nodes,
        serverless=spec.name is None,
        created=created,
    )


def _size_info(size: Any) -> SizeInfo | None:
    """Read an SDK ``VmSize``: it takes over the wire's spelling (``vCPUs``) beside its own.

    None where it has no name.
    """
    said = {name: value for name, value in vars(size).items() if value is not None}
    name = as_text(look_up(said, "name"))
    if name is None:
        return None
    gpus = _number(look_up(said, "gpus"))
    if gpus is None:
        return _bundled().get(name.lower()) or _unknown(name)
    can_be_low = look_up(said, "lowPriorityCapable")
    return SizeInfo(
        name=name,
        gpus=int(gpus),
        vcpus=int(_number(look_up(said, "vCPUs")) or 0),
        memory_gb=_number(look_up(said, "memoryGB")) or 0,
        low_priority=can_be_low is None or bool(can_be_low),
    )


def _number(value: Any) -> float | None:
    """Return a number from 0 on, also one that came as text; None for anything else."""
    try:
        number = float(as_text(value) or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _bundled() -> dict[str, SizeInfo]:
    return {
        size.name.lower(): SizeInfo(
            name=size.name,
            gpus=size.gpus,
            vcpus=0,
            memory_gb=0,
            low_priority=True,
            source="table",
        )
        for size in prices.known_sizes()
    }


def _unknown(name: str) -> SizeInfo:
    return SizeInfo(name=name, gpus=0, vcpus=0, memory_gb=0, low_priority=True, source="nobody")


def _with_known_gpus(size: SizeInfo, spec: ComputeSpec) -> SizeInfo:
    """Return the size with the GPUs that somebody knows it has."""
    if size.source == "nobody":
        if spec.gpus_per_node is None:
            raise SizeUnknown(
                f"How many GPUs {size.name} has is not known: Azure does not say, and it is not in "
                "the table that comes with this package.",
                where="compute.size",
                remedy="Set compute.gpus_per_node, or let your identity list the sizes.",
            )
        return size.model_copy(update={"gpus": spec.gpus_per_node})
    if spec.gpus_per_node not in (None, size.gpus):
        raise ConfigurationError(
            f"{size.name} has {size.gpus} GPUs, not {spec.gpus_per_node}.",
            where="compute.gpus_per_node",
            remedy="Leave it out.",
        )
    return size


def _text(value: Any) -> str:
    """Return what the wire said: the SDK gives text in some places and an enum in others."""
    return str(getattr(value, "value", value))


def _with_gpus(sizes: Mapping[str, SizeInfo]) -> list[str]:
    return sorted(size.name for size in sizes.values() if size.gpus)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (" …" if len(listed) > 8 else "") or "none is offered"
