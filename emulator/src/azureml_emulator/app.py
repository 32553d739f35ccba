"""One request from wire to wire: settle what is due, fault, authenticate, handle, log."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from . import services
from .emulator import Emulator
from .errors import NotEmulated, NotFound, ServiceUnavailable, WireError
from .routing import Call, Reply, Route, Router
from .settings import (
    REGISTRY_NAME,
    REGISTRY_RESOURCE_GROUP,
    REGISTRY_SUBSCRIPTION_ID,
    RESOURCE_GROUP,
    SUBSCRIPTION_ID,
    WORKSPACE_NAME,
)
from .tokens import ML_AUDIENCE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logger = logging.getLogger("azureml_emulator")

_SECRET_QUERY = ("sig", "token")
_HELD = (("workspace", "workspaces", WORKSPACE_NAME), ("registry", "registries", REGISTRY_NAME))


class App:
    """The ASGI application over one emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self._router = Router(services.routes())
        emulator.appliers.update(services.events())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        response = await run_in_threadpool(self._answer, request, body)
        await response(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        began = time.perf_counter()
        effects: dict[str, Any] = {}
        try:
            reply = self._reply(request, body, effects)
        except WireError as error:
            reply = Reply(error.body(), error.status, error.headers)
        except Exception as error:
            logger.error("%s %s\n%s", request.method, _path(request), traceback.format_exc())
            failure = WireError(f"The emulator has a bug: {type(error).__name__}: {error}")
            reply = Reply(failure.body(), failure.status)
        self._log(request, reply.status, time.perf_counter() - began, effects)
        return _render(reply)

    def _reply(self, request: Request, body: bytes, effects: dict[str, Any]) -> Reply:
        emulator, path = self.emulator, _path(request)
        control = path.startswith("/_emulator/")
        emulator.settle()
        if not control:
            with emulator.store.transaction():
                effects |= emulator.faults.effects(request.method, path)
        if "delay" in effects and emulator.closing.wait(effects["delay"]):
            raise ServiceUnavailable("The emulator is stopping.")
        if "status" in effects and not effects.get("after"):
            return _fault(effects)
        found = self._router.find(request.method, path)
        if found is None:
            raise NotEmulated(f"{request.method} {path} is not emulated.")
        route, params = found
        self._authenticate(route, request)
        _check_scope(params)
        call = Call(
            request.method,
            path,
            params,
            dict(request.query_params),
            dict(request.headers),
            body,
            _base_url(request),
            effects,
        )
        if route.exclusive:
            with emulator.store.transaction():
                reply = route.handler(emulator, call)
        else:
            reply = route.handler(emulator, call)
        return _fault(effects) if "status" in effects else reply

    def _authenticate(self, route: Route, request: Request) -> None:
        if route.auth in ("none", "own"):
            return
        arm = _base_url(request)
        audiences = {arm, f"{arm}/.default"}
        if route.auth == "ml":
            audiences |= {ML_AUDIENCE}
        emulator = self.emulator
        emulator.tokens.check(request.headers, audiences=audiences, now=emulator.clock.now())

    def _log(self, request: Request, status: int, seconds: float, effects: dict[str, Any]) -> None:
        if _path(request).startswith("/_emulator/"):
            return
        query = "&".join(
            f"{name}={'…' if name in _SECRET_QUERY else value}"
            for name, value in request.query_params.multi_items()
        )
        with self.emulator.store.transaction():
            self.emulator.store.insert(
                "INSERT INTO requests (at, method, path, query, status, seconds, fault) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                self.emulator.clock.now(),
                request.method,
                _path(request),
                query,
                status,
                seconds,
                json.dumps(effects) if effects else None,
            )


def _path(request: Request) -> str:
    # Not `request.url.path`, which ends at a decoded `?` or `#` in a blob's name.
    path: str = request.scope["path"]
    return path


def _base_url(request: Request) -> str:
    return f"https://localhost:{request.scope['server'][1]}"


def _check_scope(params: dict[str, str]) -> None:
    """Refuse a subscription, group or workspace that is not the emulator's, as ARM does."""
    scope = {name: value.lower() for name, value in params.items()}
    registry = "registry" in scope
    subscription = REGISTRY_SUBSCRIPTION_ID if registry else SUBSCRIPTION_ID
    group = REGISTRY_RESOURCE_GROUP if registry else RESOURCE_GROUP
    if scope.get("subscription", subscription) != subscription:
        raise NotFound(
            f"The subscription '{params['subscription']}' could not be found.",
            code="SubscriptionNotFound",
        )
    if scope.get("group", group) != group:
        raise NotFound(
            f"Resource group '{params['group']}' could not be found.", code="ResourceGroupNotFound"
        )
    for kind, plural, name in _HELD:
        if "group" in scope and scope.get(kind, name) != name:
            raise NotFound(
                f"The Resource 'Microsoft.MachineLearningServices/{plural}/{params[kind]}' under "
                f"resource group '{params['group']}' was not found."
            )


def _fault(effects: dict[str, Any]) -> Reply:
    headers = effects.get("headers", {})
    if "body" in effects:
        return Reply(str(effects["body"]).encode(), effects["status"], headers)
    error = WireError("A fault rule answered this request.", code="InjectedFault")
    return Reply(error.body(), effects["status"], headers)


def _render(reply: Reply) -> Response:
    headers = dict(reply.headers)
    if reply.body is None:
        return Response(b"", reply.status, headers)
    if isinstance(reply.body, bytes):
        return Response(reply.body, reply.status, headers)
    return Response(json.dumps(reply.body).encode(), reply.status, headers, "application/json")
