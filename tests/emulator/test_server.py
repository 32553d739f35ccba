"""The server: up at once, quick on an open connection, gone at once, and no ghosts after it."""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from azureml_emulator.emulator import Emulator
from azureml_emulator.server import Server
from azureml_emulator.settings import Settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(Emulator(Settings(tmp_path / "state", jobs="scripted"))) as server:
        yield server


def _connection(server: Server) -> http.client.HTTPSConnection:
    bundle = str(server.emulator.certificates.bundle)
    trust = ssl.create_default_context(cafile=bundle)
    return http.client.HTTPSConnection("localhost", server.port, context=trust, timeout=10)


def _get(connection: http.client.HTTPSConnection, path: str = "/_emulator/ledger") -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _is_cut(connection: http.client.HTTPSConnection) -> bool:
    connection.sock.settimeout(1)
    try:
        return connection.sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_one_connection_serves_many_requests_quickly(server: Server) -> None:
    """Kept alive, and without the 40 ms that Nagle's algorithm and a delayed ACK cost together."""
    connection = _connection(server)
    _get(connection)
    first, times = connection.sock, []
    for _ in range(20):
        began = time.perf_counter()
        assert 200 == _get(connection)
        times.append(time.perf_counter() - began)

    assert first is connection.sock
    assert min(times) < 0.03


def test_stop_is_quick_while_clients_keep_connections_open(tmp_path: Path) -> None:
    """An idle client that never ends TLS does not hold the server up."""
    server = Server(Emulator(Settings(tmp_path / "state", jobs="scripted")))
    server.start()
    connections = [_connection(server) for _ in range(5)]
    for connection in connections:
        _get(connection)
    began = time.perf_counter()
    server.stop()

    assert time.perf_counter() - began < 1
    assert [True] * 5 == [_is_cut(connection) for connection in connections]
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_stop_ends_a_request_that_is_being_delayed(tmp_path: Path) -> None:
    """A fault's delay of ten minutes ends with the server."""
    server = Server(Emulator(Settings(tmp_path / "state", jobs="scripted")))
    server.start()
    server.emulator.faults.replace([{"match": {"path": "^/slow"}, "effect": {"delay": 600}}])
    seen: list[int] = []
    asking = threading.Thread(target=lambda: seen.append(_get(_connection(server), "/slow")))
    asking.start()
    while not server.emulator.faults.rules()[0]["matched"]:
        time.sleep(0.001)
    began = time.perf_counter()
    server.stop()
    asking.join()

    assert time.perf_counter() - began < 1
    assert [503] == seen


def test_a_large_body_arrives_whole(server: Server) -> None:
    """An upload of 32 MiB is read to its end and answered."""
    connection = _connection(server)
    connection.request("PUT", "/nowhere", body=bytes(32 * 1024 * 1024))

    assert 501 == connection.getresponse().status


def test_a_client_that_hangs_up_disturbs_nobody(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a request, or no TLS at all, is neither an error nor in anyone's way."""
    half = _connection(server)
    half.putrequest("PUT", "/nowhere")
    half.putheader("Content-Length", "100")
    half.endheaders(b"half")
    half.close()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.recv(100)

    assert 200 == _get(_connection(server))
    assert [] == [one.message for one in caplog.records if one.levelno >= logging.WARNING]


def test_requests_at_once_are_all_answered_and_logged_once(server: Server) -> None:
    """Eight clients, one emulator, no lost update."""

    def ask(_: int) -> list[int]:
        connection = _connection(server)
        return [_get(connection, "/nowhere") for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for many in pool.map(ask, range(8)) for status in many]
    rows = server.emulator.store.execute("SELECT count(*) AS n FROM requests")

    assert [501] * 80 == statuses
    assert 80 == rows[0]["n"]


def test_a_port_that_is_taken_is_refused_and_nothing_is_held(
    server: Server, tmp_path: Path
) -> None:
    """The message names the port and the option; the state folder can be used again at once."""
    settings = Settings(tmp_path / "other", port=server.port, jobs="scripted")
    with pytest.raises(
        OSError, match=f"port {server.port} is taken: .*; choose another with --port"
    ):
        Server(Emulator(settings))

    Emulator(settings).close()


def test_the_same_port_can_be_had_again_at_once(tmp_path: Path) -> None:
    """A restart does not wait for the old connections to time out."""
    with Server(Emulator(Settings(tmp_path / "state", jobs="scripted"))) as first:
        port = first.port
        _get(_connection(first))
    with Server(Emulator(Settings(tmp_path / "state", port=port, jobs="scripted"))) as second:
        assert 200 == _get(_connection(second))


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The cause reaches the caller, and nothing is held after it."""
    emulator = Emulator(Settings(tmp_path, jobs="scripted"))
    emulator.certificates.chain.write_text("no certificate")
    server = Server(emulator)
    with pytest.raises(RuntimeError, match="the server did not start: ") as failed:
        server.start()

    assert isinstance(failed.value.__cause__, ssl.SSLError)
    Emulator(Settings(tmp_path, jobs="scripted")).close()


def test_time_goes_on_without_requests(server: Server) -> None:
    """What is due happens although nobody asks."""
    happened = threading.Event()
    server.emulator.appliers["note"] = lambda within, event: happened.set()
    server.emulator.schedule("note", "x", after=0.01)

    assert happened.wait(10)
