"""A model that has been scripted: strict about the request, always the same reply to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..clock import Clock, iso
from ..store import Document
from . import Health, Scored

_ROLES = ("system", "user", "assistant")
_ECHO_LENGTH = 80


class Scripted:
    """Replies without a model.

    Args:
        folder: Where each container's log is kept.
        clock: What the log lines are dated by.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def start(self, deployment: Document, model: Document, settled: Callable[[], None]) -> None:
        """Write what a container writes when it comes up, which it is at once."""
        self._folder.mkdir(exist_ok=True)
        self._path(deployment).write_text("", encoding="utf-8")
        name, version = _model(deployment)
        self._write(deployment, f"azmlinfsrv - Model {name}:{version}; its replies are scripted")
        self._write(deployment, "azmlinfsrv.user_script - Invoking user's init function")
        self._write(deployment, "azmlinfsrv.user_script - Users's init has completed successfully")
        self._write(deployment, "gunicorn.error - Listening at: http://0.0.0.0:31311")

    def recover(self, deployment: Document, model: Document, settled: Callable[[], None]) -> None:
        """Do nothing: its log is still there."""

    def health(self, deployment: Document) -> Health:
        """Return that all is well."""
        return Health("ready")

    def score(self, deployment: Document, body: bytes) -> Scored:
        """Answer ``{"output": reply}``, or a list of them for several conversations."""
        try:
            conversations = _conversations(body)
        except ValueError as error:
            self._write(deployment, f"azmlinfsrv - POST /score 400 {error}")
            return Scored(400, {"error": {"code": "BadArgument", "message": str(error)}})
        self._write(deployment, "azmlinfsrv - POST /score 200")
        replies = [{"output": _reply(deployment, messages)} for messages in conversations]
        return Scored(200, replies[0] if len(replies) == 1 else replies)

    def log(self, deployment: Document) -> str:
        """Return the lines so far."""
        path = self._path(deployment)
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def stop(self, deployment: Document) -> None:
        """Remove the log."""
        self._path(deployment).unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: nothing runs."""

    def _path(self, deployment: Document) -> Path:
        endpoint, _, name = deployment["id"].rsplit("/", 3)[1:]
        return self._folder / f"{endpoint}.{name}.log"

    def _write(self, deployment: Document, line: str) -> None:
        with self._path(deployment).open("a", encoding="utf-8") as log:
            log.write(f"{iso(self._clock.now())} I [39] {line}\n")


def _model(deployment: Document) -> tuple[str, str]:
    _, name, _, version = deployment["properties"]["model"].rsplit("/", 3)
    return name, version


def _conversations(body: bytes) -> list[list[dict[str, str]]]:
    """Read the tutorial's request: one conversation, or several, and generation parameters.

    Source: azureml-examples, sdk/python/foundation-models/system/finetune/chat-completion.
    """
    try:
        request = json.loads(body)
    except ValueError as error:
        raise ValueError(f"the request is not JSON: {error}") from error
    data = request.get("input_data") if isinstance(request, dict) else None
    if not isinstance(data, dict):
        raise ValueError("the request has no object input_data")
    if not isinstance(data.get("parameters", {}), dict):
        raise ValueError("input_data.parameters is not an object")
    given = data.get("input_string")
    if not isinstance(given, list) or not given:
        raise ValueError("input_data.input_string is not a list of messages")
    conversations = given if all(isinstance(item, list) for item in given) else [given]
    for messages in conversations:
        _check(messages)
    return conversations


def _check(messages: list[Any]) -> None:
    if not messages:
        raise ValueError("a conversation has no messages")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ValueError(f"each message needs a role, one of {', '.join(_ROLES)}")
        if not isinstance(message.get("content"), str):
            raise ValueError("each message needs a content, which is text")


def _reply(deployment: Document, messages: list[dict[str, str]]) -> str:
    model, version = _model(deployment)
    asked = [message["content"] for message in messages if message["role"] == "user"]
    words = " ".join((asked or [""])[-1].split())
    echo = words if len(words) <= _ECHO_LENGTH else f"{words[: _ECHO_LENGTH - 1]}…"
    return f"A scripted reply of {model}:{version} to: {echo}"
