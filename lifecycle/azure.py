"""Where the Azure SDK's exceptions become ours: by HTTP status and error code, not by type.

The SDK raises one type for many things and many types for one thing: a failed long-running
operation is an ``HttpResponseError`` with status 200, a gateway's 504 page an ``MlException``
with no status, a model that is not there a ``ValidationException``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lifecycle.errors import CredentialError, FinetuneError, ServiceError

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError

UNSEEN_SECONDS = 60.0
"""For so long what Azure has agreed to make, or has taken, may not be found yet."""


@contextmanager
def translated(
    doing: str, *, where: str | None = None, not_found: type[FinetuneError] | None = None
) -> Iterator[None]:
    """Turn what the Azure SDK raises inside the block into a :class:`FinetuneError`.

    Args:
        doing: What was being done, to follow "while": ``reading the compute gpu-cluster-big``.
        where: The parameter path or resource at fault, if there is one.
        not_found: The error for a 404; :class:`ServiceError` with status 404 where not given.

    Raises:
        FinetuneError: ``not_found`` for a resource that is not there.
        ServiceError: Anything else that Azure answered, or no answer. ``status`` is the HTTP
            status (None where there was no answer, or a long-running operation failed) and
            ``service_code`` Azure's own code. ``transient`` for 408, 429, 5xx, a 409 because
            of a running operation, a lost connection, a token that could not be had, and one
            that has expired on the way.

    The message and the chained cause carry no token, key or signature: a cause that does is left
    out of the chain.
    """
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        translation = _translate(error, doing, where, not_found)
        raise translation from (None if _shows_a_secret(error) else error)


def scrubbed(text: str) -> str:
    """Return ``text`` with tokens, keys and signatures replaced by ``***``."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text


_SECRETS = (
    re.compile(r"()\beyJ[\w-]+\.[\w-]+\.[\w-]*"),
    re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{8,}"),
    re.compile(r"(?i)([?&](?:sig|code|key)=)[^&\s\"')]+"),
    re.compile(
        r"(?i)((?:access_?token|refresh_?token|client_?secret|client_?assertion|account_?key"
        r"|primary_?key|secondary_?key|sas_?token|shared_?access_?signature|password)"
        r"[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;})]+"
    ),
)

_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})

_PASSING = {
    # It expired on the way: the credential has another by then. Any other 401 stays one.
    (401, "ExpiredAuthenticationToken"),
    # The answer to an upload was lost, and storage refused its repetition. The SDK's next upload
    # of the same file finds it there, not confirmed, and writes over it.
    (409, "BlobAlreadyExists"),
}

_TRANSIENT_CODES = frozenset(
    {
        "gatewaytimeout",
        "internalerror",
        "internalservererror",
        "operationcanceled",
        "requesttimeout",
        "serverbusy",
        "serverunavailable",
        "servicebusy",
        "serviceunavailable",
        "timeout",
        "toomanyrequests",
    }
)

_OPERATION_RUNNING = re.compile(
    r"(?i)in ?progress|another operation|ongoing|concurren|not ?ready|operation ?cancell?ed"
    r"|(?:is|are|currently) (?:being )?(?:creat|updat|delet|modif|provision|scal)"
)


def _translate(
    error: AzureError, doing: str, where: str | None, not_found: type[FinetuneError] | None
) -> FinetuneError:
    from azure.core.exceptions import DecodeError, HttpResponseError

    error = _unformatted(error)
    answer = next((link for link in _chain(error) if isinstance(link, HttpResponseError)), None)
    status = answer.status_code if answer is not None else None
    code = _service_code(answer) if answer is not None else None
    said = _said(error)

    if _is_missing(error, status) and not_found is not None:
        return not_found(f"Not found while {doing}: {said}", where=where)
    if _is_missing(error, status):
        return ServiceError(
            f"Azure has no such resource, while {doing}: {said}",
            status=404,
            service_code=code,
            where=where,
            remedy="Check the name.",
            gone=True,
        )
    if isinstance(error, DecodeError):
        return ServiceError(
            f"Azure's answer could not be read while {doing}: {said}",
            status=status,
            where=where,
            transient=True,
        )
    if status is None:
        return _unanswered(error, doing, where, said)
    failed_operation = status < 400
    return ServiceError(
        f"An operation of Azure failed while {doing}: {said}"
        if failed_operation
        else f"Azure answered {status} while {doing}: {said}",
        status=None if failed_operation else status,
        service_code=code,
        where=where,
        remedy=_remedy(status, code, said),
        transient=_is_transient(status, code, said),
    )


