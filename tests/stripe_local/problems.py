"""Stripe's error envelope."""

from typing import Any


class ProblemError(Exception):
    """A refusal, as Stripe words it.

    Args:
        status: HTTP status.
        message: for people.
        code: machine-readable cause.
        kind: `type` of the error.
        param: field at fault.
        kept: whether the idempotency key remembers it; failures of validation are forgotten.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        kind: str = "invalid_request_error",
        param: str | None = None,
        kept: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kept = kept
        self.error = {"type": kind, "message": message, "code": code, "param": param}

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": {name: value for name, value in self.error.items() if value is not None}}


def missing(param: str) -> ProblemError:
    """Refuse a call without a required field."""
    return ProblemError(
        400,
        f"Missing required param: {param}.",
        code="parameter_missing",
        param=param,
        kept=False,
    )


def unknown(kind: str, name: str) -> ProblemError:
    """Refuse an id that is not there."""
    return ProblemError(
        404, f"No such {kind}: '{name}'", code="resource_missing", param="id", kept=False
    )
