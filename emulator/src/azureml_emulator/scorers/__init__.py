"""Who answers a scoring request: the seam between a deployment and the model that it serves.

:mod:`~azureml_emulator.services.deployments` calls ``start`` when a deployment's container comes
up and ``stop`` when it goes; :mod:`~azureml_emulator.services.scoring` has authenticated a request
and chosen the deployment before it calls ``score``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ..clock import Clock
from ..settings import Settings
from ..store import Document


@dataclass(frozen=True)
class Scored:
    """What a deployment's container answered.

    Args:
        status: Its HTTP status; Azure hides any other than 200 behind a 424.
        body: Its JSON.
    """

    status: int
    body: Any


class Scorer(Protocol):
    """Runs the containers of the deployments. A deployment is the document that the store keeps."""

    def start(self, deployment: Document) -> None:
        """Bring the deployment's container up, anew if it was there."""

    def score(self, deployment: Document, body: bytes) -> Scored:
        """Answer one request."""

    def log(self, deployment: Document) -> str:
        """Return what the container has written; empty if it never came up."""

    def stop(self, deployment: Document) -> None:
        """Take the container and its log away; one that never came up is no error."""


def scorer(settings: Settings, clock: Clock) -> Scorer:
    """Return the scorer for ``settings.jobs``."""
    from .scripted import Scripted

    return Scripted(settings.deployments, clock)
