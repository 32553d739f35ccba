"""Clusters as the other services see them: their nodes, who holds them, and what they cost.

A node is billed from the moment at which a job takes it until it has been idle for the cluster's
``nodeIdleTimeBeforeScaleDown``; ``minNodeCount`` nodes are billed as long as the cluster is there.
The clusters' REST is :mod:`.clusters`.
"""

from __future__ import annotations

import re

from ..emulator import Emulator
from ..settings import WORKSPACE_ID
from ..store import Document

KIND = "compute"
LOW_PRIORITY = "LowPriority"
LOW_PRIORITY_CORES = "TotalLowPriorityCores"
LOW_PRIORITY_FACTOR = 0.2
"""What a low-priority node costs of a dedicated one: the docs say up to 80 % less."""

# An update is one of how it scales: the nodes that there are go on.
_UP = ("Succeeded", "Updating")

DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.\d+)?S)?)?")


def compute_id(name: str) -> str:
    """Return the ARM id of the cluster *name*."""
    return f"{WORKSPACE_ID}/computes/{name}"


def find(emulator: Emulator, name: str) -> Document | None:
    """Return the cluster, or None; *name* may be its ARM id too."""
    return emulator.store.get(KIND, compute_id(name.rpartition("/")[2]))


def size(cluster: Document) -> str:
    """Return the VM size of *cluster*, as it is sold."""
    return str(cluster["properties"]["properties"]["vmSize"])


def max_nodes(cluster: Document) -> int:
    """Return how many nodes *cluster* may have."""
    return int(_scale(cluster)["maxNodeCount"])


def acquire_nodes(emulator: Emulator, name: str, nodes: int, owner: str) -> bool:
    """Give *nodes* of the cluster *name* to *owner*.

    Args:
        emulator: Where the cluster is.
        name: The cluster's name or ARM id.
        nodes: How many.
        owner: Who releases them; a second acquisition of his adds nothing.

    Returns:
        False if there are not so many free, the quota has not so many cores left, the cluster is
        not up yet, or there is none.
    """
    cluster = find(emulator, name)
    if cluster is None or cluster["properties"]["provisioningState"] not in _UP:
        return False
    held = cluster["_held"]
    if owner in held:
        return True
    busy = sum(held.values()) + nodes
    if busy > max_nodes(cluster):
        return False
    started = max(busy - cluster["_billed"], 0)
    if not has_cores(emulator, pool(emulator, cluster), started, size(cluster)):
        return False
    held[owner] = nodes
    cluster["_idle"] = cluster["_idle"][nodes:]
    bill(emulator, cluster)
    return True


def release_nodes(emulator: Emulator, name: str, owner: str) -> None:
    """Take back what *owner* holds, which may be nothing; the nodes idle for a while."""
    cluster = find(emulator, name)
    nodes = 0 if cluster is None else cluster["_held"].pop(owner, 0)
    if cluster is None or not nodes:
        return
    wanted = _seconds(_scale(cluster)["nodeIdleTimeBeforeScaleDown"])
    idle = emulator.latency.of_user("compute.scale_down", wanted)
    cluster["_idle"] += [emulator.now() + idle] * nodes
    bill(emulator, cluster)
    emulator.schedule("compute.scale_down", cluster["id"], after=idle)


def bill(emulator: Emulator, cluster: Document) -> None:
    """Keep *cluster*, and let its meter run for the nodes that it has now."""
    nodes = sum(cluster["_held"].values()) + len(cluster["_idle"])
    nodes = max(nodes, _scale(cluster)["minNodeCount"])
    if nodes != cluster["_billed"]:
        now, id_ = emulator.now(), cluster["id"]
        emulator.ledger.close(id_, at=now, reason=f"scaled to {nodes} nodes")
        if nodes:
            price = emulator.catalog.price(size(cluster))
            if _is_low_priority(cluster):
                price *= LOW_PRIORITY_FACTOR
            emulator.ledger.open(
                id_, "compute", at=now, sku=size(cluster), quantity=nodes, usd_per_hour=price
            )
        cluster["_billed"] = nodes
    save(emulator, cluster)


