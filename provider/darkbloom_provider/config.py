"""What the owner may set: `DARKBLOOM_PROVIDER_*` or `provider.toml` (`settings`); flags win."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.model_source import parse_source
from darkbloom_mesh.config import CommonConfig, Secret, Setting

from darkbloom_provider.home import Home
from darkbloom_provider.models.pins import parse_keys

MAX_MLX_CONCURRENCY = 8
"""Rows that the mlx engine generates at once."""
MAX_PORT = 65_535
CACHE_FORMAT = "kv3"
"""Folder of the SSD tier; another format has another one."""
_GROUP = re.compile(r"[A-Z0-9]{10}(\.[A-Za-z0-9-]+)+\Z")


@dataclass(frozen=True, kw_only=True)
class ProviderConfig(CommonConfig):
    """The agent's configuration."""

    home: Annotated[Path, Setting("folder of identity, state and models; made private")] = Path(
        "~/.darkbloom"
    )
    config: Annotated[
        Path | None,
        Setting(
            "`provider.toml` to read; unset: in `~/.config/darkbloom`, or in a home that is set"
        ),
    ] = None
    coordinator: Annotated[
        str, Setting("host:port of the router's provider listener; several with commas between")
    ] = "127.0.0.1:8443"
    coordinator_tls: Annotated[
        bool, Setting("dial with TLS; only development may switch it off")
    ] = True
    coordinator_ca_file: Annotated[
        Path | None, Setting("PEM of the roots to trust for it; unset: the public ones")
    ] = None
    gateway: Annotated[
        str | None,
        Setting("base URL of the gateway, for `darkbloom login`; https outside development"),
    ] = None
    engine: Annotated[
        Literal["mlx", "scripted"], Setting("`scripted` serves only builds of `dev/`")
    ] = "mlx"
    models_dir: Annotated[Path | None, Setting("model store; unset: `models` in the home")] = None
    model_mirrors: Annotated[
        tuple[str, ...],
        Setting("folders asked first for builds: https, s3 or file URLs with commas between"),
    ] = ()
    manifest_keys: Annotated[
        tuple[str, ...],
        Setting("keys that may sign manifests, base64; unset: those first seen at the gateway"),
    ] = ()
    prefetch: Annotated[
        bool, Setting("download what the network wants of the models that are served here")
    ] = True
    exchange_jitter_s: Annotated[
        float,
        Setting(
            "longest random wait before a new version takes the place of a served one",
            minimum=0,
            maximum=3600,
        ),
    ] = 60.0
    hugging_face_url: Annotated[str, Setting("base URL of the Hugging Face hub")] = (
        "https://huggingface.co"
    )
    s3_endpoint: Annotated[
        str, Setting("base URL of the store behind `s3:` places; empty: Amazon's")
    ] = ""
    s3_region: Annotated[str, Setting("its region")] = "us-east-1"
    s3_access_key_id: Annotated[
        Secret | None, Setting("its key; unset: requests are not signed", env="AWS_ACCESS_KEY_ID")
    ] = None
    s3_secret_access_key: Annotated[
        Secret | None, Setting("its secret", env="AWS_SECRET_ACCESS_KEY")
    ] = None
    models: Annotated[
        tuple[str, ...], Setting("build ids to serve; unset: every model in the store")
    ] = ()
    name: Annotated[str, Setting("what the owner calls this machine")] = ""
    private_only: Annotated[bool, Setting("serve only the owner's requests")] = False
    memory_reserve_gb: Annotated[
        float, Setting("memory withheld from models, for whoever uses this machine", minimum=0)
    ] = 4.0
    auto_update: Annotated[bool, Setting("install updates by itself")] = True
    auto_restart: Annotated[bool, Setting("let the watchdog start a crashed agent again")] = True
    release_keys_file: Annotated[
        Path | None,
        Setting("JSON of the release keys that updates must be signed with; unset: no updates"),
    ] = None
    update_jitter_seconds: Annotated[
        int, Setting("longest random delay of an automatic update", minimum=0, maximum=3600)
    ] = 300
    heartbeat_interval_s: Annotated[
        float, Setting("seconds between heartbeats", minimum=0.1, maximum=60)
    ] = 5.0
    kv_budget_gb: Annotated[
        float | None, Setting("memory for running requests; unset: by the memory rule", minimum=0)
    ] = None
    prefix_cache_memory_gb: Annotated[
        float | None,
        Setting(
            "part of it that keeps beginnings of prompts; 0: none; unset: an eighth, at most 1",
            minimum=0,
        ),
    ] = None
    prefix_cache_disk: Annotated[
        bool, Setting("keep them on the disk as well, encrypted, for half an hour after their use")
    ] = False
    prefix_cache_disk_gb: Annotated[
        float | None, Setting("most of it; unset: half of what is free", minimum=0)
    ] = None
    prefix_cache_ttl_secs: Annotated[
        float,
        Setting("seconds from a block's last use to its removal", minimum=1, maximum=1800),
    ] = 1800.0
    prefix_cache_dir: Annotated[
        Path | None, Setting("where; unset: the system's folder for caches, or `cache` in the home")
    ] = None
    max_concurrency: Annotated[
        int | None,
        Setting("requests that a model answers at a time; unset: 8, scripted 4096", minimum=1),
    ] = None
    max_model_slots: Annotated[
        int, Setting("models in memory at a time; others are loaded on demand", minimum=1)
    ] = 3
    idle_timeout_mins: Annotated[
        int,
        Setting("minutes without a request after which a model is unloaded; 0: never", minimum=0),
    ] = 60
    startup_preload: Annotated[bool, Setting("load models before registering")] = True
    preload_models: Annotated[
        tuple[str, ...], Setting("which of them to load first; unset: in the order of the store")
    ] = ()
    startup_preload_timeout_secs: Annotated[
        float, Setting("register without the rest after so long", minimum=1, maximum=3600)
    ] = 120.0
    startup_selftest: Annotated[bool, Setting("let each loaded model answer one token")] = True
    startup_selftest_fail_closed: Annotated[
        bool, Setting("a model that fails its self-test is not served")
    ] = False
    keychain_group: Annotated[
        str | None,
        Setting(
            "keychain group of the Secure Enclave key; unset: a key in a file. The app sets it"
        ),
    ] = None
    launcher_fd: Annotated[
        int | None,
        Setting("inherited socket of the launcher; only the launcher sets it", minimum=3),
    ] = None
    script: Annotated[str, Setting("JSON directive of the scripted engine, for tests and load")] = (
        ""
    )

    @property
    def folders(self) -> Home:
        """The home, with `~` expanded."""
        return Home(root=self.home.expanduser())

    @property
    def coordinators(self) -> tuple[str, ...]:
        """Each address of the router."""
        return tuple(item.strip() for item in self.coordinator.split(","))

    @property
    def prefix_cache_root(self) -> Path:
        """Where the SSD tier of the prefix cache lies."""
        if self.prefix_cache_dir is not None:
            return self.prefix_cache_dir.expanduser() / CACHE_FORMAT
        return self.folders.cache / CACHE_FORMAT

    @property
    def store_root(self) -> Path:
        """Where models are kept."""
        return self.models_dir.expanduser() if self.models_dir else self.folders.models

    def problems(self) -> Iterator[str]:
        """Refuse a plaintext link outside development, and what cannot work."""
        yield from super().problems()
        if not self.coordinator_tls and self.environment != "development":
            yield "DARKBLOOM_PROVIDER_COORDINATOR_TLS: only DARKBLOOM_ENV=development may be false"
        if self.coordinator_ca_file is not None and not self.coordinator_tls:
            yield "DARKBLOOM_PROVIDER_COORDINATOR_CA_FILE: has no use without TLS"
        if self.keychain_group is not None and _GROUP.match(self.keychain_group) is None:
            yield "DARKBLOOM_PROVIDER_KEYCHAIN_GROUP: must be <team>.<bundle id>"
        plain = ("http://",) if self.environment == "development" else ()
        if self.gateway is not None and not self.gateway.startswith(("https://", *plain)):
            yield "DARKBLOOM_PROVIDER_GATEWAY: must be an https URL"
        yield from self._problems_of_models()
        for address in self.coordinators:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) <= MAX_PORT:
                yield "DARKBLOOM_PROVIDER_COORDINATOR: must be host:port"
        if self.engine == "mlx" and (self.max_concurrency or 0) > MAX_MLX_CONCURRENCY:
            yield (
                "DARKBLOOM_PROVIDER_MAX_CONCURRENCY: "
                f"at most {MAX_MLX_CONCURRENCY} with the mlx engine"
            )

    def _problems_of_models(self) -> Iterator[str]:
        plain_http = self.environment == "development"
        for name, texts in (
            ("MODEL_MIRRORS", self.model_mirrors),
            ("HUGGING_FACE_URL", (self.hugging_face_url,)),
            ("S3_ENDPOINT", (self.s3_endpoint,) if self.s3_endpoint else ()),
        ):
            for text in texts:
                try:
                    parse_source(text, plain_http=plain_http)
                except MalformedError as error:
                    yield f"DARKBLOOM_PROVIDER_{name}: {error.what}"
        try:
            parse_keys(self.manifest_keys)
        except MalformedError as error:
            yield f"DARKBLOOM_PROVIDER_MANIFEST_KEYS: {error.what}"
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            yield "DARKBLOOM_PROVIDER_S3_ACCESS_KEY_ID: key and secret go together"
