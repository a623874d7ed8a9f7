"""How a person's command line reaches a room: by certificate, or without leaving the machine."""

import os
from ipaddress import ip_address

from darkbloom_mesh.config import ConfigError, RoomConfig, load
from darkbloom_mesh.tls import TlsFiles

_PLAINTEXT = "DARKBLOOM_PLAINTEXT"
_READ = ("DARKBLOOM_TLS_", "DARKBLOOM_TRUST_DOMAIN")


def operator_tls(target: str) -> TlsFiles | None:
    """Return the certificate of whoever runs a command, from `DARKBLOOM_TLS_*`.

    None is plaintext: secrets go over it to this machine alone, or where `DARKBLOOM_PLAINTEXT`
    says `true`.

    Raises:
        ConfigError: The variables or files cannot be used, or plaintext would leave this machine.
    """
    environ = os.environ  # noqa: TID251 - one of two places that read it
    given = {name: value for name, value in environ.items() if name.startswith(_READ)}
    config = load(RoomConfig, "operator", {"DARKBLOOM_ENV": "development"} | given)
    tls = config.tls()
    if tls is None and not is_local(target) and environ.get(_PLAINTEXT) != "true":
        what = (
            f"no certificate, and {target} is not this machine: set DARKBLOOM_TLS_CERT_FILE, "
            f"…_KEY_FILE, …_CA_FILE, or {_PLAINTEXT}=true to send secrets in the clear"
        )
        raise ConfigError([what])
    return tls


def is_local(target: str) -> bool:
    """Return whether a gRPC target is on this machine, as far as its own text says."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return True
    if colon and scheme in {"dns", "ipv4", "ipv6"}:
        # dns://resolver/name:port has an authority, which says nothing of the name.
        target = rest.rpartition("/")[2]
    host = target[1:].partition("]")[0] if target.startswith("[") else target.rpartition(":")[0]
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
