"""The SDK's exceptions, as they come off a real socket, become errors that say what to do."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from azure.core import PipelineClient
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.core.rest import HttpRequest

from lifecycle.azure import scrubbed, translated
from lifecycle.clients import DataPlane
from lifecycle.errors import ComputeNotUsable, ModelNotFound, ServiceError

SIGNATURE = "c2VjcmV0LXNpZ25hdHVyZQ%3D%3D"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0aWQiOiJhIn0.c2lnbmF0dXJl"

Get = Callable[..., Any]


@pytest.fixture
def answer() -> Iterator[Get]:
    """Ask a real server through azure-core's pipeline for the answer described."""
    planned: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(planned["status"])
            self.send_header("Content-Length", str(len(planned["body"])))
            for name, value in planned["headers"].items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(planned["body"])

        def log_message(self, *_: Any) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"

    def get(status: int, body: Any = "", **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        planned.update(status=status, body=text.encode(), headers=headers)
        with PipelineClient(url, policies=[]) as client:
            client.send_request(HttpRequest("GET", url)).raise_for_status()

    yield get
    server.shutdown()
    server.server_close()


def caught(raising: Callable[[], Any], **options: Any) -> ServiceError:
    """Return the ServiceError that the block is translated to."""
    with pytest.raises(ServiceError) as raised, translated("testing", **options):
        raising()
    return raised.value


def wire_error(code: str, message: str = "Something is amiss.") -> dict[str, Any]:
    """Azure's error body."""
    return {"error": {"code": code, "message": message}}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_fault_is_transient(answer: Get, status: int) -> None:
    """What may pass by itself is marked so, since the retry policy reads nothing else."""
    error = caught(lambda: answer(status, wire_error("Busy")))

    assert (status, "Busy", True) == (error.status, error.service_code, error.transient)


@pytest.mark.parametrize(
    ("status", "code"), [(401, "ExpiredAuthenticationToken"), (409, "BlobAlreadyExists")]
)
def test_a_refusal_that_the_next_try_does_not_meet_is_transient(
    answer: Get, status: int, code: str
) -> None:
    """A token that expired on the way, and an upload whose first answer was lost."""
    error = caught(lambda: answer(status, wire_error(code)))

    assert (code, True) == (error.service_code, error.transient)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412, 422])
def test_a_refusal_is_not_transient(answer: Get, status: int) -> None:
    """Asking again for what Azure refuses only delays the message."""
    error = caught(lambda: answer(status, wire_error("Refused")))

    assert (status, False) == (error.status, error.transient)


@pytest.mark.parametrize(
    ("code", "message", "transient"),
    [
        ("Conflict", "There is already an operation in progress.", True),
        ("ResourceNotReady", "Endpoint is being updated.", True),
        ("OperationCanceled", "The operation was canceled by a lock.", True),
        ("Conflict", "A model with this name and version already exists.", False),
        ("ResourceExists", "The name is taken.", False),
    ],
)
def test_a_conflict_is_transient_only_while_an_operation_runs(
    answer: Get, code: str, message: str, transient: bool
) -> None:
    """A running operation ends; a name that is taken stays taken."""
    error = caught(lambda: answer(409, wire_error(code, message)))

    assert transient == error.transient


def test_a_gateways_page_keeps_its_status(answer: Get) -> None:
    """A 504 whose body is HTML is a 504, not an unknown failure of the SDK."""
    error = caught(lambda: answer(504, "<html>Gateway Time-out</html>"))

    assert (504, True) == (error.status, error.transient)


def test_the_storage_services_code_is_read_from_its_header(answer: Get) -> None:
    """Blob storage says its code in a header, with no JSON body."""
    error = caught(lambda: answer(409, "", **{"x-ms-error-code": "BlobAlreadyExists"}))

    assert "BlobAlreadyExists" == error.service_code


def test_what_is_not_there_becomes_the_steps_own_error(answer: Get) -> None:
    """A 404 says which parameter to check, and keeps Azure's exception as its cause."""
    with (
        pytest.raises(ModelNotFound) as raised,
        translated("reading the model Phi", where="model.name", not_found=ModelNotFound),
    ):
        answer(404, wire_error("NotFound", "No such model."))

    assert "model.name" == raised.value.where
    assert "Not found while reading the model Phi: NotFound: No such model." == raised.value.message
    assert raised.value.__cause__ is not None


def test_the_sdks_own_word_for_a_missing_asset_is_a_404() -> None:
    """The SDK raises a ValidationException, with no status, for an asset that is not there."""
    from azure.ai.ml.exceptions import ErrorTarget, ValidationErrorType, ValidationException

    missing = ValidationException(
        "Asset Phi does not exist in registry azureml.",
        "Asset does not exist.",
        target=ErrorTarget.ASSET,
        error_type=ValidationErrorType.RESOURCE_NOT_FOUND,
    )

    with pytest.raises(ModelNotFound), translated("testing", not_found=ModelNotFound):
        raise missing


