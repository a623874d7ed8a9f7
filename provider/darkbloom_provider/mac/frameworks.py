"""The few calls of CoreFoundation and Security that we need, by ctypes.

Objects are addresses. Whatever a `Create` or `Copy` returns is ours and must be released once;
a `Scope` does so for everything that was made within it.
"""

import ctypes
from collections.abc import Mapping
from ctypes import byref, c_int32, c_long, c_ubyte, c_uint32, c_ulong, c_void_p
from types import TracebackType
from typing import Any, Self, final

from darkbloom_provider.mac.errors import EnclaveError

CORE_FOUNDATION = "/System/Library/Frameworks/CoreFoundation.framework/CoreFoundation"
SECURITY = "/System/Library/Frameworks/Security.framework/Security"
MAX_BYTES = 65_536
"""Most that is copied out of one data object; signatures have 72."""

_UTF8 = 0x08000100
_SINT32 = 3
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "CFRelease": (None, (c_void_p,)),
    "CFStringCreateWithBytes": (
        c_void_p,
        (c_void_p, ctypes.c_char_p, c_long, c_uint32, c_ubyte),
    ),
    "CFNumberCreate": (c_void_p, (c_void_p, c_long, c_void_p)),
    "CFDataCreate": (c_void_p, (c_void_p, ctypes.c_char_p, c_long)),
    "CFDataGetLength": (c_long, (c_void_p,)),
    "CFDataGetBytePtr": (c_void_p, (c_void_p,)),
    "CFDictionaryCreate": (
        c_void_p,
        (c_void_p, c_void_p, c_void_p, c_long, c_void_p, c_void_p),
    ),
    "CFErrorGetCode": (c_long, (c_void_p,)),
    "SecItemCopyMatching": (c_int32, (c_void_p, c_void_p)),
    "SecAccessControlCreateWithFlags": (c_void_p, (c_void_p, c_void_p, c_ulong, c_void_p)),
    "SecKeyCreateRandomKey": (c_void_p, (c_void_p, c_void_p)),
    "SecKeyCopyPublicKey": (c_void_p, (c_void_p,)),
    "SecKeyCopyExternalRepresentation": (c_void_p, (c_void_p, c_void_p)),
    "SecKeyCreateSignature": (c_void_p, (c_void_p, c_void_p, c_void_p, c_void_p)),
    "SecKeyCreateEncryptedData": (c_void_p, (c_void_p, c_void_p, c_void_p, c_void_p)),
    "SecKeyCreateDecryptedData": (c_void_p, (c_void_p, c_void_p, c_void_p, c_void_p)),
}


