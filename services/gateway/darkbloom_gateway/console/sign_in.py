"""Where the console sends people to sign in."""

from dataclasses import dataclass
from urllib.parse import urlsplit

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class SignIn:
    """An OpenID issuer's endpoints, for the code flow of a public client with PKCE."""

    authorize_url: str
    """The page that a person is sent to."""
    token_url: str
    """Takes the code and the verifier; must allow the console's origin (CORS)."""
    client_id: str
    """What the issuer calls this console; one of `audience` that billing trusts."""

    def __post_init__(self) -> None:
        """Refuse what a browser could not use safely.

        Raises:
            ValueError: a part is missing, or a URL is not https (http on the loopback only).
        """
        if not (self.authorize_url and self.token_url and self.client_id):
            raise ValueError("authorize url, token url and client id go together")
        for url in (self.authorize_url, self.token_url):
            found = urlsplit(url)
            plain = found.scheme == "http" and found.hostname in _LOOPBACK
            if not found.hostname or not (found.scheme == "https" or plain):
                raise ValueError("not an https url")
            if any(not char.isprintable() or char in " ;,'\"" for char in url):
                raise ValueError("a url has characters that no header may carry")

    @property
    def origin(self) -> str:
        """Scheme, host and port of the token endpoint: the one stranger that a page may call."""
        found = urlsplit(self.token_url)
        return f"{found.scheme}://{found.netloc}"
