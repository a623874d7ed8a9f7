"""Mutual TLS between rooms: certificate, key and trust bundle from files that may change any time.

A certificate names its holder twice: `spiffe://<trust domain>/<room>` (URI) is what a server
authorises by, `<room>.<trust domain>` (DNS) is what a client checks, because gRPC compares host
names only. Whoever asks looks at the files at most once a second; a set that does not fit together
(a renewal half written, an expired certificate) is logged, and the last good one stays.
"""

import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import structlog

from darkbloom_mesh.clock import Clock, SystemClock

LOOK_S = 1.0
_FLIGHTS = 3
_SCHEME = "spiffe://"
_SPIFFE_PROPERTY = "peer_spiffe_id"
_log = structlog.get_logger()

_Seen = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class TlsPaths:
    """Where the files are, and whose names they carry."""

    certificate: Path
    """PEM: ours, then what lies between it and the trust bundle."""
    key: Path
    """PEM, without a password."""
    authorities: Path
    """PEM: whoever may have signed a peer's certificate; old and new while one replaces another."""
    trust_domain: str
    """Of the whole mesh, for example `mesh.example.org`."""


@dataclass(frozen=True)
class Material:
    """One set of files that fits together."""

    certificate: bytes
    key: bytes
    authorities: bytes
    room: str
    """Whom the certificate names."""
    not_after: datetime
    """When it ends."""

    def __repr__(self) -> str:
        return f"Material({self.room}, {self.not_after:%Y-%m-%dT%H:%M:%SZ})"

    def for_channel(self) -> grpc.ChannelCredentials:
        """Return what a client shows and believes."""
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)

    def for_server(self) -> grpc.ServerCertificateConfiguration:
        """Return what a server shows and believes."""
        pair = (self.key, self.certificate)
        return grpc.ssl_server_certificate_configuration([pair], self.authorities)


class TlsFiles:
    """The files of one process; asking is cheap, also from gRPC's own threads.

    Raises:
        OSError: A file cannot be read.
        ValueError: The files do not fit together.
    """

    def __init__(self, paths: TlsPaths, clock: Clock | None = None) -> None:
        self.paths = paths
        self.reloads = 0
        self.refused = 0
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._seen = self._look()
        self._material = read(paths, self._clock.now())
        self._looked_at = self._clock.monotonic()

    @property
    def trust_domain(self) -> str:
        """Name of the mesh in every certificate."""
        return self.paths.trust_domain

    def current(self) -> Material:
        """Return the newest set that fits together; the same object until the files change."""
        now = self._clock.monotonic()
        if now - self._looked_at < LOOK_S:
            return self._material
        with self._lock:
            self._looked_at = now
            try:
                seen = self._look()
                if seen != self._seen:
                    self._material = read(self.paths, self._clock.now())
                    # Only now: a set that is half written is read again at the next look.
                    self._seen = seen
                    self.reloads += 1
                    _log.info("tls_reloaded", not_after=self._material.not_after.isoformat())
            except OSError as error:
                self._refuse(type(error).__name__)
            except ValueError as error:
                self._refuse(str(error))
            return self._material

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        _log.warning("tls_refused", reason=reason)

    def for_server(self) -> grpc.ServerCredentials:
        """Return credentials that ask for a certificate and take new files at each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self.current().for_server(),
            lambda: self.current().for_server(),
            require_client_authentication=True,
        )

    def peer_name(self, room: str) -> str:
        """Return the DNS name that the certificate of a room carries."""
        return f"{room}.{self.trust_domain}"

    def caller(self, auth: Mapping[str, object]) -> str | None:
        """Return which room a verified certificate names; None where it is none of ours."""
        named = auth.get(_SPIFFE_PROPERTY)
        if not isinstance(named, list | tuple) or len(named) != 1:
            return None
        return _room(bytes(named[0]).decode("utf-8", "replace"), self.trust_domain)

    def _look(self) -> _Seen:
        files = (self.paths.certificate, self.paths.key, self.paths.authorities)
        found = [path.stat() for path in files]
        return tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in found)


def read(paths: TlsPaths, now: datetime) -> Material:
    """Read the files and check that they fit together, by showing them to ourselves.

    Raises:
        OSError: A file cannot be read.
        ValueError: What is wrong, without a byte of the files.
    """
    certificate, key, authorities = _bytes(paths)
    try:
        shown = _shown_to_ourselves(paths)
    except ssl.SSLCertVerificationError as error:
        raise ValueError(f"the certificate does not hold: {error.verify_message}") from None
    except ssl.SSLError:
        raise ValueError("certificate, key or authorities are malformed, or no pair") from None
    if (certificate, key, authorities) != _bytes(paths):
        # The check opens the files itself: what it saw must be what we take.
        raise ValueError("the files changed while they were read")
    not_before, not_after = (_time(shown[name]) for name in ("notBefore", "notAfter"))
    if not not_before <= now < not_after:
        raise ValueError("the certificate does not hold: it is not valid now")

    names = [name for name in shown.get("subjectAltName", ()) if isinstance(name, tuple)]
    uris = [text for kind, text in names if kind == "URI"]
    room = _room(uris[0], paths.trust_domain) if len(uris) == 1 else None
    if room is None:
        raise ValueError("the certificate names no room of the trust domain")
    if ("DNS", f"{room}.{paths.trust_domain}") not in names:
        raise ValueError("the certificate lacks the room's DNS name")
    return Material(certificate, key, authorities, room, not_after)


def _bytes(paths: TlsPaths) -> tuple[bytes, bytes, bytes]:
    """Return certificate, key and authorities."""
    files = (paths.certificate, paths.key, paths.authorities)
    certificate, key, authorities = (path.read_bytes() for path in files)
    return certificate, key, authorities


def _shown_to_ourselves(paths: TlsPaths) -> dict[str, Any]:
    """Return the certificate's fields as a peer would see them, after a handshake in memory.

    The standard library reads certificates in no other way, and the router may link nothing that
    could open a sealed request.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(paths.certificate, paths.key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(paths.authorities)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking, showing = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for _ in range(_FLIGHTS):
        for side in (asking, showing):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return dict(asking.getpeercert() or {})


def _time(text: object) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(text)), UTC)


def _room(spiffe_id: str, trust_domain: str) -> str | None:
    prefix = f"{_SCHEME}{trust_domain}/"
    room = spiffe_id.removeprefix(prefix)
    return room if spiffe_id.startswith(prefix) and room and "/" not in room else None