@final
class Frameworks:
    """Apple's two libraries, or whatever answers to the same calls.

    Args:
        foundation: CoreFoundation as ctypes loads it.
        security: Security.
        symbol: reads the address that a constant of a library holds.
        address: where a structure of a library lies.
    """

    def __init__(self, foundation: Any, security: Any) -> None:
        self._foundation = foundation
        self._security = security
        for name, (result, arguments) in _SIGNATURES.items():
            function = self._function(name)
            function.restype, function.argtypes = result, arguments

    @classmethod
    def load(cls) -> Self:
        """Load them from the system.

        Raises:
            EnclaveError: this is no Mac.
        """
        try:
            return cls(ctypes.CDLL(CORE_FOUNDATION), ctypes.CDLL(SECURITY))
        except (OSError, AttributeError):
            raise EnclaveError("loading the frameworks", 0) from None

    @property
    def true(self) -> int:
        """The object for true."""
        return self.constant("kCFBooleanTrue")

    @property
    def false(self) -> int:
        """The object for false."""
        return self.constant("kCFBooleanFalse")

    def constant(self, name: str) -> int:
        """Return an object that a library exports; never released.

        Raises:
            EnclaveError: this system does not know it.
        """
        library = self._foundation if name.startswith("kCF") else self._security
        try:
            return c_void_p.in_dll(library, name).value or 0
        except ValueError:
            raise EnclaveError(name, 0) from None

    def callbacks(self, name: str) -> int:
        """Return the address of a structure that CoreFoundation exports."""
        return ctypes.addressof(c_void_p.in_dll(self._foundation, name))

    def scope(self) -> "Scope":
        """Begin a scope: what is made in it is released at its end."""
        return Scope(self, self._foundation)

    def release(self, reference: int) -> None:
        """Release one object."""
        self._foundation.CFRelease(reference)

    def bytes_of(self, data: int) -> bytes:
        """Copy the content of a data object.

        Raises:
            EnclaveError: larger than anything of ours.
        """
        length = self._foundation.CFDataGetLength(data)
        if not 0 < length <= MAX_BYTES:
            raise EnclaveError("reading data", 0)

        return ctypes.string_at(self._foundation.CFDataGetBytePtr(data), length)

    def copy_matching(self, query: int) -> tuple[int, int]:
        """Return (object, OSStatus) of a keychain search."""
        found = c_void_p()
        status = self._security.SecItemCopyMatching(query, byref(found))

        return found.value or 0, int(status)

    def create_access_control(self, protection: int, flags: int) -> tuple[int, int]:
        """Return (object, error code)."""
        error = c_void_p()
        made = self._security.SecAccessControlCreateWithFlags(None, protection, flags, byref(error))

        return made or 0, self._code(error)

    def create_random_key(self, attributes: int) -> tuple[int, int]:
        """Return (private key, error code)."""
        error = c_void_p()
        made = self._security.SecKeyCreateRandomKey(attributes, byref(error))

        return made or 0, self._code(error)

    def copy_public_key(self, key: int) -> int:
        """Return the public half; 0 for none."""
        return self._security.SecKeyCopyPublicKey(key) or 0

    def copy_external_representation(self, key: int) -> tuple[int, int]:
        """Return (data, error code)."""
        error = c_void_p()
        made = self._security.SecKeyCopyExternalRepresentation(key, byref(error))

        return made or 0, self._code(error)

    def create_signature(self, key: int, algorithm: int, message: int) -> tuple[int, int]:
        """Return (data, error code)."""
        error = c_void_p()
        made = self._security.SecKeyCreateSignature(key, algorithm, message, byref(error))

        return made or 0, self._code(error)

    def create_encrypted_data(self, key: int, algorithm: int, content: int) -> tuple[int, int]:
        """Return (data, error code); `key` is a public half."""
        error = c_void_p()
        made = self._security.SecKeyCreateEncryptedData(key, algorithm, content, byref(error))

        return made or 0, self._code(error)

    def create_decrypted_data(self, key: int, algorithm: int, content: int) -> tuple[int, int]:
        """Return (data, error code)."""
        error = c_void_p()
        made = self._security.SecKeyCreateDecryptedData(key, algorithm, content, byref(error))

        return made or 0, self._code(error)

    def _code(self, error: c_void_p) -> int:
        """Return an error object's code and release it; 0 for no error."""
        if not error.value:
            return 0
        code = int(self._foundation.CFErrorGetCode(error.value))
        self._foundation.CFRelease(error.value)

        return code

    def _function(self, name: str) -> Any:
        return getattr(self._foundation if name.startswith("CF") else self._security, name)


@final
class Scope:
    """Owns what is made in it."""

    def __init__(self, frameworks: Frameworks, foundation: Any) -> None:
        self._frameworks = frameworks
        self._foundation = foundation
        self._owned: list[int] = []

    def __enter__(self) -> Self:
        """Return the scope itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release everything, newest first."""
        while self._owned:
            self._frameworks.release(self._owned.pop())

    def keep(self, reference: int | None) -> int:
        """Own an object.

        Raises:
            EnclaveError: it was never made.
        """
        if not reference:
            raise EnclaveError("memory", 0)
        self._owned.append(reference)

        return reference

    def string(self, text: str) -> int:
        """Make a string."""
        raw = text.encode()

        return self.keep(self._foundation.CFStringCreateWithBytes(None, raw, len(raw), _UTF8, 0))

    def number(self, value: int) -> int:
        """Make a number."""
        return self.keep(self._foundation.CFNumberCreate(None, _SINT32, byref(c_int32(value))))

    def data(self, content: bytes) -> int:
        """Make a data object."""
        return self.keep(self._foundation.CFDataCreate(None, content, len(content)))

    def dictionary(self, items: Mapping[str, int]) -> int:
        """Make a dictionary of exported keys and objects; it retains the objects."""
        array = c_void_p * len(items)
        keys = array(*(self._frameworks.constant(name) for name in items))
        values = array(*items.values())

        return self.keep(
            self._foundation.CFDictionaryCreate(
                None,
                keys,
                values,
                len(items),
                self._frameworks.callbacks("kCFTypeDictionaryKeyCallBacks"),
                self._frameworks.callbacks("kCFTypeDictionaryValueCallBacks"),
            )
        )
