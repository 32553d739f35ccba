"""One class per error that Azure answers with; the app renders each as Azure's JSON.

::

    WireError
    ├── BadRequest            400  UserError, or the code given
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404
    ├── RequestTimeout        408  in text, as the proxy before a deployment says it
    ├── Conflict              409
    │   └── ScopeLocked            a management lock
    ├── TooManyRequests       429
    ├── BadGateway            502
    ├── ServiceUnavailable    503
    └── NotEmulated           501  this emulator has no such route

:class:`OperationFailed` and :class:`OperationGoesOn` are no answers to a request: an event raises
them to end its long-running operation as Failed, or not to end it.
"""

from __future__ import annotations

from typing import Any


class WireError(Exception):
    """Base: an HTTP status with Azure's error body.

    Args:
        message: For a person.
        code: Azure's ``error.code``; the class's own where not given.
        target: The field at fault.
        details: Azure's ``error.details``, each with ``code`` and ``message``: where the service
            behind the front end says what is really wrong.
        inner: Azure's codes within the code, outermost first.
        headers: Further response headers.
    """

    status = 500
    code = "InternalServerError"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        target: str | None = None,
        details: list[dict[str, Any]] | None = None,
        inner: tuple[str, ...] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.target = target
        self.details = details or []
        self.inner = inner
        self.headers = headers or {}

    def body(self) -> Any:
        """Return the JSON body, or text as bytes."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "target": self.target,
                "details": self.details,
                "additionalInfo": self._additional_info(),
            }
        }

    def _additional_info(self) -> list[dict[str, Any]]:
        error: dict[str, Any] | None = None
        for code in reversed(self.inner):
            error = {"code": code, "innerError": error}
        return [{"type": "InnerError", "info": {"value": error}}] if error else []


class BadRequest(WireError):
    """Raised when a request's body or query is not acceptable."""

    status = 400
    code = "UserError"


class Unauthorized(WireError):
    """Raised when a token or key is missing, wrong, expired, or for another audience."""

    status = 401
    code = "InvalidAuthenticationToken"


class Forbidden(WireError):
    """Raised when the caller is known and may not do this."""

    status = 403
    code = "AuthorizationFailed"


class NotFound(WireError):
    """Raised when there is no such resource."""

    status = 404
    code = "ResourceNotFound"


class RequestTimeout(WireError):
    """Raised when a deployment takes longer than it may; the message is the body."""

    status = 408

    def body(self) -> bytes:
        """Return text: this answer comes from a proxy that knows no JSON."""
        return self.message.encode()


class Conflict(WireError):
    """Raised when the resource's state forbids the change now."""

    status = 409
    code = "Conflict"


class ScopeLocked(Conflict):
    """Raised by Resource Manager itself when a management lock forbids the change."""

    code = "ScopeLocked"

    def body(self) -> Any:
        """Return code and message alone: it comes from before the service, and has no more."""
        return {"error": {"code": self.code, "message": self.message}}


class TooManyRequests(WireError):
    """Raised when a deployment has more requests in hand than it takes at once."""

    status = 429
    code = "TooManyRequests"


class BadGateway(WireError):
    """Raised when what was to answer ended in the middle of it."""

    status = 502
    code = "BadGateway"


class ServiceUnavailable(WireError):
    """Raised when what would answer is not up, or no longer."""

    status = 503
    code = "ServiceUnavailable"


class NotEmulated(WireError):
    """Raised when no route matches: the message names what was asked for."""

    status = 501
    code = "NotEmulated"


class OperationFailed(Exception):
    """Raised by an event to end its long-running operation as Failed.

    Args:
        code: Azure's ``error.code``.
        message: For a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class OperationGoesOn(Exception):
    """Raised by an event whose long-running operation ends with another event, still to come."""