def quota_refusal(emulator: Emulator, cluster: Document) -> Document | None:
    """Return the error of a cluster that could not have as much as one node, or None."""
    sold, taken = emulator.catalog.sizes[size(cluster).lower()], pool(emulator, cluster)
    nodes = max(_scale(cluster)["minNodeCount"], 1)
    if has_cores(emulator, taken, nodes, sold["name"]):
        return None
    message = (
        f"The specified subscription has a {_quota_name(emulator, taken)} and cannot accommodate "
        f"for at least {nodes} requested managed compute nodes which maps to "
        f"{nodes * sold['vcpus']} vCPUs."
    )
    return {"code": "ClusterMinNodesExceedCoreQuota", "message": message}


def quota_problem(emulator: Emulator, pool: str, nodes: int, sku: str) -> str | None:
    """Return why *nodes* of the size *sku* can never be had, whatever else is in use, or None."""
    cores = nodes * emulator.catalog.sizes[sku.lower()]["vcpus"]
    if cores <= emulator.catalog.quotas.get(pool, 0):
        return None
    quota = _quota_name(emulator, pool)
    return f"The specified subscription has a {quota}, which {nodes} nodes of {sku} exceed."


def pool(emulator: Emulator, cluster: Document) -> str:
    """Return the quota of which *cluster* takes its cores: a family or low priority's."""
    if _is_low_priority(cluster):
        return LOW_PRIORITY_CORES
    return str(emulator.catalog.sizes[size(cluster).lower()]["family"])


def _quota_name(emulator: Emulator, pool: str) -> str:
    low = pool == LOW_PRIORITY_CORES
    spoken = "total low priority" if low else f"Standard {family_name(pool)} family"
    return f"{spoken} vCPU quota of {emulator.catalog.quotas.get(pool, 0)}"


def has_cores(emulator: Emulator, pool: str, nodes: int, sku: str) -> bool:
    """Return whether the quota *pool* has cores left for *nodes* more nodes of the size *sku*."""
    cores = nodes * emulator.catalog.sizes[sku.lower()]["vcpus"]
    return not cores or cores_in_use(emulator, pool) + cores <= emulator.catalog.quotas.get(pool, 0)


def cores_in_use(emulator: Emulator, pool: str) -> int:
    """Return the cores that are billed now, of a family or of :data:`LOW_PRIORITY_CORES`."""
    cores = 0
    for meter in emulator.ledger.report(now=emulator.now())["meters"]:
        sold = emulator.catalog.sizes.get(meter["sku"].lower())
        if meter["stopped"] is not None or sold is None:
            continue
        cluster = emulator.store.get(KIND, meter["resource"])
        low = cluster is not None and _is_low_priority(cluster)
        if pool == (LOW_PRIORITY_CORES if low else sold["family"]):
            cores += meter["quantity"] * sold["vcpus"]
    return cores


def family_name(family: str) -> str:
    """Return ``NCADSA100v4`` for ``standardNCADSA100v4Family``."""
    return re.sub(r"^standard|Family$", "", family, flags=re.IGNORECASE)


def save(emulator: Emulator, cluster: Document) -> None:
    """Keep *cluster*."""
    emulator.store.put(KIND, cluster["id"], cluster, parent=WORKSPACE_ID)


def _is_low_priority(cluster: Document) -> bool:
    return bool(cluster["properties"]["properties"]["vmPriority"] == LOW_PRIORITY)


def _scale(cluster: Document) -> Document:
    settings: Document = cluster["properties"]["properties"]["scaleSettings"]
    return settings


def _seconds(duration: str) -> float:
    match = DURATION.fullmatch(duration)
    assert match is not None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
