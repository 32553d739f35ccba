"""One class per error that Azure answers with; the app renders each as Azure's JSON.

::

    WireError
    ├── BadRequest            400  UserError, or the code given
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404
    ├── Conflict              409
    ├── ServiceUnavailable    503
    └── NotEmulated           501  this emulator has no such route

:class:`OperationFailed` is no answer to a request: it ends a long-running operation as Failed.
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

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
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


class Conflict(WireError):
    """Raised when the resource's state forbids the change now."""

    status = 409
    code = "Conflict"


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
