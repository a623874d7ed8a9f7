"""Values that must not be seen: their text form never shows what they hold."""

import hmac
from typing import Generic, TypeVar, final

T = TypeVar("T")


class Sealed(Generic[T]):
    """Holds one value; repr, str and format are redacted, so logs and errors stay clean."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value. The caller keeps it out of logs, errors and stores."""
        return self._value

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<redacted>)"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> str:
        raise TypeError("a sealed value is not pickled")


@final
class Content(Sealed[str]):
    """A piece of a prompt or of a completion."""

    __slots__ = ()


@final
class Secret(Sealed[bytes]):
    """A key or token. Equality takes the same time wherever two secrets differ."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        raise TypeError("a secret is not hashed")
