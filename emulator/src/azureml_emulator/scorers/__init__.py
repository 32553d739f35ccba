"""Who answers a scoring request: the seam between a deployment and the model that it serves.

:mod:`~azureml_emulator.services.deployments` calls ``start`` when a deployment's container is to
come up, learns from ``health`` what became of it, and calls ``stop`` when the deployment goes;
:mod:`~azureml_emulator.services.scoring` has authenticated a request and chosen the deployment
before it calls ``score``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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


@dataclass(frozen=True)
class Health:
    """How a deployment's newest container is.

    Args:
        state: What its probes say; ``failed`` is for good.
        message: Why it failed, for a person.
    """

    state: Literal["starting", "ready", "failed"]
    message: str = ""


class Scorer(Protocol):
    """Runs the containers of the deployments. A deployment is the document that the store keeps.

    Its methods return at once, but for ``score``.
    """

    def start(self, deployment: Document, model: Document, settled: Callable[[], None]) -> None:
        """Bring a container up; one that is there answers until the new one is ready.

        Args:
            deployment: The deployment.
            model: What it serves, as :func:`~azureml_emulator.services.artifacts.model_at` says.
            settled: Called from another thread when ``health`` has been ``starting`` and is not
                any more.
        """

    def recover(self, deployment: Document, model: Document, settled: Callable[[], None]) -> None:
        """Bring up the container that an earlier emulator on this state folder had started."""

    def health(self, deployment: Document) -> Health:
        """Return how the container that was started last is."""

    def score(self, deployment: Document, body: bytes) -> Scored:
        """Answer one request.

        Raises:
            ServiceUnavailable: There is no container that is ready.
            TooManyRequests: There are more requests than the deployment takes at once.
            RequestTimeout: The answer did not come in time.
            BadGateway: The container ended before it had answered.
        """

    def log(self, deployment: Document) -> str:
        """Return what the container has written; empty if it never came up."""

    def stop(self, deployment: Document) -> None:
        """Take the container and its log away; one that never came up is no error."""

    def close(self) -> None:
        """End every container; the emulator stops."""


def scorer(settings: Settings, clock: Clock) -> Scorer:
    """Return the scorer for ``settings.jobs``."""
    if settings.jobs == "scripted":
        from .scripted import Scripted

        return Scripted(settings.deployments, clock)
    from .process import ProcessScorer

    return ProcessScorer(settings.deployments, settings.cache)
