"""Where the Azure SDK's exceptions become ours: by HTTP status and error code, not by type.

The SDK raises one type for many things and many types for one thing: a failed long-running
operation is an ``HttpResponseError`` with status 200, a gateway's 504 page an ``MlException``
with no status, a model that is not there a ``ValidationException``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, TypeVar

from lifecycle.errors import CredentialError, FinetuneError, ServiceError
from lifecycle.patience import during

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError, HttpResponseError

    from lifecycle.transport import PauseTooLong

T = TypeVar("T")

logger = logging.getLogger(__name__)

UNSEEN_SECONDS = 60.0
"""For so long what Azure has agreed to make, or has taken, may not be found yet."""

REFUSED_SECONDS = 120.0
"""For so long Azure may refuse what it will let us do: until a new role has arrived."""


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
            of a running operation, a 403 that a new role or ARM's caches explain, a lost
            connection, a token that could not be had or has expired on the way, and an answer that
            the SDK could not read, whatever it raised then: JSONDecodeError, AttributeError, …
            ``permanent`` where asking again is of no use: docs/internals/azure-errors.md.

    The message and the chained cause carry no token, key or signature: a cause that does is left
    out of the chain.
    """
    try:
        with during(doing):
            yield
    except FinetuneError:
        raise
    except Exception as error:
        translation = _translate(error, doing, where, not_found)
        raise translation from (None if _shows_a_secret(error) else error)


def find(doing: str, where: str, get: Callable[[], T]) -> T | None:
    """Return what ``get`` finds, or None where Azure says that this very resource is not there."""
    try:
        with translated(doing, where=where):
            return get()
    except ServiceError as error:
        if error.gone:
            return None
        raise


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
    # ARM's caches answer so now and then, and a new role takes minutes to arrive:
    # hashicorp/terraform-provider-azurerm#5038.
    (403, "AuthorizationFailed"),
    (403, "LinkedAuthorizationFailed"),
    (403, "AuthorizationPermissionMismatch"),
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

PERMANENT: Mapping[str, str] = {
    "ScopeLocked": "Somebody has locked it: find the lock with `az lock list --resource-group "
    "GROUP` (or without, for those of the subscription), and delete it with `az lock delete`.",
    "RequestDisallowedByPolicy": "An Azure Policy of your organisation forbids it, and is named "
    "above: change what it objects to, or ask whoever assigned it for an exemption.",
    "RequestDisallowedByAzure": "Azure forbids it in this region or subscription: choose another "
    "region, or ask Azure's support.",
    "DenyAssignmentAuthorizationFailed": "A deny assignment forbids it, whatever your role: ask "
    "whoever manages the subscription.",
    "KeyBasedAuthenticationNotPermitted": "The workspace's storage account takes no shared keys: "
    "have the workspace's datastores use identities (system_datastores_auth_mode: identity) and "
    "give yours the role Storage Blob Data Contributor, or allow shared keys again.",
    "AuthorizationFailure": "The storage account's firewall does not admit this machine: run "
    "inside its network or add its address, as docs/running/private-network.md describes.",
    "PublicNetworkAccessDisabled": "It admits no public network: run inside its network, as "
    "docs/running/private-network.md describes.",
    "MissingSubscriptionRegistration": "Register the resource provider that is named above: "
    "`az provider register --namespace …`.",
    "ReadOnlyDisabledSubscription": "The subscription is disabled: whoever pays for it can enable "
    "it in the Azure portal.",
}
"""What Azure goes on saying until a person changes something, by its code, and what that is.

Sources: docs/internals/azure-errors.md.
"""

_NOTICED = {
    # ARM puts another service's refusal into an error of its own, and storage says it in prose.
    "ScopeLocked": re.compile(r"(?i)following scope\(s\) are locked"),
    "RequestDisallowedByPolicy": re.compile(r"(?i)disallowed by (?:policy|one or more policies)"),
    "KeyBasedAuthenticationNotPermitted": re.compile(
        r"(?i)key.based authentication is not permitted"
    ),
    "PublicNetworkAccessDisabled": re.compile(
        r"(?i)public (?:network )?access is (?:not allowed|disabled)"
    ),
}

# A parent is not there, which says nothing of what was asked for.
_PARENT_IS_MISSING = re.compile(
    r"(?i)\b(?:ResourceGroup|Subscription|ParentResource|Workspace)NotFound\b"
    r"|\bInvalidSubscriptionId\b"
    r"|'Microsoft\.MachineLearningServices/workspaces/[^/']+'"
)


def _translate(
    error: Exception, doing: str, where: str | None, not_found: type[FinetuneError] | None
) -> FinetuneError:
    from azure.core.exceptions import AzureError, DecodeError, HttpResponseError

    from lifecycle.transport import PauseTooLong

    if isinstance(error, PauseTooLong):
        return _asked_to_wait(error, doing, where)
    if not isinstance(error, AzureError):
        return _unexpected(error, doing, where)
    error = _unformatted(error)
    answer = next((link for link in _chain(error) if isinstance(link, HttpResponseError)), None)
    status = answer.status_code if answer is not None else None
    said = _said(error)
    if _is_missing(error, status):
        return _missing(answer, doing, where, not_found, said)
    if isinstance(error, DecodeError) or _is_unreadable(error):
        return ServiceError(
            f"Azure's answer could not be read while {doing}: {said}",
            status=status,
            where=where,
            transient=True,
        )
    if answer is None or status is None:
        return _unanswered(error, doing, where, said)
    return _refused(answer, status, doing, where, said)


