"""The SDK's exceptions, as they come off a real socket, become errors that say what to do."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from azure.core import PipelineClient
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.core.rest import HttpRequest

from lifecycle.azure import PERMANENT, find, scrubbed, translated
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
    ("status", "code"),
    [
        (401, "ExpiredAuthenticationToken"),
        (403, "AuthorizationFailed"),
        (403, "AuthorizationPermissionMismatch"),
        (409, "BlobAlreadyExists"),
    ],
)
def test_a_refusal_that_the_next_try_may_not_meet_is_transient(
    answer: Get, status: int, code: str
) -> None:
    """A token that expired on the way, a role that has not arrived, an upload answered twice."""
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


@pytest.mark.parametrize("passing", [ModelNotFound("gone"), KeyboardInterrupt()])
def test_errors_of_ours_and_interrupts_pass_unchanged(passing: BaseException) -> None:
    """What says already what to do is not said again, and a person who interrupts is heard."""
    with pytest.raises(type(passing)) as raised, translated("testing"):
        raise passing

    assert passing is raised.value


@pytest.mark.parametrize(
    ("raised", "transient"),
    [
        (json.JSONDecodeError("Expecting value", "", 0), True),
        (AttributeError("'NoneType' object has no attribute 'properties'"), True),
        (KeyError("flavors"), True),
        (TypeError("int() argument must be a string"), True),
        (requests.ConnectionError("reset"), True),
        (RuntimeError("no event loop"), False),
        (OSError(28, "No space left on device"), False),
    ],
    ids=str,
)
def test_whatever_the_sdk_lets_out_becomes_an_error_of_ours(
    raised: Exception, transient: bool
) -> None:
    """An answer that cannot be read is asked for again; no bare exception ends a run."""

    def fail() -> None:
        raise raised

    error = caught(fail)

    assert (transient, False, False) == (error.transient, error.permanent, error.gone)
    assert str(raised) in error.message
    assert "while testing" in error.message


@pytest.mark.parametrize("status", [403, 409])
@pytest.mark.parametrize("code", sorted(PERMANENT))
def test_a_refusal_that_stands_is_permanent(answer: Get, status: int, code: str) -> None:
    """What only a person can change says what to change, and is not waited for."""
    error = caught(lambda: answer(status, wire_error(code)))

    assert (True, False) == (error.permanent, error.transient)
    assert (code, PERMANENT[code]) == (error.service_code, error.remedy)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "ScopeLocked",
            "Call to Microsoft.Storage failed. The scope '/x' cannot perform delete operation "
            "because following scope(s) are locked: '/subscriptions/s/resourceGroups/ml'.",
        ),
        ("RequestDisallowedByPolicy", "Resource 'x' was disallowed by policy."),
        (
            "KeyBasedAuthenticationNotPermitted",
            "Key based authentication is not permitted on this storage account.",
        ),
        ("PublicNetworkAccessDisabled", "Public network access is disabled for this workspace."),
    ],
)
def test_a_refusal_that_stands_is_known_within_another(
    answer: Get, code: str, message: str
) -> None:
    """ARM wraps what another service refused into an error with a code of its own."""
    error = caught(lambda: answer(409, wire_error("Conflict", message)))

    assert (True, code, PERMANENT[code]) == (error.permanent, error.service_code, error.remedy)


def test_every_permanent_refusal_is_documented() -> None:
    """docs/internals/azure-errors.md lists each code with its source."""
    page = Path("docs/internals/azure-errors.md").read_text(encoding="utf-8")

    assert [] == [code for code in PERMANENT if f"`{code}`" not in page]


@pytest.mark.parametrize(
    ("body", "gone"),
    [
        ("", True),
        (wire_error("ResourceNotFound", "The Resource '…/onlineEndpoints/e' was not found."), True),
        (wire_error("UserError", "Model not found."), True),
        ("<html><h1>404 Not Found</h1></html>", False),
        ({"detail": "Not Found"}, False),
        (wire_error("ResourceGroupNotFound"), False),
        (wire_error("SubscriptionNotFound"), False),
        (wire_error("ParentResourceNotFound"), False),
        (
            wire_error(
                "ResourceNotFound",
                "The Resource 'Microsoft.MachineLearningServices/workspaces/w' under resource "
                "group 'ml' was not found.",
            ),
            False,
        ),
        ({"error": {"code": "NotFound", "innererror": {"code": "WorkspaceNotFound"}}}, False),
    ],
)
def test_gone_is_what_azure_says_of_the_resource_itself(answer: Get, body: Any, gone: bool) -> None:
    """A proxy's page, or the 404 of a parent, is no word about what was asked for."""
    error = caught(lambda: answer(404, body))

    assert (404, gone) == (error.status, error.gone)
    if not gone:
        with pytest.raises(ServiceError), translated("testing"):
            find("testing", "e", lambda: answer(404, body))


def test_the_pause_that_azure_asks_for_is_known(answer: Get) -> None:
    """Whoever asks again can wait for as long."""
    headers = {"Retry-After": "45"}

    assert 45 == caught(lambda: answer(429, wire_error("Busy"), **headers)).retry_after


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
