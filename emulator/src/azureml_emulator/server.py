"""The server: uvicorn over TLS on 127.0.0.1, on a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from types import TracebackType

import uvicorn

from . import services
from .app import App
from .delivery import FLUSH_SECONDS, Scope
from .emulator import Emulator

# How long a stop waits for requests in progress.
_FINISH_SECONDS = 0.5


class Server:
    """An emulator that listens from ``start`` (or ``with``) until ``stop``.

    Args:
        emulator: What answers; it is closed with the server, also when there is no port to be had.

    Attributes:
        port: The port that it listens on.
        url: ``https://localhost:PORT``.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        try:
            self._socket = _listen(emulator.settings.port)
        except OSError:
            emulator.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self.url = f"https://localhost:{self.port}"
        self._failure: BaseException | None = None
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                App(emulator, self._connection),
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                ssl_certfile=str(emulator.certificates.chain),
                ssl_keyfile=str(emulator.certificates.key),
                timeout_keep_alive=60,
            )
        )
        self._serving = threading.Thread(target=self._serve, name="emulator", daemon=True)
        self._ticking = threading.Thread(target=self._tick, name="emulator-timeline", daemon=True)

    def start(self) -> None:
        """Listen; returns when requests are answered.

        Raises:
            RuntimeError: It could not start; the cause says why.
        """
        services.recover(self.emulator)
        self._serving.start()
        self._ticking.start()
        while not self._uvicorn.started:
            if not self._serving.is_alive():
                self.stop()
                raise RuntimeError(f"the server did not start: {self._failure}") from self._failure
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop listening and close the emulator; requests in progress may finish first."""
        self.emulator.closing.set()
        with self.emulator.woken:
            self.emulator.woken.notify_all()
        self._uvicorn.should_exit = True
        self._serving.join()
        self._ticking.join()
        self._socket.close()
        self.emulator.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _connection(self, scope: Scope) -> asyncio.Transport | None:
        for connection in self._uvicorn.server_state.connections:
            if connection.client == scope["client"]:  # type: ignore[union-attr]
                transport: asyncio.Transport = connection.transport
                return None if transport.is_closing() else transport
        return None

    def _serve(self) -> None:
        try:
            self._uvicorn.run(sockets=[self._socket])
        except BaseException as failure:  # uvicorn gives up with SystemExit
            self._failure = failure

    def _tick(self) -> None:
        emulator = self.emulator
        while not emulator.closing.is_set():
            emulator.settle()
            event = emulator.timeline.next()
            wait = 1.0 if event is None else max(event.due - emulator.clock.now(), 0.0)
            with emulator.woken:
                if not emulator.closing.is_set():
                    emulator.woken.wait(min(wait, 1.0))


class _Uvicorn(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Not uvicorn's own, which waits for clients to end TLS: one with an idle keep-alive
        # connection never does, and asyncio gives it 30 seconds to.
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FINISH_SECONDS
        while self.server_state.tasks and loop.time() < deadline:
            await asyncio.sleep(0.01)
        await asyncio.sleep(FLUSH_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _listen(port: int) -> socket.socket:
    # The protocol is named because asyncio sets TCP_NODELAY only where it is: without, each answer
    # waits 40 ms for the client's delayed acknowledgement.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise OSError(f"port {port} is taken: {error}; choose another with --port") from error
    return listening
