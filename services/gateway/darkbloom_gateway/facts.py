"""What an answer says about who gave it: headers at commit, and metadata on request."""

import orjson
from darkbloom_edge.signatures import to_base64

from darkbloom_gateway.attempt import Attempt
from darkbloom_gateway.carried import Carried
from darkbloom_gateway.model import Timing
from darkbloom_gateway.wire import shown

_HARDWARE = "hardware"
"""The one level at which somebody else than the provider says where its key lives."""
_DEVICE_ATTESTATION = "mda_"
"""What the ids of such evidence begin with (docs/wire.md section 1)."""
_BOOLEANS = {True: b"true", False: b"false"}


def provider_headers(attempt: Carried, timing: Timing) -> list[tuple[bytes, bytes]]:
    """Return the `X-Provider-*` headers; the verdict, not the router, backs the trust words."""
    verdict, offer = attempt.checked.verdict, attempt.offer
    attested = verdict.trust_level == _HARDWARE
    headers = [
        (b"x-inference-job-id", offer.attempt_id.encode("ascii")),
        (b"x-provider-id", verdict.provider_id.encode("ascii")),
        (b"x-provider-attested", _BOOLEANS[attested]),
        (b"x-provider-trust-level", verdict.trust_level.encode("ascii")),
        (b"x-provider-encrypted", b"true"),
        (b"x-provider-secure-enclave", _BOOLEANS[attested]),
        (b"x-timing", timing.as_json()),
    ]
    if offer.facts.chip_name:
        headers.append((b"x-provider-chip", shown(offer.facts.chip_name)))
    if offer.facts.machine_model:
        headers.append((b"x-provider-model", shown(offer.facts.machine_model)))
    if offer.scripted:
        headers.append((b"x-provider-scripted", b"true"))
    if _mda_verified(attempt):
        headers.append((b"x-provider-mda-verified", b"true"))
    if attested:
        headers.append((b"x-attestation-se-public-key", verdict.identity_key.encode("ascii")))
    return headers


def metadata_json(attempt: Attempt, timing: Timing) -> bytes:
    """Return the opt-in `metadata` of an answer."""
    verdict, offer = attempt.checked.verdict, attempt.offer
    attested = verdict.trust_level == _HARDWARE
    content = {
        "provider_id": verdict.provider_id,
        "provider_attested": attested,
        "provider_trust_level": verdict.trust_level,
        "provider_encrypted": True,
        "provider_chip": shown(offer.facts.chip_name).decode("ascii"),
        "provider_machine_model": shown(offer.facts.machine_model).decode("ascii"),
        "provider_secure_enclave": attested,
        "provider_mda_verified": _mda_verified(attempt),
        "provider_scripted": offer.scripted,
        "attestation_se_public_key": verdict.identity_key if attested else None,
        "identity_key": to_base64(attempt.checked.identity_key),
        "job_id": offer.attempt_id,
        "timing": orjson.Fragment(timing.as_json()),
    }
    return orjson.dumps({name: value for name, value in content.items() if value is not None})


def _mda_verified(attempt: Carried) -> bool:
    """Whether the signed verdict names a device attestation by Apple."""
    verdict = attempt.checked.verdict
    attested = verdict.trust_level == _HARDWARE
    return attested and any(name.startswith(_DEVICE_ATTESTATION) for name in verdict.evidence)
