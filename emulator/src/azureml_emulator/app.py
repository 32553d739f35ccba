"""One request from wire to wire: settle what is due, fault, authenticate, handle, log, deliver."""

from __future__ import annotations

import json
import logging
import time
import traceback
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from . import services
from .delivery import Connection, Receive, Scope, Send, deliver
from .emulator import Emulator
from .errors import NotEmulated, NotFound, ServiceUnavailable, WireError
from .routing import Call, Reply, Route, Router
from .services.authorization import refuse_if_locked
from .settings import (
    REGISTRY_NAME,
    REGISTRY_RESOURCE_GROUP,
    REGISTRY_SUBSCRIPTION_ID,
    RESOURCE_GROUP,
    SUBSCRIPTION_ID,
    WORKSPACE_NAME,
)
from .tokens import ML_AUDIENCE

logger = logging.getLogger("azureml_emulator")

NOT_ANSWERED = 0
"""What the request log has for a status where a fault let no answer out."""

_INJECTED = {"code": "InjectedFault", "message": "A fault rule answered this request."}
_SECRET_QUERY = ("sig", "token")
_HELD = (("workspace", "workspaces", WORKSPACE_NAME), ("registry", "registries", REGISTRY_NAME))


class App:
    """The ASGI application over one emulator.

    Args:
        emulator: What answers.
        connection: Finds the connection of a request, for faults that cut it.
    """

    def __init__(self, emulator: Emulator, connection: Connection) -> None:
        self.emulator = emulator
        self._connection = connection
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
        effects: dict[str, Any] = {}
        response = await run_in_threadpool(self._answer, request, body, effects)
        await deliver(response, effects, self._connection, scope, receive, send)

    def _answer(self, request: Request, body: bytes, effects: dict[str, Any]) -> Response:
        began = time.perf_counter()
        try:
            reply = self._reply(request, body, effects)
        except WireError as error:
            reply = Reply(error.body(), error.status, error.headers)
        except Exception as error:
            logger.error("%s %s\n%s", request.method, _path(request), traceback.format_exc())
            failure = WireError(f"The emulator has a bug: {type(error).__name__}: {error}")
            reply = Reply(failure.body(), failure.status)
        if "status" in effects:
            reply = _fault(effects)
        status = NOT_ANSWERED if effects.keys() & {"hang", "reset"} else reply.status
        self._log(request, status, time.perf_counter() - began, effects)
        return _render(reply)

    def _reply(self, request: Request, body: bytes, effects: dict[str, Any]) -> Reply:
        emulator, path = self.emulator, _path(request)
        control = path.startswith("/_emulator/")
        emulator.settle()
        if not control:
            with emulator.store.transaction():
                now = emulator.now()
                effects |= emulator.faults.effects(request.method, path, now=now)
        if "delay" in effects and emulator.closing.wait(effects["delay"]):
            raise ServiceUnavailable("The emulator is stopping.")
        if effects.keys() & {"status", "hang", "reset"} and "after" not in effects:
            return Reply()
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
        if not route.exclusive:
            return route.handler(emulator, call)
        with emulator.store.transaction():
            return self._handle(route, call)

    def _handle(self, route: Route, call: Call) -> Reply:
        if route.auth == "arm":
            refuse_if_locked(self.emulator, call)
        aftermath, now = self.emulator.aftermath, self.emulator.now()
        reply = aftermath.answer(call.method, call.path, now=now)
        if reply is None:
            reply = route.handler(self.emulator, call)
        if "hidden" in call.effects and reply.status == 201:
            aftermath.hide(call.path, call.effects["hidden"], now=now)
        return aftermath.shown(reply, now=now) if call.method == "GET" else reply

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
    status, headers = effects["status"], effects.get("headers", {})
    if status in (204, 304):
        return Reply(None, status, headers)
    if "body" in effects:
        return Reply(effects["body"].encode(), status, headers)
    told = effects.get("error", _INJECTED)
    return Reply(WireError(told["message"], code=told["code"]).body(), status, headers)


def _render(reply: Reply) -> Response:
    headers = dict(reply.headers)
    if reply.body is None:
        return Response(b"", reply.status, headers)
    if isinstance(reply.body, bytes):
        return Response(reply.body, reply.status, headers)
    return Response(json.dumps(reply.body).encode(), reply.status, headers, "application/json")
