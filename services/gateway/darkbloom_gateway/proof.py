"""What a provider signs at the end of an answer, checked against what came of it."""

from collections.abc import Callable
from typing import Protocol

from darkbloom.router.v1 import provider_link_pb2
from darkbloom_edge.terminal import Terminal
from google.protobuf.message import DecodeError

from darkbloom_gateway import convert
from darkbloom_gateway.errors import ViolationError, ViolationFault, provider_failed
from darkbloom_gateway.model import SignedBytes


class Concludes(Protocol):
    """An attempt that knows what came: opened here, or passed on sealed."""

    def conclude(
        self, document: bytes, signature: bytes, weight_hashes: frozenset[str]
    ) -> Terminal:
        """Return the terminal; raises `ViolationError` where it does not say what came."""
        ...


def proven(
    attempt: Concludes,
    payload: bytes,
    weight_hashes: frozenset[str],
    report: Callable[[ViolationFault], None],
) -> tuple[Terminal, SignedBytes]:
    """Return the terminal, and its exact bytes with the provider's signature.

    Args:
        attempt: whose answer it ends.
        payload: of the frame that brought it.
        weight_hashes: those that the catalog accepts for the build; empty checks none.
        report: told what is wrong before the request fails.

    Raises:
        ApiError: 502: it is not the provider's, or it does not say what came.
    """
    try:
        signed = convert.signed(provider_link_pb2.Terminal.FromString(payload).terminal)
        return attempt.conclude(signed.document, signed.signature, weight_hashes), signed
    except DecodeError:
        fault = ViolationFault.TERMINAL
    except ViolationError as error:
        fault = error.fault
    report(fault)
    raise provider_failed("the provider's proof is not valid")