def _unformatted(error: AzureError) -> AzureError:
    """Return what the SDK wanted to say before it made a coloured screenful of it.

    Its ``log_and_raise_error`` turns a ValidationException into an MlException that has only text.
    """
    told = error.__context__
    is_formatted = hasattr(told, "error_type") and not hasattr(error, "error_type")
    return told if is_formatted else error  # type: ignore[return-value]


def _unanswered(error: AzureError, doing: str, where: str | None, said: str) -> ServiceError:
    from azure.core.exceptions import (
        ClientAuthenticationError,
        ServiceRequestError,
        ServiceResponseError,
    )

    chain = list(_chain(error))
    if any(isinstance(link, ClientAuthenticationError) for link in chain):
        return ServiceError(
            f"No token could be had while {doing}: {said}",
            service_code="CredentialUnavailable",
            where=where,
            remedy=CredentialError.default_remedy,
            transient=True,
        )
    if any(isinstance(link, (ServiceRequestError, ServiceResponseError)) for link in chain):
        return ServiceError(
            f"Azure did not answer while {doing}: {said}",
            where=where,
            remedy="Check the network, the proxy and the cloud that is configured.",
            transient=True,
        )
    # The SDK raises a bare MlException over a JSON error where a gateway answers with a page.
    page = isinstance(error.__cause__, ValueError)
    return ServiceError(f"The Azure SDK failed while {doing}: {said}", where=where, transient=page)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, by both links that the SDK uses.

    Not ``__context__``: it may be a 404 that the caller was handling when this error came.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        link = queue.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        queue += [getattr(link, "inner_exception", None), link.__cause__]


def _is_missing(error: AzureError, status: int | None) -> bool:
    """Say whether the SDK means 404; it raises a ValidationException for a missing asset."""
    kind = getattr(error, "error_type", None)
    return status == 404 or getattr(kind, "name", None) == "RESOURCE_NOT_FOUND"


def _service_code(answer: BaseException) -> str | None:
    """Return Azure's ``error.code``, or what the storage service says in a header."""
    code = getattr(getattr(answer, "error", None), "code", None)
    if code:
        return str(code)
    response = getattr(answer, "response", None)
    header = response.headers.get("x-ms-error-code") if response is not None else None
    return str(header) if header else None


def _said(error: AzureError) -> str:
    """Return Azure's own words on one line, without secrets, at most 600 characters."""
    answer = getattr(error, "error", None)
    code, message = getattr(answer, "code", None), getattr(answer, "message", None)
    words = f"{code}: {message}" if code and message else str(error)
    # "The request is invalid" stands alone at the top; what is invalid is in the details.
    details = [getattr(part, "message", None) for part in getattr(answer, "details", None) or []]
    words = " ".join([words, *(str(said) for said in details if said and said not in words)])
    line = " ".join(scrubbed(words).split()).rstrip(".")
    return f"{line}." if len(line) <= 600 else f"{line[:599]}…"


def _is_transient(status: int, code: str | None, said: str) -> bool:
    if status in _TRANSIENT_STATUSES:
        return True
    if (status, code) in _PASSING:
        return True
    if status == 409:
        return bool(_OPERATION_RUNNING.search(f"{code} {said}"))
    return status < 400 and (code or "").replace("_", "").lower() in _TRANSIENT_CODES


def _remedy(status: int, code: str | None, said: str) -> str | None:
    # A deployment out of quota is a BadRequest whose details say error-outofquota.
    if "quota" in f"{code} {said}".lower():
        return "Ask for quota in the Azure portal, or choose another size or region."
    if status == 401:
        return CredentialError.default_remedy
    if status == 403:
        return "Give your identity a role that allows this, such as AzureML Data Scientist."
    return None


def _shows_a_secret(error: BaseException | None) -> bool:
    """Say whether the traceback of ``error``, with all that it would chain, shows a secret."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if scrubbed(str(error)) != str(error):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False
