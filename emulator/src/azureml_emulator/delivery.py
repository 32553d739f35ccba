"""How an answer leaves, or does not: whole, cut off, never, or with the connection reset.

uvicorn gives an application no hold of the connection, so the server looks it up: a
:class:`Connection` for the client's address and port.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.responses import Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Connection = Callable[[Scope], asyncio.Transport | None]
"""Finds the connection that a request came by; None if the client has gone."""

# How long bytes that were handed to the kernel may take to be on the wire.
FLUSH_SECONDS = 0.02
# close() then sends RST at once: on, for 0 seconds.
_LINGER_NOT = struct.pack("ii", 1, 0)


async def deliver(
    response: Response,
    effects: Mapping[str, Any],
    connection: Connection,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Send *response* as far as *effects* of fault rules let it.

    ``reset``: the client's next read or write fails with ECONNRESET. ``hang``: nothing comes until
    the client gives up or the server stops. ``truncate``: the headers promise the whole body, and
    after so many bytes of it the connection ends.
    """
    if not effects.keys() & {"reset", "hang", "truncate"}:
        await response(scope, receive, send)
        return
    transport = connection(scope)
    if transport is None:
        return
    if "reset" in effects:
        held = transport.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    elif "hang" not in effects:
        begin = {"status": response.status_code, "headers": response.raw_headers}
        await send({"type": "http.response.start", **begin})
        part = bytes(response.body)[: effects["truncate"]]
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(FLUSH_SECONDS)
        transport.abort()
    # uvicorn complains of an application that returns while a client still waits for the rest.
    while (await receive())["type"] != "http.disconnect":
        pass
