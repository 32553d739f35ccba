"""What the region sells, and how much of it the subscription may use.

Source of the shapes: Azure/azure-rest-api-specs, machinelearningservices, examples
``VirtualMachineSize/list.json``, ``Usages/list.json``, ``Quotas/list.json``.
"""

from __future__ import annotations

from ..emulator import Applier, Emulator
from ..errors import BadRequest
from ..routing import LOCATION, Call, Reply, Route
from ..settings import PROVIDER
from ..store import Document
from .compute import LOW_PRIORITY_CORES, cores_in_use, family_name


def list_sizes(emulator: Emulator, call: Call) -> Reply:
    """Answer with the VM sizes on sale."""
    _check_location(emulator, call)
    return Reply({"value": [_size(one) for one in emulator.catalog.sizes.values()]})


def list_usages(emulator: Emulator, call: Call) -> Reply:
    """Answer with the cores in use and the limit, by family."""
    _check_location(emulator, call)
    rows = [
        {
            "id": f"{emulator.catalog.location_id}/usages/{pool}",
            "type": f"{PROVIDER.removeprefix('/providers/')}/usages",
            "unit": "Count",
            "currentValue": cores_in_use(emulator, pool),
            "limit": limit,
            "name": _name(pool),
        }
        for pool, limit in emulator.catalog.quotas.items()
    ]
    return Reply({"value": rows})


def list_quotas(emulator: Emulator, call: Call) -> Reply:
    """Answer with the limits of cores, by family."""
    _check_location(emulator, call)
    rows = [
        {
            "id": f"{emulator.catalog.location_id}/quotas/{pool}",
            "type": f"{PROVIDER.removeprefix('/providers/')}/quotas",
            "unit": "Count",
            "limit": limit,
            "name": _name(pool),
        }
        for pool, limit in emulator.catalog.quotas.items()
    ]
    return Reply({"value": rows})


def _check_location(emulator: Emulator, call: Call) -> None:
    location = call.params["location"].lower()
    if location != emulator.catalog.location:
        raise BadRequest(
            f"No registered resource provider found for location '{location}'. The supported "
            f"locations are '{emulator.catalog.location}'.",
            code="NoRegisteredProviderFound",
        )


def _size(sold: Document) -> Document:
    prices = [{"retailPrice": sold["usd_per_hour"], "osType": "Linux", "vmTier": "Standard"}]
    return {
        "name": sold["name"],
        "family": sold["family"],
        "vCPUs": sold["vcpus"],
        "gpus": sold["gpus"],
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": 65536,
        "memoryGB": sold["memory_gb"],
        "lowPriorityCapable": sold.get("low_priority", False),
        "premiumIO": True,
        "estimatedVMPrices": {
            "billingCurrency": "USD",
            "unitOfMeasure": "OneHour",
            "values": prices,
        },
        "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
    }


def _name(pool: str) -> Document:
    if pool == LOW_PRIORITY_CORES:
        return {"value": pool, "localizedValue": "Total Cluster LowPriority vCPUs"}
    spoken = f"Standard {family_name(pool)} Family Cluster Dedicated vCPUs"
    return {"value": pool, "localizedValue": spoken}


ROUTES = [
    Route("GET", f"{LOCATION}/vmSizes", list_sizes),
    Route("GET", f"{LOCATION}/usages", list_usages),
    Route("GET", f"{LOCATION}/quotas", list_quotas),
]
EVENTS: dict[str, Applier] = {}
