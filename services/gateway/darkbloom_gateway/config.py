"""Configuration of the gateway: `DARKBLOOM_GATEWAY_<FIELD>`."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from darkbloom_edge.apple.enrolment import EnrolmentSettings
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.sealing_keys import KeyRing
from darkbloom_mesh.config import RoomConfig, Secret, Setting

from darkbloom_gateway.buckets import Rate
from darkbloom_gateway.confidential.quotes import REPORTS
from darkbloom_gateway.console.sign_in import SignIn
from darkbloom_gateway.hints import SECRET_BYTES
from darkbloom_gateway.media.addresses import Network, name_of
from darkbloom_gateway.pins import read_admin_key, read_pins
from darkbloom_gateway.sealing_ring import read_ring
from darkbloom_gateway.tiers import Tier, Tiers

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class GatewayConfig(RoomConfig):
    """Everything that the gateway reads from its environment."""

    drain_grace_s: Annotated[
        float, Setting("seconds for in-flight answers after SIGTERM", minimum=0)
    ] = 600.0
    listen: Annotated[str, Setting("host:port of the public HTTP listener")] = "127.0.0.1:8080"
    name: Annotated[str, Setting("stable name of this process, e.g. its pod name")] = "gateway"
    workers: Annotated[int, Setting("processes behind the port", minimum=1, maximum=64)] = 1
    router_target: Annotated[
        str,
        Setting("router, internal listener; several with commas, or one name of several addresses"),
    ] = "127.0.0.1:7101"
    billing_target: Annotated[str, Setting("billing")] = "127.0.0.1:7102"
    attestation_target: Annotated[str, Setting("attestation")] = "127.0.0.1:7103"
    registry_target: Annotated[str, Setting("registry")] = "127.0.0.1:7104"
    redis_url: Annotated[Secret, Setting("Valkey, for rate buckets", env="REDIS_URL")]
    state_dir: Annotated[
        Path | None, Setting("keeps the last good catalog; unset keeps it in memory only")
    ] = None
    models_url: Annotated[
        str, Setting("base URL of the store that has every build under its prefix; empty: none")
    ] = ""
    tokenizers_dir: Annotated[
        Path | None,
        Setting("store of models, for their tokenizers; unset counts bytes instead of tokens"),
    ] = None
    verdict_keys_file: Annotated[
        Path | None,
        Setting("pins attestation's keys (JSON, key id to base64); unset trusts what it publishes"),
    ] = None

    trust_floor: Annotated[
        Literal["none", "self_signed", "hardware"], Setting("lowest level of a public provider")
    ] = "hardware"
    cors_origin: Annotated[
        str, Setting("the one origin that browsers may call from; empty allows localhost only")
    ] = ""
    request_rate: Annotated[float, Setting("requests per second and account", minimum=0.01)] = 20.0
    request_burst: Annotated[int, Setting("burst of an account", minimum=1)] = 120
    input_tokens: Annotated[
        int, Setting("prompt tokens per minute and account; 0 lifts it", minimum=0)
    ] = 5_000_000
    input_burst: Annotated[int, Setting("burst of them", minimum=1)] = 1_000_000
    output_tokens: Annotated[
        int, Setting("output tokens per minute and account; 0 lifts it", minimum=0)
    ] = 500_000
    output_burst: Annotated[int, Setting("burst of them", minimum=1)] = 64_000
    service_rate: Annotated[float, Setting("requests, role service; 0 lifts it", minimum=0)] = 200.0
    service_burst: Annotated[int, Setting("burst of a service account", minimum=1)] = 600
    console_url: Annotated[
        str, Setting("where people sign in; device codes are typed at its /link")
    ] = "http://localhost:8080/console"
    sign_in_authorize_url: Annotated[
        str, Setting("the issuer's page that the console sends people to; empty: no sign-in")
    ] = ""
    sign_in_token_url: Annotated[
        str, Setting("where the console changes its code for a login; must allow its origin")
    ] = ""
    sign_in_client_id: Annotated[str, Setting("what the issuer calls the console")] = ""
    admin_key_file: Annotated[
        Path | None, Setting("file with the operator's key; unset: there is none")
    ] = None
    hint_key_file: Annotated[
        Path | None,
        Setting(
            "32 bytes of all gateways for prefix hints and cache scopes; unset: each worker its own"
        ),
    ] = None
    sealing_keys_file: Annotated[
        Path | None,
        Setting("keys of sealed requests, shared by all gateways; unset: there are none"),
    ] = None
    quote_reports_dir: Annotated[
        Path,
        Setting("the kernel's configfs-tsm reports, or one prepared entry; absent: no quote"),
    ] = REPORTS
    image_digest: Annotated[
        str,
        Setting("digest of the running image; the operator's word", env="DARKBLOOM_IMAGE_DIGEST"),
    ] = ""
    sealed_replay_s: Annotated[
        float, Setting("seconds that a sealed request is remembered", minimum=900, maximum=86_400)
    ] = 3600.0
    service_input_tokens: Annotated[
        int, Setting("prompt tokens per minute, role service; 0 lifts it", minimum=0)
    ] = 50_000_000
    service_input_burst: Annotated[int, Setting("burst of them", minimum=1)] = 5_000_000
    service_output_tokens: Annotated[
        int, Setting("output tokens per minute, role service; 0 lifts it", minimum=0)
    ] = 5_000_000
    service_output_burst: Annotated[int, Setting("burst of them", minimum=1)] = 512_000
    service_output_estimate: Annotated[
        bool, Setting("a service account claims a quarter of its output bound, the rest when known")
    ] = False
    financial_rate: Annotated[
        float, Setting("changes of money and keys per second and account", minimum=0.001)
    ] = 0.2
    financial_burst: Annotated[int, Setting("burst of them", minimum=1)] = 3
    address_rate: Annotated[
        float, Setting("calls without a credential per second and address", minimum=0.001)
    ] = 1.0
    address_burst: Annotated[int, Setting("burst of them", minimum=1)] = 20
    network_rate: Annotated[
        float,
        Setting(
            "requests per second and address before any credential is read, each worker by itself;"
            " 0 lifts it",
            minimum=0,
        ),
    ] = 400.0
    network_burst: Annotated[int, Setting("burst of them", minimum=1)] = 4000
    max_connections: Annotated[int, Setting("connections per worker", minimum=1)] = 8192
    max_network_connections: Annotated[
        int, Setting("connections per worker and address, where no proxy stands before", minimum=1)
    ] = 512
    proxies: Annotated[
        int, Setting("proxies of ours in front that append to X-Forwarded-For", minimum=0)
    ] = 0
    key_cache_s: Annotated[float, Setting("life of a cached key", minimum=0, maximum=60)] = 60.0
    default_output_bound: Annotated[
        int, Setting("tokens, where neither request nor catalog says", minimum=1)
    ] = 8192
    max_inflight: Annotated[int, Setting("inference requests per worker", minimum=1)] = 1024
    remote_media: Annotated[bool, Setting("whether chat fetches images named by https urls")] = True
    media_blocked_hosts: Annotated[
        str, Setting("hosts that are never asked for them, with all below them; commas")
    ] = ""
    media_blocked_networks: Annotated[
        str, Setting("networks that are never asked for them, although public; CIDR, commas")
    ] = ""
    max_body_bytes: Annotated[int, Setting("largest inference body", minimum=1)] = 16 * 1024 * 1024

    enrolment_base_url: Annotated[
        str | None, Setting("https URL of the management server of Macs; unset: there is none")
    ] = None
    enrolment_push_topic: Annotated[
        str | None, Setting("`com.apple.mgmt.External.<uuid>` of its push certificate")
    ] = None

    mdm_webhook_secret: Annotated[
        Secret | None, Setting("what the management server shows with its callbacks; unset: none")
    ] = None

    headers_s: Annotated[float, Setting("seconds for a request's headers", minimum=0.1)] = 10.0
    body_idle_s: Annotated[float, Setting("longest pause inside a body", minimum=0.1)] = 10.0
    idle_s: Annotated[float, Setting("life of an idle connection", minimum=1)] = 120.0
    send_stall_s: Annotated[
        float, Setting("longest time a client may stop reading", minimum=0.1)
    ] = 120.0
    rpc_s: Annotated[float, Setting("deadline of calls to other rooms", minimum=0.1)] = 5.0
    lane_wait_s: Annotated[
        float, Setting("how long a request waits for a lost router", minimum=0)
    ] = 10.0
    first_content_s: Annotated[
        float, Setting("no content by then ends the request", minimum=0.1)
    ] = 300.0
    silence_s: Annotated[float, Setting("longest silence after commit", minimum=0.1)] = 600.0
    terminal_s: Annotated[
        float, Setting("wait for the terminal after the last chunk", minimum=0.1)
    ] = 2.0
    keepalive_s: Annotated[
        float, Setting("silence after which a stream gets a comment", minimum=0.1)
    ] = 15.0
    early_commit_s: Annotated[
        float, Setting("wait for a true status before an early commit", minimum=0)
    ] = 1.0
    drain_linger_s: Annotated[
        float, Setting("how long a draining gateway still answers 429", minimum=0)
    ] = 0.0

    @property
    def routers(self) -> tuple[str, ...]:
        """Each target of the router."""
        return tuple(item.strip() for item in self.router_target.split(","))

    def problems(self) -> Iterator[str]:
        """Refuse a listener without a port, and a floor that production must not have."""
        yield from super().problems()
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isdecimal():
            yield "DARKBLOOM_GATEWAY_LISTEN: not host:port"
        if self.image_digest and not _DIGEST.fullmatch(self.image_digest):
            yield "DARKBLOOM_GATEWAY_IMAGE_DIGEST: not sha256: and 64 hex digits"
        for target in self.routers:
            name, _, number = target.rpartition(":")
            if not name or not number.isdecimal():
                yield "DARKBLOOM_GATEWAY_ROUTER_TARGET: not host:port"
        if self.environment == "production" and self.trust_floor != "hardware":
            yield "DARKBLOOM_GATEWAY_TRUST_FLOOR: below hardware only in development"
        checks: tuple[tuple[str, Callable[[], object]], ...] = (
            ("SIGN_IN_TOKEN_URL", self.sign_in),
            ("VERDICT_KEYS_FILE", self.pins),
            ("ADMIN_KEY_FILE", self.admin_hash),
            ("SEALING_KEYS_FILE", self.sealing_ring),
            ("HINT_KEY_FILE", self.hint_secret),
        )
        for name, check in checks:
            try:
                check()
            except ValueError as error:
                yield f"DARKBLOOM_GATEWAY_{name}: {error}"
        try:
            self.enrolment()
        except MalformedError as error:
            yield f"DARKBLOOM_GATEWAY_ENROLMENT_{(error.field or '').upper()}: {error.what}"

    def sign_in(self) -> SignIn | None:
        """Return where people of the console sign in; None where they cannot.

        Raises:
            ValueError: only some of it is set, or a URL is not https.
        """
        parts = (self.sign_in_authorize_url, self.sign_in_token_url, self.sign_in_client_id)
        return SignIn(*parts) if any(parts) else None

    def admin_hash(self) -> bytes | None:
        """Return the hash of the operator's key; None where there is none.

        Raises:
            ValueError: the file cannot be read, or holds too short a key.
        """
        return None if self.admin_key_file is None else read_admin_key(self.admin_key_file)

    def sealing_ring(self) -> KeyRing:
        """Return the keys of sealed requests; an empty ring where there are none.

        Raises:
            ValueError: the file cannot be read, or is none.
        """
        return KeyRing() if self.sealing_keys_file is None else read_ring(self.sealing_keys_file)

    def enrolment(self) -> EnrolmentSettings | None:
        """Return where Macs enrol; None where they do not.

        Raises:
            MalformedError: only one of the two is set, or one is not what it must be.
        """
        if self.enrolment_base_url is None and self.enrolment_push_topic is None:
            return None
        return EnrolmentSettings(
            base_url=self.enrolment_base_url or "", push_topic=self.enrolment_push_topic or ""
        )

    def blocked_hosts(self) -> frozenset[str]:
        """Return the hosts that are never asked for media.

        Raises:
            ValueError: one cannot be a host.
        """
        names = (name.strip().strip(".") for name in self.media_blocked_hosts.split(","))
        return frozenset(name_of(name) for name in names if name)

    def blocked_networks(self) -> tuple[Network, ...]:
        """Return the networks that are never asked for media, although they are public.

        Raises:
            ValueError: one is none.
        """
        texts = (text.strip() for text in self.media_blocked_networks.split(","))
        return tuple(ipaddress.ip_network(text) for text in texts if text)

    def hint_secret(self) -> bytes:
        """Return the secret of prefix hints; empty where every worker makes its own.

        Raises:
            ValueError: the file cannot be read, or holds fewer than 32 bytes.
        """
        if self.hint_key_file is None:
            return b""
        try:
            found = self.hint_key_file.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from None
        if len(found) != SECRET_BYTES:
            # Text ends with a line; one key of bytes in twenty begins or ends with what looks so.
            found = found.strip()
        if len(found) < SECRET_BYTES:
            raise ValueError("must hold at least 32 bytes")
        return found

    def arrivals(self) -> Rate | None:
        """Return how many requests of one network come in at all; None: any number."""
        return Rate(self.network_rate, self.network_burst) if self.network_rate > 0 else None

    def tiers(self) -> Tiers:
        """Return the limits of inference by role."""
        return Tiers(
            account=Tier(
                Rate(self.request_rate, self.request_burst),
                _per_minute(self.input_tokens, self.input_burst),
                _per_minute(self.output_tokens, self.output_burst),
            ),
            service=Tier(
                Rate(self.service_rate, self.service_burst) if self.service_rate > 0 else None,
                _per_minute(self.service_input_tokens, self.service_input_burst),
                _per_minute(self.service_output_tokens, self.service_output_burst),
                estimates_output=self.service_output_estimate,
            ),
        )

    def pins(self) -> dict[str, bytes] | None:
        """Read the pinned keys; None where none are pinned.

        Raises:
            ValueError: the file is not one of pinned keys.
        """
        return None if self.verdict_keys_file is None else read_pins(self.verdict_keys_file)

    def address(self) -> tuple[str, int]:
        """Return host and port of the public listener."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def _per_minute(tokens: int, burst: int) -> Rate | None:
    return Rate(tokens / 60, burst) if tokens else None
