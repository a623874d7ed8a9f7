"""The catalog as requests see it: names to builds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from darkbloom_gateway.errors import alias_unroutable, model_not_found
from darkbloom_gateway.install import Install

_ALL = 100


@dataclass(frozen=True, slots=True)
class Build:
    """One concrete set of weights that may be served."""

    build_id: str
    display_name: str = ""
    description: str = ""
    quantization: str = ""
    model_type: str = "text"
    hugging_face_id: str = ""
    marketplace_slug: str = ""
    deprecation_date: str = ""
    max_context_length: int = 0
    max_output_length: int = 0
    capabilities: tuple[str, ...] = ()
    accepted_weight_hashes: frozenset[str] = frozenset()
    created: int = 0
    """Unix seconds."""
    install: Install | None = None
    """What a machine must know to fetch it; None where no version is known."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A public name of a build."""

    alias_id: str
    display_name: str
    desired_build: str
    previous_build: str
    active: bool
    percent: int = 100
    """Share of accounts that get the desired build."""


@dataclass(frozen=True, slots=True)
class MarketplaceAlias:
    """A name that requests may use and only the feed of marketplaces shows."""

    alias_id: str
    display_name: str
    source_model: str
    """Alias or build."""
    marketplace_slug: str = ""
    hugging_face_id: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name stands for at the moment."""

    name: str
    display_name: str
    build: Build
    fallback_build: str = ""
    """Build that may serve instead, empty for none."""
    marketplace_slug: str = ""
    """What marketplaces call it; empty: nothing."""
    hugging_face_id: str = ""

    @property
    def builds(self) -> tuple[str, ...]:
        """The builds that may answer, the first choice first."""
        named = (self.build.build_id, self.fallback_build)
        return tuple(build for build in named if build)


def in_share(alias: Alias, account_id: str) -> bool:
    """Return whether an account belongs to the share that a rollout has reached."""
    digest = hashlib.sha256(f"{alias.alias_id}\0{account_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < alias.percent / _ALL


class Catalog:
    """One generation of the catalog; immutable."""

    def __init__(
        self,
        generation: int,
        builds: Mapping[str, Build],
        aliases: Mapping[str, Alias],
        marketplaces: Mapping[str, MarketplaceAlias] = MappingProxyType({}),
    ) -> None:
        self.generation = generation
        self.builds = builds
        self._aliases = {name: alias for name, alias in aliases.items() if alias.active}
        self._marketplaces = marketplaces

    def resolve(self, name: str, account_id: str = "") -> Resolution:
        """Resolve what a consumer called a model.

        While a rollout moves a name, an account outside of its share gets the build before and
        never the new one; the others get the new one, and the one before where that cannot serve.

        Args:
            name: alias or build.
            account_id: who asks; empty where nobody does, and the desired build is shown.

        Raises:
            ApiError: 404 for an unknown name, 503 for an alias whose builds are all gone.
        """
        followed = self._marketplaces.get(name)
        if followed is None or name in self._aliases or name in self.builds:
            return self._resolve(name, account_id)
        source = followed.source_model
        if source not in self._aliases and source not in self.builds:
            raise alias_unroutable()
        found = self._resolve(source, account_id)
        return replace(
            found,
            name=name,
            display_name=followed.display_name or name,
            marketplace_slug=followed.marketplace_slug or found.marketplace_slug,
            hugging_face_id=followed.hugging_face_id or found.hugging_face_id,
        )

    def _resolve(self, name: str, account_id: str) -> Resolution:
        alias = self._aliases.get(name)
        if alias is None:
            build = self.builds.get(name)
            if build is None:
                raise model_not_found()
            return _resolution(name, build.display_name, build)

        named = (alias.desired_build, alias.previous_build)
        routable = [build_id for build_id in named if build_id in self.builds]
        if not routable:
            raise alias_unroutable()
        if account_id and alias.percent < _ALL and len(routable) > 1:
            routable = routable if in_share(alias, account_id) else routable[1:]
        other = routable[1] if len(routable) > 1 and routable[1] != routable[0] else ""
        return _resolution(name, alias.display_name, self.builds[routable[0]], other)

    def aliases(self) -> list[Alias]:
        """Return the active public names, by id."""
        return [alias for _, alias in sorted(self._aliases.items())]

    def listed(self, *, include_builds: bool = False) -> list[Resolution]:
        """Return what the model list shows: aliases, then builds that no alias covers."""
        aliases = [
            self.resolve(name)
            for name, alias in sorted(self._aliases.items())
            if alias.desired_build in self.builds or alias.previous_build in self.builds
        ]
        covered = {
            build_id
            for alias in self._aliases.values()
            for build_id in (alias.desired_build, alias.previous_build)
        }
        builds = [
            self.resolve(build_id)
            for build_id in sorted(self.builds)
            if build_id not in self._aliases and (include_builds or build_id not in covered)
        ]
        return aliases + builds

    def for_marketplaces(self) -> list[Resolution]:
        """Return the names that only marketplaces see, of models that can be served."""
        return [
            self.resolve(name)
            for name, alias in sorted(self._marketplaces.items())
            if self._servable(alias.source_model)
        ]

    def _servable(self, name: str) -> bool:
        alias = self._aliases.get(name)
        named = (name,) if alias is None else (alias.desired_build, alias.previous_build)
        return any(build in self.builds for build in named)


def _resolution(name: str, display_name: str, build: Build, fallback: str = "") -> Resolution:
    return Resolution(
        name, display_name or name, build, fallback, build.marketplace_slug, build.hugging_face_id
    )