def test_an_earlier_404_that_is_being_handled_is_not_mistaken_for_the_cause(answer: Get) -> None:
    """A failure to create, raised while the 404 of the look-up is handled, is no 404."""
    from azure.ai.ml.exceptions import MlException

    def create() -> None:
        try:
            answer(404, wire_error("NotFound"))
        except Exception:
            raise MlException("Unknown.", "Unknown.")  # noqa: B904

    error = caught(create, not_found=ComputeNotUsable)

    assert error.status is None


def test_no_answer_is_transient_and_says_what_to_check() -> None:
    """A connection refused is no fault of the request."""

    def ask() -> None:
        with PipelineClient("http://127.0.0.1:9", policies=[]) as client:
            client.send_request(HttpRequest("GET", "http://127.0.0.1:9"))

    error = caught(ask)

    assert (None, True) == (error.status, error.transient)
    assert "proxy" in error.remedy


def test_a_lost_token_is_transient_and_no_refusal() -> None:
    """Hours into a job, a token that cannot be had must not read as "nothing was created"."""

    def fail() -> None:
        raise ClientAuthenticationError(message="IMDS did not answer")

    error = caught(fail)

    assert (True, "CredentialUnavailable") == (error.transient, error.service_code)


def test_a_gateways_page_that_the_sdk_could_not_parse_is_transient() -> None:
    """The SDK turns a non-JSON error page into an MlException that has no status at all."""
    from azure.ai.ml.exceptions import MlException

    def fail() -> None:
        try:
            json.loads("<html>")
        except ValueError as error:
            raise MlException("<html>", "page") from error

    assert caught(fail).transient


def test_an_answer_that_is_not_json_is_transient() -> None:
    """A proxy's page with status 200 is not the workspace's answer, and may be gone next time."""
    from azure.core.exceptions import DecodeError

    def fail() -> None:
        raise DecodeError(message="The answer is not JSON.")

    assert caught(fail).transient


def test_errors_of_ours_and_programming_errors_pass_unchanged() -> None:
    """Only the SDK's exceptions are translated: nothing else is swallowed or renamed."""
    ours = ModelNotFound("gone")
    for passing in (ours, KeyError("flavors")):
        with pytest.raises(type(passing)) as raised, translated("testing"):
            raise passing

        assert passing is raised.value


@pytest.mark.parametrize(
    "text",
    [
        f"Max retries exceeded with url: /logs/std.txt?sv=2023&sig={SIGNATURE}&se=2026",
        f"Authorization: Bearer {JWT}",
        f"token {JWT} refused",
        f'{{"primaryKey": "{SIGNATURE}", "secondaryKey": "{SIGNATURE}"}}',
        f"AccountKey={SIGNATURE};EndpointSuffix=core.windows.net",
        f"client_secret={SIGNATURE}",
    ],
)
def test_secrets_are_scrubbed(text: str) -> None:
    """No token, key or signature that Azure may echo reaches a message."""
    clean = scrubbed(text)

    assert SIGNATURE not in clean
    assert JWT not in clean
    assert "***" in clean


def test_plain_words_are_left_alone() -> None:
    """Scrubbing takes no more than secrets: the message must stay of use."""
    text = "QuotaExceeded: 0 of 24 cores left for the key family standardNCADSA100v4Family?"

    assert text == scrubbed(text)


def test_a_cause_that_shows_a_secret_is_not_chained() -> None:
    """The traceback is logged with its causes, so a cause with a signature is cut off."""

    def fail() -> None:
        raise ServiceRequestError(f"HTTPSConnectionPool: /logs?sig={SIGNATURE}")

    with pytest.raises(ServiceError) as raised, translated("testing"):
        fail()

    shown = "".join(traceback.format_exception(raised.value))
    assert SIGNATURE not in shown
    assert "HTTPSConnectionPool: /logs?sig=***" in str(raised.value)


def test_a_long_answer_is_cut(answer: Get) -> None:
    """A page of HTML does not fill the log."""
    error = caught(lambda: answer(500, "x" * 50_000))

    assert len(str(error)) < 1000


def test_a_data_plane_is_closed() -> None:
    """A data plane gives back its connections."""

    class Nobody:
        def get_token(self, *scopes: str, **_: Any) -> Any:
            raise ClientAuthenticationError(message="nobody")

    DataPlane("https://localhost:9", Nobody(), "https://localhost/.default").close()
