"""No pause that a service asks for holds anybody longer than they have time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from azure.core import PipelineClient
from azure.core.pipeline import policies
from azure.core.rest import HttpRequest

from lifecycle.azure import translated
from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.endpoint import EndpointRef, EndpointSpec, create_endpoint
from lifecycle.errors import ServiceError
from lifecycle.patience import within
from lifecycle.transport import PatientTransport


class Service(ThreadingHTTPServer):
    """A service that is busy for the first requests, and says how long."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.retry_after = ["45"]
        self.asked = 0


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        service: Any = self.server
        service.asked += 1
        self.send_response(429 if service.retry_after else 200)
        if service.retry_after:
            self.send_header("Retry-After", service.retry_after.pop(0))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def service() -> Iterator[Service]:
    """The service, on a socket."""
    server = Service()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(service: Service) -> int:
    """Ask it once, through azure-core's own retries."""
    url = f"http://127.0.0.1:{service.server_port}"
    used = [policies.RetryPolicy()]
    with PipelineClient(url, policies=used, transport=PatientTransport()) as client:
        response = client.send_request(HttpRequest("GET", url))
        response.raise_for_status()
        return int(response.status_code)


def test_a_pause_for_which_there_is_time_is_kept_and_told(
    service: Service, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """By the clock of whoever waits, with a line that says what is waited for."""
    with (
        caplog.at_level(logging.WARNING),
        within(60, clock),
        translated("creating the endpoint e"),
    ):
        assert 200 == ask(service)

    assert [45.0] == clock.slept
    assert ["Azure answered 429; waiting 45 s while creating the endpoint e"] == caplog.messages


@pytest.mark.parametrize("asked", ["45", "86400", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_pause_beyond_the_deadline_is_an_error_at_once(
    service: Service, clock: Any, asked: str
) -> None:
    """A deadline of six seconds is one, whatever the service asks for."""
    service.retry_after = [asked]

    with (
        pytest.raises(ServiceError, match="A pause of") as raised,
        within(6, clock),
        translated("creating the endpoint e"),
    ):
        ask(service)

    assert (429, True) == (raised.value.status, raised.value.transient)
    assert 45 <= (raised.value.retry_after or 0)
    assert ([], 1) == (clock.slept, service.asked)


def test_without_a_deadline_no_pause_is_longer_than_a_minute(service: Service) -> None:
    """A step that names no deadline does not hang for an hour either."""
    service.retry_after = ["3600"]

    with pytest.raises(ServiceError, match="A pause of 3600 s is asked for"), translated("reading"):
        ask(service)


def test_a_pause_that_cannot_be_read_is_an_error_of_ours(service: Service) -> None:
    """azure-core lets out whatever its parser of dates raises."""
    service.retry_after = ["soon"]

    with pytest.raises(ServiceError), translated("reading"):
        ask(service)


def test_pollers_end_with_whoever_began_them(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    clock: Any,
) -> None:
    """After Ctrl-C, or when the deletion was asked for, nobody goes on polling the operation."""
    create_endpoint(slow_workspace, endpoint_spec, endpoint, clock=clock)
    before = {thread.name for thread in threading.enumerate()}

    with within(60, clock):
        poller = ml_client(slow_workspace).online_endpoints.begin_delete(endpoint.name)

    assert not poller.done() or poller.status() != "Succeeded"
    new = [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("LROPoller") and thread.name not in before
    ]
    for thread in new:
        thread.join(10)
    assert [] == [thread.name for thread in new if thread.is_alive()]
