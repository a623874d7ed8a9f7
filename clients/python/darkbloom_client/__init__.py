"""End-to-end mode for consumers: seal to the provider that you have checked yourself.

This room owns the consumer's end of a sealed request: the policy that decides who may read a
prompt, the transport that makes stock SDKs keep it, and a loopback proxy for every other tool. It
trusts pinned keys, Apple's roots and its own clock, and the gateway with nothing but delivery.
"""

from darkbloom_client.clients import sealed_client
from darkbloom_client.pins import Pins, PinsError
from darkbloom_client.policy import Policy, PolicyError, PriceLimit
from darkbloom_client.refusal import Reason, RefusedError
from darkbloom_client.transport import AsyncTransport, Transport

__all__ = [
    "AsyncTransport",
    "Pins",
    "PinsError",
    "Policy",
    "PolicyError",
    "PriceLimit",
    "Reason",
    "RefusedError",
    "Transport",
    "sealed_client",
]
