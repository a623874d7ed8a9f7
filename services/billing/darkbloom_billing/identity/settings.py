"""The file that names the issuers whose logins count."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from darkbloom_billing.identity.model import Issuer
from darkbloom_billing.identity.oidc import ALGORITHMS

MAX_ISSUERS = 16
_FIELDS = frozenset({"issuer", "audience", "jwks_url", "algorithms"})
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def read_issuers(path: Path, *, development: bool) -> tuple[Issuer, ...]:
    """Read a JSON list of `{issuer, audience, jwks_url, algorithms}`.

    Args:
        path: of the file.
        development: whether key sets may come from this machine without TLS.

    Raises:
        ValueError: It is not that.
    """
    try:
        listed = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    if not isinstance(listed, list) or len(listed) > MAX_ISSUERS:
        raise ValueError(f"not a list of at most {MAX_ISSUERS} issuers")
    issuers = tuple(_issuer(item, development=development) for item in listed)
    if len({issuer.issuer for issuer in issuers}) != len(issuers):
        raise ValueError("names an issuer twice")
    return issuers


def _issuer(item: Any, *, development: bool) -> Issuer:
    if not isinstance(item, Mapping) or item.keys() != _FIELDS:
        raise ValueError(f"an issuer has exactly {', '.join(sorted(_FIELDS))}")
    issuer, audience, url, algorithms = (
        item[name] for name in ("issuer", "audience", "jwks_url", "algorithms")
    )
    if not all(isinstance(value, str) and value for value in (issuer, audience, url)):
        raise ValueError("issuer, audience and jwks_url are texts")
    if not isinstance(algorithms, list) or not algorithms or not ALGORITHMS.issuperset(algorithms):
        raise ValueError(f"algorithms are some of {', '.join(sorted(ALGORITHMS))}")
    parts = urlsplit(url)
    local = development and parts.scheme == "http" and parts.hostname in _LOOPBACK
    if parts.scheme != "https" and not local:
        raise ValueError("jwks_url is not https")
    return Issuer(issuer=issuer, audience=audience, jwks_url=url, algorithms=frozenset(algorithms))
