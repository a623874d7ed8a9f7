"""The identity key of this machine where there is no Secure Enclave: P-256, in a file of its owner.

Software keys name a machine; they prove nothing about it, and their level stays `none`.
"""

import os
import stat
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from darkbloom_edge.signatures import SCALAR_BYTES, P256Signer

from darkbloom_provider.errors import IdentityError

_MAX_PEM_BYTES = 4096
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def load_or_create(path: Path) -> P256Signer:
    """Return the identity of this home, made on first use.

    Raises:
        IdentityError: the file is malformed, a link, someone else's, or readable by others.
    """
    try:
        if not path.exists():
            _create(path)
        return _load(path)
    except OSError as error:
        raise IdentityError(
            f"{path} cannot be used ({error.strerror})", "check its owner and that it is a file"
        ) from error


def _create(path: Path) -> None:
    signer = P256Signer.generate()
    key = ec.derive_private_key(int.from_bytes(signer.private_bytes(), "big"), ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # Mode 0600 from the start, under a name that no crashed process has left behind.
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        os.fsync(file.fileno())
    try:
        # Link, not rename: of two that start at once the first one's key stays.
        os.link(scratch, path)
    except FileExistsError:
        pass
    finally:
        Path(scratch).unlink()


def _load(path: Path) -> P256Signer:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.getuid() or status.st_mode & _OPEN_TO_OTHERS:
            raise IdentityError(
                f"{path} must belong to you and be closed to others",
                f"chmod 600 {path}, or remove it to become a new machine",
            )
        pem = file.read(_MAX_PEM_BYTES + 1)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(
            f"{path} holds no p-256 key", "remove it to become a new machine, without its history"
        )
    value = key.private_numbers().private_value
    return P256Signer(value.to_bytes(SCALAR_BYTES, "big"))
