"""The nouns of the registry: builds, versions, aliases and the catalog of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class BuildStatus(StrEnum):
    """Life of a build. Beta and active ones are listed and routable."""

    BETA = "beta"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    RETIRED = "retired"


class VersionState(StrEnum):
    """Life of a version. Active and retained hashes are accepted for routing and challenges."""

    READY = "ready"
    ACTIVE = "active"
    RETAINED = "retained"
    RETIRED = "retired"


LISTED = frozenset({BuildStatus.BETA, BuildStatus.ACTIVE})
"""Statuses of builds that consumers see."""
ACCEPTED = (VersionState.ACTIVE, VersionState.RETAINED)
"""States whose weight hash a provider may serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """What a publisher says about a build, once, at its first registration."""

    id: str
    display_name: str
    family: str
    architecture: str
    quantization: str
    max_context_length: int
    """Tokens of prompt and completion together."""
    max_output_length: int
    """Tokens."""
    min_ram_gb: int
    """Memory of the whole machine."""
    capabilities: tuple[str, ...]
    required_provider_capabilities: tuple[str, ...]
    status: BuildStatus
    description: str
    model_type: str
    hugging_face_id: str
    deprecation_date: str
    """YYYY-MM-DD, or empty."""
    runtime_parameters_json: str
    """A JSON object, or empty."""
    marketplace_slug: str = ""
    """What marketplaces call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What a chat template made of fixtures."""

    template_sha256: str
    """Of its source, hex; empty: there is no template."""
    fixtures: Mapping[str, str]
    """SHA-256 of each rendered fixture, hex, by its name; empty where it does not render."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One immutable upload of a build."""

    version: str
    state: VersionState
    aggregate_sha256: str
    """The weight hash, 64 hex characters."""
    identity_sha256: str
    total_size_bytes: int
    file_count: int
    register_time: datetime
    sources: tuple[str, ...] = ()
    """Where its files may be fetched, best first."""
    template: Rendering | None = None
    """None where nobody sent the template's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build with all its versions, oldest first."""

    facts: BuildFacts
    create_time: datetime
    versions: tuple[Version, ...]

    @property
    def active(self) -> Version | None:
        """The version that consumers get, if one was ever promoted."""
        return next((v for v in self.versions if v.state is VersionState.ACTIVE), None)

    @property
    def accepted_weight_hashes(self) -> tuple[str, ...]:
        """Hashes that routing and challenges accept, the active one first."""
        accepted = (
            version.aggregate_sha256
            for state in ACCEPTED
            for version in self.versions
            if version.state is state
        )
        return tuple(dict.fromkeys(accepted))

    @property
    def routable(self) -> bool:
        """Whether the catalog has it: a listed status and an active version."""
        return self.listed and self.active is not None

    @property
    def listed(self) -> bool:
        """Whether its status is one that consumers see."""
        return self.facts.status in LISTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A public name, pointing at builds."""

    alias_id: str
    display_name: str
    desired_build: str
    previous_build: str
    """Empty when there is none."""
    active: bool
    traffic_percent: int | None
    """Share of accounts on the desired build; None means all."""
    retired_builds: tuple[str, ...] = ()
    """Builds that the name pointed at before."""
    takeover: bool = False
    """The name is the id of a build, too, which stands behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketplaceAlias:
    """A name that requests may use and only marketplaces are shown."""

    alias_id: str
    display_name: str
    source_model: str
    """Alias or build."""
    marketplace_slug: str
    """Empty: that of the build."""
    hugging_face_id: str
    """Empty: that of the build."""
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What may be routed and listed, at one generation."""

    generation: int
    builds: Sequence[Build]
    """Routable ones, by id."""
    aliases: Sequence[Alias]
    """Active ones, by id."""
    marketplace_aliases: Sequence[MarketplaceAlias] = ()
    """Active ones, by id."""
