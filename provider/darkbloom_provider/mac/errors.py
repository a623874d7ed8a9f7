"""What can go wrong on the Mac side, in words that may be logged."""

from darkbloom_provider.errors import ProviderError


class LauncherError(ProviderError):
    """The launcher refused, broke the protocol, or is gone.

    Args:
        reason: a closed word.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the launcher does not serve ({reason})", "start the agent through its application"
        )
        self.reason = reason


class EnclaveError(ProviderError):
    """The Secure Enclave or the keychain refused.

    Args:
        step: which call.
        code: OSStatus or error code of the system.
    """

    def __init__(self, step: str, code: int) -> None:
        super().__init__(
            f"the secure enclave refused {step} ({code})",
            "use the signed application; without it the machine has a software identity",
        )
        self.step = step
        self.code = code
