"""What a program of the owner is told, in OpenAI's error form; never quotes a request."""

from __future__ import annotations

from darkbloom_edge.errors import RequestError

from darkbloom_provider.engine.errors import EngineError
from darkbloom_provider.errors import ProviderError


class LocalStartError(ProviderError):
    """The local endpoint cannot be opened."""


class LocalError(Exception):
    """One request ends with this status and this body.

    Args:
        status: 400 to 599.
        kind: `type` of the body.
        message: for people.
        code: `code` of the body; equals `kind` when absent.
        param: the field at fault.
        retry_after_s: whole seconds; absent sends no header.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.code = code or kind
        self.param = param
        self.retry_after_s = retry_after_s


class GoneError(Exception):
    """Whoever asked has left."""


def of_request(error: RequestError) -> LocalError:
    """Return what a body that was refused is answered with."""
    return LocalError(error.status, error.type, error.message, code=error.code, param=error.param)


def of_engine(error: EngineError) -> LocalError:
    """Return what a refusal or failure of the engine is answered with."""
    reason = error.code.value if error.reason is None else error.reason.value
    busy = error.status in (429, 503)
    return LocalError(
        error.status, error.code.value, str(error), code=reason, retry_after_s=1 if busy else None
    )


def bad_request(message: str, param: str | None = None) -> LocalError:
    """400: the request itself is wrong."""
    return LocalError(400, "invalid_request_error", message, param=param)


def model_not_found() -> LocalError:
    """404: not a build that this machine serves."""
    return LocalError(
        404, "model_not_found", "this machine does not serve the model; see /v1/models",
        param="model",
    )  # fmt: skip


def unauthenticated() -> LocalError:
    """401: no key, or another one."""
    return LocalError(
        401, "authentication_error", "the key is missing or wrong; `darkbloom local` shows it"
    )


def not_serving(message: str) -> LocalError:
    """503: no models are in memory now."""
    return LocalError(503, "service_unavailable", message, retry_after_s=5)
