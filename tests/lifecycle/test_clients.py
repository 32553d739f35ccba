"""One client per process and workspace, and GETs that hand the token to nobody else."""

from __future__ import annotations

import multiprocessing
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ServiceResponseError
from azure.core.rest import HttpRequest

from lifecycle import clients
from lifecycle.clients import DataPlane, WorkspaceRef
from lifecycle.errors import ConfigurationError

LOG = b"first line\nsecond line\nthird line\n"


class LogServer:
    """A server of one log file, with or without support for ranges, that notes what it was sent."""

    def __init__(self, *, ranges: bool) -> None:
        self.headers: list[dict[str, str]] = []
        seen = self.headers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(dict(self.headers))
                asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(asked[1]) if asked and ranges else 0
                if start >= len(LOG):
                    self._answer(416, b"")
                else:
                    self._answer(206 if start else 200, LOG[start:])

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Keep the test's output quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/std_log.txt"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Close the server."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(params=[True, False], ids=["ranges", "no-ranges"])
def log_server(request: pytest.FixtureRequest) -> Iterator[LogServer]:
    """Storage that honours ranges, and storage that sends the whole log each time."""
    server = LogServer(ranges=request.param)
    yield server
    server.stop()


class Secretive:
    """A credential whose token must not be seen by other hosts."""

    def get_token(self, *scopes: str, **_: Any) -> Any:
        """Fail the test: no token is needed where this is used."""
        raise AssertionError(f"a token was asked for {scopes}")


@pytest.fixture
def plane() -> Iterator[DataPlane]:
    """A data plane that may be asked for logs only."""
    built = DataPlane("https://localhost:9/api/", Secretive(), "https://localhost/.default")
    yield built
    built.close()


@pytest.mark.parametrize("offset", [0, 11, len(LOG)])
def test_a_log_is_read_from_the_byte_asked_for(
    plane: DataPlane, log_server: LogServer, offset: int
) -> None:
    """Each byte of a log is seen once, whether or not its server honours ranges."""
    assert LOG[offset:] == plane.get_text(log_server.url, offset)


def test_a_log_is_asked_for_without_a_token(plane: DataPlane, log_server: LogServer) -> None:
    """A log's address is signed; our token is nothing that its host should see."""
    plane.get_text(log_server.url)

    assert "Authorization" not in log_server.headers[0]


def test_the_token_goes_to_no_other_host(plane: DataPlane) -> None:
    """An address that Azure hands out, and that leads elsewhere, is not sent our token."""
    with pytest.raises(ValueError, match="not the workspace's data plane"):
        plane.get_json("https://elsewhere.example/history/v1.0")


def test_building_a_client_twice_gives_the_same_one(workspace: WorkspaceRef) -> None:
    """All threads of a process share one client, one credential and one data plane."""
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: clients.ml_client(workspace), range(8)))

    assert 1 == len({id(client) for client in built})
    assert clients.credential(workspace) is clients.credential(workspace)
    assert clients.registry_client(workspace) is clients.registry_client(workspace)


def test_forget_makes_the_next_call_build_anew(workspace: WorkspaceRef) -> None:
    """A test, or a new sign-in, is not served by a client of the time before."""
    before = clients.ml_client(workspace)
    clients.forget()

    assert before is not clients.ml_client(workspace)


def test_a_forked_child_builds_its_own_clients(workspace: WorkspaceRef) -> None:
    """Connections and locks of the parent are not shared with a child that was forked off."""
    parents = id(clients.credential(workspace))
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def look() -> None:
        sending.send((os.getpid(), clients._cache._built == {}))

    child = context.Process(target=look)
    child.start()
    pid, is_empty = receiving.recv()
    child.join()

    assert (child.pid, True) == (pid, is_empty)
    assert parents == id(clients.credential(workspace))


def test_a_chosen_credential_takes_the_place_of_the_default(workspace: WorkspaceRef) -> None:
    """After an interactive login every client of the process signs with it."""
    clients.ml_client(workspace)
    chosen: Any = Secretive()
    clients.use_credential(workspace, chosen)

    assert chosen is clients.credential(workspace)
    assert chosen is clients.ml_client(workspace)._credential


def test_the_cloud_is_the_sdks(emulator: Any) -> None:
    """A sovereign or private cloud needs no setting of ours beside the SDK's own variables."""
    found = clients.cloud()

    assert os.environ["AZUREML_CURRENT_CLOUD"] == found.name
    assert found.arm_scope.endswith("/.default")
    assert not found.arm_scope.endswith("//.default")
    assert found.studio.startswith("https://")


def test_an_unknown_cloud_does_not_become_public_azure(
    emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metadata address that does not answer must not send a test run to real Azure."""
    monkeypatch.delenv("AZUREML_CURRENT_CLOUD")
    monkeypatch.setenv("ARM_CLOUD_METADATA_URL", "https://localhost:9/metadata/endpoints")
    clients.forget()

    with pytest.raises(ConfigurationError, match="No Azure cloud is described"):
        clients.cloud()


def test_the_data_plane_is_found_through_the_workspace(workspace: WorkspaceRef) -> None:
    """The base address comes from the workspace's discovery service, and takes our token."""
    plane = clients.data_plane(workspace)

    with pytest.raises(HttpResponseError) as raised:
        plane.get_json(f"history/v1.0{workspace.arm_id}/runs/no-such-run/details")

    assert 404 == raised.value.status_code


def test_the_registry_is_read_as_plain_json(workspace: WorkspaceRef) -> None:
    """Fields that the SDK's models drop are there for the step that needs them."""
    listed = clients.registry_get(
        workspace, "components/chat_completion_pipeline/versions", {"$top": "1"}
    )

    assert "componentSpec" in listed["value"][0]["properties"]


def test_an_answer_is_waited_for_as_long_as_it_is_said(
    workspace: WorkspaceRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that hangs, the one that gives tokens too, does not hold a run for minutes."""
    monkeypatch.setenv(clients.READ_SECONDS_VARIABLE, "0.5")
    clients.forget()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with (
            clients._pipeline(address) as pipeline,
            pytest.raises(ServiceResponseError),
        ):
            pipeline.send_request(HttpRequest("POST", address))

    assert 0.5 <= time.monotonic() - began < 5


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf", "nan"])
def test_a_senseless_number_of_seconds_is_refused(
    workspace: WorkspaceRef, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Named, rather than an error deep in a client."""
    monkeypatch.setenv(clients.READ_SECONDS_VARIABLE, given)
    clients.forget()

    with pytest.raises(ConfigurationError, match="FINETUNE_READ_SECONDS"):
        clients.ml_client(workspace)
