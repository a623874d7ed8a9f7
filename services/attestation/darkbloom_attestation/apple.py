"""Apple's formats for the examiner: the verifiers of `darkbloom_edge.apple`, with pinned roots."""

from datetime import datetime
from typing import final

from darkbloom_edge.apple.app_attest import AppAttestPolicy, verify_attestation
from darkbloom_edge.apple.assertion import verify_assertion
from darkbloom_edge.apple.faults import AppleFault, AppleRejected
from darkbloom_edge.apple.mda import MdaPolicy, SecureBoot, key_freshness, verify_mda
from darkbloom_edge.apple.roots import AppleRoots
from darkbloom_edge.signatures import to_base64

from darkbloom_attestation.examine import Certified, DeviceFacts, RefusedError

NOT_CONFIGURED = "app_attest_not_configured"
"""No app is named whose keys would count."""


@final
class PinnedVerifier:
    """Verifies against the roots that it was made with.

    Args:
        roots: those of the package; others only where a test hands them in.
        app: whose keys count; None for nobody's.
    """

    def __init__(self, roots: AppleRoots, app: AppAttestPolicy | None) -> None:
        self._roots = roots
        self._app = app

    def attestation(
        self, data: bytes, key_id: bytes, client_data: bytes, now: datetime
    ) -> Certified:
        """Check an App Attest attestation object."""
        app = self._configured()
        try:
            key = verify_attestation(
                data,
                key_id=to_base64(key_id),
                client_data_hash=client_data,
                policy=app,
                roots=self._roots,
                now=now,
            )
        except AppleRejected as error:
            raise _refused("app_attest", error) from None

        return Certified(public_key=key.public_key, environment=key.environment.value)

    def assertion(self, data: bytes, public_key: bytes, client_data: bytes, counter: int) -> int:
        """Check an App Attest assertion whose counter must be above this one; return it."""
        app = self._configured()
        try:
            return verify_assertion(
                data,
                client_data_hash=client_data,
                public_key=public_key,
                app_id_hash=app.app_id_hash,
                previous_counter=counter,
                launch_categories=app.launch_categories,
            ).counter
        except AppleRejected as error:
            raise _refused("app_attest", error) from None

    def device_chain(
        self, chain: tuple[bytes, ...], identity_key: bytes, now: datetime
    ) -> DeviceFacts:
        """Check a Managed Device Attestation chain made for this enclave key.

        What the device says of its posture is a result, good or bad: a report that protection is
        off is evidence as well.
        """
        about_key = MdaPolicy(
            freshness=key_freshness(identity_key),
            require_sip=False,
            require_full_security=False,
            forbid_kernel_extensions=False,
        )
        try:
            device = verify_mda(chain, policy=about_key, roots=self._roots, now=now)
        except AppleRejected as error:
            raise _refused("mda", error) from None
        if device.serial is None or device.sip_enabled is None or device.secure_boot is None:
            raise _refused("mda", AppleRejected(AppleFault.POSTURE_MISSING))

        return DeviceFacts(
            serial=device.serial,
            sip_enabled=device.sip_enabled,
            full_security=device.secure_boot is SecureBoot.FULL
            and device.kernel_extensions_allowed is False,
            made_time=device.not_before,
            end_time=device.not_after,
        )

    def _configured(self) -> AppAttestPolicy:
        if self._app is None:
            raise RefusedError(NOT_CONFIGURED)

        return self._app


def _refused(what: str, error: AppleRejected) -> RefusedError:
    return RefusedError(f"{what}_{error.reason.value}")
