"""The services: a module each, with ``ROUTES``, what it answers, and ``EVENTS``, what time does."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..emulator import Applier, Emulator
from ..routing import Route

NAMES = (
    "control",
    "identity",
    "operations",
    "workspace",
    "authorization",
    "registry",
    "clusters",
    "region",
    "blobs",
    "datastores",
    "data",
    "jobs",
    "history",
    "mlflow",
    "models",
    "endpoints",
    "deployments",
    "scoring",
)


def routes() -> list[Route]:
    """Return every service's routes, in the order of :data:`NAMES`."""
    return [route for name in NAMES for route in _module(name).ROUTES]


def events() -> dict[str, Applier]:
    """Return every service's events by kind.

    Raises:
        ValueError: Two services claim one kind.
    """
    found: dict[str, Applier] = {}
    for name in NAMES:
        for kind, applier in _module(name).EVENTS.items():
            if kind in found:
                raise ValueError(f"two services claim the event {kind}")
            found[kind] = applier
    return found


def recover(emulator: Emulator) -> None:
    """Take up what was under way when the last emulator on this state folder ended."""
    for name in ("storage", "steps", "deployments"):
        _module(name).recover(emulator)


def _module(name: str) -> ModuleType:
    return import_module(f"{__package__}.{name}")
