"""Calls that a channel makes again by itself where a room cannot be reached for a moment.

While replicas are replaced there are moments when a caller has found one gone and has not dialled
the other again. Consumers wait behind these calls, and each of them means the same however often
it arrives: it only reads, or what it writes is keyed by the request. Everything else is repeated
by its owner, who knows what may have happened, or not at all.

gRPC does the repeating, within the deadline of the call, and stops where most calls fail.
"""

import json
from collections.abc import Mapping

_BILLING = "darkbloom.billing.v1"
_ATTESTATION = "darkbloom.attestation.v1"

REPEATED: Mapping[str, str] = {
    f"{_BILLING}.AccountService": "ResolveKey GetProviderLink ListProviderLinks GetBalance",
    f"{_BILLING}.LedgerService": "Hold ExtendHold",
    f"{_BILLING}.PriceService": "ListPrices Quote",
    f"{_ATTESTATION}.AttestationService": "ListVerdictKeys ListReceiptKeys",
}
"""Service, then methods."""

_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_THROTTLE = {"maxTokens": 100, "tokenRatio": 0.5}
"""Repeating stops when fifty more have failed than half of those that went well."""


def service_config() -> str:
    """Return what a channel is told: round robin over what DNS names, and what it repeats."""
    names = [
        {"service": service, "method": method}
        for service, methods in REPEATED.items()
        for method in methods.split()
    ]
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [{"name": names, "retryPolicy": _POLICY}],
            "retryThrottling": _THROTTLE,
        }
    )
