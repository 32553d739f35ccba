"""A front before an emulator: it passes everything on, and changes what it is told to.

The emulator does not know of it. Its own addresses in answers are made the front's, and the front's
in requests the emulator's, so that clients never learn of another address than the front's.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

_NOT_PASSED_ON = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


class Answer(NamedTuple):
    """What a service answered.

    Args:
        status: The HTTP status.
        headers: By name, in lower case; with ``x-skew-host``, by which the client knows the front.
        body: As it came.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def document(self) -> Any:
        """Return the body as JSON, or None where it is none."""
        if "json" not in self.headers.get("content-type", ""):
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def saying(self, document: Any, status: int | None = None) -> Answer:
        """Return this answer with another body, as JSON."""
        return Answer(status or self.status, self.headers, json.dumps(document).encode())


class Asked(NamedTuple):
    """A request.

    Args:
        method: Upper case.
        path: Without the query.
        query: What follows the question mark.
    """

    method: str
    path: str
    query: str


Change = Callable[[Asked, Answer], Answer]
"""Returns what the client is given in place of an answer."""


class Front:
    """Listens on a port with the emulator's certificate, and passes on to the emulator.

    Args:
        port: On 127.0.0.1.
        emulator_port: Where the emulator listens.
        chain: The emulator's certificate chain.
        key: Its key.
        bundle: Its certificate authority.
        change: What is done to each answer.
    """

    def __init__(
        self,
        port: int,
        emulator_port: int,
        *,
        chain: Path,
        key: Path,
        bundle: Path,
        change: Change = lambda asked, answer: answer,
    ) -> None:
        self.change = change
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.front = self
        trust = ssl.create_default_context(cafile=str(bundle))
        self._server.ports = (str(port), str(emulator_port))
        self._server.connect = lambda: http.client.HTTPSConnection(
            "localhost", emulator_port, context=trust, timeout=60
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        self._server.context = context
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> Front:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Nobody waits for idle keep-alive connections of clients.
    block_on_close = False
    front: Front
    connect: Callable[[], http.client.HTTPSConnection]
    ports: tuple[str, str]
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Speak TLS in the connection's own thread, so that none waits for another's handshake."""
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)
        except OSError:
            return  # A client that went away.
        super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        server: Any = self.server
        self._emulator: http.client.HTTPSConnection = server.connect()

    def finish(self) -> None:
        self._emulator.close()
        super().finish()

    def _pass_on(self) -> None:
        server: Any = self.server
        path, _, query = self.path.partition("?")
        asked = Asked(self.command, path, query)
        answer = self._answer(self.rfile.read(self._length()))
        if not path.startswith("/_emulator/"):
            answer = server.front.change(asked, answer)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        length = answer.headers.get("x-skipped-length") or str(len(answer.body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _answer(self, body: bytes) -> Answer:
        server: Any = self.server
        mine, its = server.ports
        headers = {
            name: _moved(value, mine, its)
            for name, value in self.headers.items()
            if name.lower() not in _NOT_PASSED_ON
        }
        path = _moved(self.path, mine, its)
        inner = _moved(body.decode("latin-1"), mine, its).encode("latin-1")
        self._emulator.request(self.command, path, body=inner or None, headers=headers)
        response = self._emulator.getresponse()
        said = {
            name.lower(): _moved(value, its, mine)
            for name, value in response.getheaders()
            if name.lower() not in _NOT_PASSED_ON
        }
        if self.command == "HEAD" and (length := response.getheader("Content-Length")):
            said["x-skipped-length"] = length
        said["x-skew-host"] = self.headers.get("Host") or ""
        outer = _moved(response.read().decode("latin-1"), its, mine).encode("latin-1")
        return Answer(response.status, said, outer)

    def log_message(self, *_: Any) -> None:
        """Keep the campaign's output quiet."""


def _moved(text: str, old: str, new: str) -> str:
    """Return the text with the addresses at one port made those at another."""
    for colon in (":", "%3A", "%3a"):
        text = text.replace(f"localhost{colon}{old}", f"localhost{colon}{new}")
    return text


for _method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler._pass_on)