def _refused(
    answer: HttpResponseError, status: int, doing: str, where: str | None, said: str
) -> ServiceError:
    failed_operation = status < 400
    code = _permanent_code(answer, said) or _service_code(answer)
    return ServiceError(
        f"An operation of Azure failed while {doing}: {said}"
        if failed_operation
        else f"Azure answered {status} while {doing}: {said}",
        status=None if failed_operation else status,
        service_code=code,
        where=where,
        remedy=_remedy(status, code, said),
        transient=code not in PERMANENT and _is_transient(status, code, said),
        permanent=code in PERMANENT,
        retry_after=_retry_after(answer.response),
    )


def _missing(
    answer: HttpResponseError | None,
    doing: str,
    where: str | None,
    not_found: type[FinetuneError] | None,
    said: str,
) -> FinetuneError:
    """Return the error of a 404: of the resource itself, of a parent, or of somebody else's page.

    Azure says it in its error envelope, or with no body at all (a compute, recorded in 2023).
    """
    body = _body(answer)
    code = None if answer is None else _service_code(answer)
    is_azures = answer is None or not body.strip() or code is not None
    if not is_azures:
        return ServiceError(
            f"Not Azure but something on the way answered 404 while {doing}: {said}",
            status=404,
            where=where,
            remedy="Check the network, the proxy and the cloud that is configured.",
            transient=True,
        )
    if not_found is not None:
        return not_found(f"Not found while {doing}: {said}", where=where)
    has_no_parent = bool(_PARENT_IS_MISSING.search(body))
    return ServiceError(
        f"Azure has no such resource, while {doing}: {said}",
        status=404,
        service_code=code,
        where=where,
        remedy="Check workspace.*: the workspace or its resource group is not there."
        if has_no_parent
        else "Check the name.",
        gone=not has_no_parent,
    )


def _asked_to_wait(error: PauseTooLong, doing: str, where: str | None) -> ServiceError:
    from azure.core.exceptions import HttpResponseError

    asks = f"A pause of {error.seconds:.0f} s is asked for, which is more than there is time for."
    if error.response is None:
        return ServiceError(
            f"Azure did not answer while {doing}. {asks}", where=where, transient=True
        )
    answer = HttpResponseError(response=_read(error.response))
    refusal = _refused(answer, error.response.status_code, doing, where, _said(answer))
    refusal.message += f" {asks}"
    refusal.transient, refusal.retry_after = not refusal.permanent, error.seconds
    return refusal


def _read(response: Any) -> Any:
    """Have the body of a transport's response at hand, which the retry policy needs not."""
    from azure.core.exceptions import AzureError

    try:
        if hasattr(response, "read"):
            response.read()
    except AzureError as error:
        logger.debug("The body of a refusal could not be read: %r", error)
    return response


def _unexpected(error: Exception, doing: str, where: str | None) -> ServiceError:
    """Return the error for what is no AzureError, as the SDK lets out on an answer it cannot read.

    A blank answer ends in a JSONDecodeError, a property that is missing in an AttributeError.
    """
    from requests import RequestException

    kind = "not JSON" if isinstance(error, JSONDecodeError) else type(error).__name__
    said = " ".join(scrubbed(f"{kind}: {error}").split())[:600]
    if isinstance(error, (RequestException, ConnectionError, TimeoutError)):
        return ServiceError(
            f"Azure did not answer while {doing}: {said}.",
            where=where,
            remedy="Check the network, the proxy and the cloud that is configured.",
            transient=True,
        )
    if isinstance(error, (ValueError, AttributeError, LookupError, TypeError)):
        return ServiceError(
            f"Azure's answer could not be read while {doing} ({said}).",
            where=where,
            remedy="If it stays so, please report it, with the versions that `finetune doctor` "
            "shows.",
            transient=True,
        )
    return ServiceError(f"The Azure SDK failed while {doing}: {said}.", where=where)


def _is_unreadable(error: AzureError) -> bool:
    """Say whether a poller gave up on an answer that is none of an operation's."""
    from azure.core.polling.base_polling import BadResponse

    return any(isinstance(link, BadResponse) for link in _chain(error))


def _permanent_code(answer: HttpResponseError, said: str) -> str | None:
    """Return the code of a refusal that stands, also where it is within another."""
    code = _service_code(answer)
    if code in PERMANENT:
        return code
    text = f"{said} {_body(answer)}"
    return next((code for code, words in _NOTICED.items() if words.search(text)), None)


def _body(answer: HttpResponseError | None) -> str:
    response = getattr(answer, "response", None)
    if response is None:
        return ""
    try:
        return str(response.text())
    except Exception:  # Whatever a transport raises for a body that was not, or cannot be, read.
        return ""


def _retry_after(response: Any) -> float | None:
    """Return the seconds that the service asks to wait; None where it asks nothing we can read."""
    try:
        seconds = float(response.headers.get("Retry-After") or "")
    except (AttributeError, ValueError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


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
    if code in PERMANENT:
        return PERMANENT[str(code)]
    # A deployment out of quota is a BadRequest whose details say error-outofquota.
    if "quota" in f"{code} {said}".lower():
        return "Ask for quota in the Azure portal, or choose another size or region."
    if status == 401:
        return CredentialError.default_remedy
    if code == "AuthorizationPermissionMismatch":
        return "Give your identity the role Storage Blob Data Contributor on the storage account."
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
