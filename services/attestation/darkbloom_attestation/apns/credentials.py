"""The provider token: our signature that Apple asks for with every push.

Apple refuses tokens older than an hour, and senders that make a new one more often than every
20 minutes; so one is kept for 50, and not even a refusal replaces it earlier than after 20.
"""

from dataclasses import dataclass, field
from typing import final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from darkbloom_mesh.clock import Clock

from darkbloom_attestation.errors import PushKeyError

LIFE_S = 3000.0
"""Seconds that one is used."""
LEAST_S = 1200.0
"""Seconds that one is used at least."""
ID_CHARS = 10
"""Length of Apple's ids of keys and teams."""
_MAX_PEM_BYTES = 4096


@final
@dataclass(slots=True)
class ProviderToken:
    """Makes and keeps the one token of a process; repr shows no secret."""

    key_id: str
    team_id: str
    clock: Clock
    _key: ec.EllipticCurvePrivateKey = field(repr=False)
    _token: str = field(default="", repr=False)
    _made_s: float = 0.0
    _refused: bool = False

    @classmethod
    def load(cls, pem: bytes, *, key_id: str, team_id: str, clock: Clock) -> "ProviderToken":
        """Read Apple's `.p8` key.

        Raises:
            PushKeyError: no P-256 key in PEM, or an id that is none.
        """
        ids_fit = all(len(i) == ID_CHARS and i.isalnum() and i.isascii() for i in (key_id, team_id))
        if not ids_fit:
            raise PushKeyError("ids of push keys and teams have 10 letters and digits")
        try:
            key = serialization.load_pem_private_key(pem[:_MAX_PEM_BYTES], password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PushKeyError("the push key file holds no p-256 key")
        if not isinstance(key.curve, ec.SECP256R1):
            raise PushKeyError("the push key file holds no p-256 key")

        return cls(key_id=key_id, team_id=team_id, clock=clock, _key=key)

    def current(self) -> str:
        """Return the token to send now."""
        age_s = self.clock.monotonic() - self._made_s
        worn = age_s >= LIFE_S or (self._refused and age_s >= LEAST_S)
        if not self._token or worn:
            self._token = jwt.encode(
                {"iss": self.team_id, "iat": int(self.clock.now().timestamp())},
                self._key,
                algorithm="ES256",
                headers={"kid": self.key_id, "typ": None},
            )
            self._made_s = self.clock.monotonic()
            self._refused = False

        return self._token

    def refuse(self, token: str) -> None:
        """Note that Apple called a token expired; it is replaced as soon as Apple allows."""
        self._refused = self._refused or token == self._token
