"""A sealing key out of words that can be kept on paper (spec: security section 2.3)."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from mnemonic import Mnemonic

INFO = "eigeninference-coordinator-e2e-v1"
"""What the original derives its key for; another text gives another key of the same words."""
_KEY_BYTES = 32
_COUNTS = (12, 24)


def private_key_of(words: str, info: str = INFO) -> bytes:
    """Return the X25519 private key of a BIP-39 mnemonic, 32 bytes.

    Raises:
        ValueError: not 12 or 24 words of the English list, or the checksum is wrong; the message
            quotes none of them.
    """
    said = " ".join(words.split())
    if said.count(" ") + 1 not in _COUNTS:
        raise ValueError("a mnemonic has 12 or 24 words")
    if not Mnemonic("english").check(said):
        raise ValueError("the mnemonic has an unknown word, or its checksum is wrong")
    seed = Mnemonic.to_seed(said)

    return HKDF(SHA256(), length=_KEY_BYTES, salt=None, info=info.encode()).derive(bytes(seed))
