"""Protobuf to the registry's nouns and back; pure and total."""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime

from darkbloom.common.v1 import page_pb2
from darkbloom.registry.v1 import catalog_pb2
from darkbloom_mesh.errors import InvalidArgumentError
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_registry.model import (
    Alias,
    Build,
    BuildFacts,
    BuildStatus,
    Catalog,
    MarketplaceAlias,
    Version,
    VersionState,
)

DEFAULT_PAGE = 100
"""Entries of a page when the caller does not say."""
MAX_PAGE = 1000
"""Most entries of a page."""

_STATUS_FROM: Mapping[int, BuildStatus] = {
    # A new build is on trial until its publisher says otherwise.
    catalog_pb2.BUILD_STATUS_UNSPECIFIED: BuildStatus.BETA,
    catalog_pb2.BUILD_STATUS_BETA: BuildStatus.BETA,
    catalog_pb2.BUILD_STATUS_ACTIVE: BuildStatus.ACTIVE,
    catalog_pb2.BUILD_STATUS_DEPRECATED: BuildStatus.DEPRECATED,
    catalog_pb2.BUILD_STATUS_RETIRED: BuildStatus.RETIRED,
}
_STATUS_TO = {
    BuildStatus.BETA: catalog_pb2.BUILD_STATUS_BETA,
    BuildStatus.ACTIVE: catalog_pb2.BUILD_STATUS_ACTIVE,
    BuildStatus.DEPRECATED: catalog_pb2.BUILD_STATUS_DEPRECATED,
    BuildStatus.RETIRED: catalog_pb2.BUILD_STATUS_RETIRED,
}
_STATE_TO = {
    VersionState.READY: catalog_pb2.VERSION_STATE_READY,
    VersionState.ACTIVE: catalog_pb2.VERSION_STATE_ACTIVE,
    VersionState.RETAINED: catalog_pb2.VERSION_STATE_RETAINED,
    VersionState.RETIRED: catalog_pb2.VERSION_STATE_RETIRED,
}


def facts_from(build: catalog_pb2.Build) -> BuildFacts:
    """Read what a publisher says; derived fields are ignored.

    Raises:
        InvalidArgumentError: the status is none that this registry knows.
    """
    status = _STATUS_FROM.get(build.status)
    if status is None:
        raise InvalidArgumentError("not a known status", "build.status")

    return BuildFacts(
        id=build.id,
        display_name=build.display_name,
        family=build.family,
        architecture=build.architecture,
        quantization=build.quantization,
        max_context_length=build.max_context_length,
        max_output_length=build.max_output_length,
        min_ram_gb=build.min_ram_gb,
        capabilities=tuple(build.capabilities),
        required_provider_capabilities=tuple(build.required_provider_capabilities),
        status=status,
        description=build.description,
        model_type=build.model_type,
        hugging_face_id=build.hugging_face_id,
        deprecation_date=build.deprecation_date,
        runtime_parameters_json=build.runtime_parameters_json,
        marketplace_slug=build.marketplace_slug,
    )


def status_from(number: int) -> BuildStatus:
    """Read what shall become of a build.

    Raises:
        InvalidArgumentError: unset, or none that this registry knows.
    """
    status = _STATUS_FROM.get(number) if number else None
    if status is None:
        raise InvalidArgumentError("not a known status", "status")
    return status


def build_to(build: Build) -> catalog_pb2.Build:
    """Write a build with its versions and the facts of the active one."""
    facts, active = build.facts, build.active
    message = catalog_pb2.Build(
        id=facts.id,
        display_name=facts.display_name,
        family=facts.family,
        architecture=facts.architecture,
        quantization=facts.quantization,
        max_context_length=facts.max_context_length,
        max_output_length=facts.max_output_length,
        min_ram_gb=facts.min_ram_gb,
        capabilities=facts.capabilities,
        required_provider_capabilities=facts.required_provider_capabilities,
        status=_STATUS_TO[facts.status],
        description=facts.description,
        model_type=facts.model_type,
        hugging_face_id=facts.hugging_face_id,
        deprecation_date=facts.deprecation_date,
        runtime_parameters_json=facts.runtime_parameters_json,
        marketplace_slug=facts.marketplace_slug,
        accepted_weight_hashes=build.accepted_weight_hashes,
        create_time=timestamp(build.create_time),
        versions=map(_version_to, build.versions),
    )
    if active is not None:
        message.active_version = active.version
        message.weight_hash = active.aggregate_sha256
        message.identity_hash = active.identity_sha256
        message.size_bytes = active.total_size_bytes

    return message


def state_to(state: VersionState | None) -> catalog_pb2.VersionState.ValueType:
    """Write the state of a version; None is no version."""
    return _STATE_TO[state] if state is not None else catalog_pb2.VERSION_STATE_UNSPECIFIED


def alias_from(alias: catalog_pb2.Alias) -> Alias:
    """Read an alias as wanted; the memory of retired builds is the registry's own."""
    return Alias(
        alias_id=alias.alias_id,
        display_name=alias.display_name,
        desired_build=alias.desired_build,
        previous_build=alias.previous_build,
        active=alias.active,
        traffic_percent=alias.traffic_percent if alias.HasField("traffic_percent") else None,
        takeover=alias.takeover,
    )


def alias_to(alias: Alias) -> catalog_pb2.Alias:
    """Write an alias as stored."""
    return catalog_pb2.Alias(
        alias_id=alias.alias_id,
        display_name=alias.display_name,
        desired_build=alias.desired_build,
        previous_build=alias.previous_build,
        active=alias.active,
        traffic_percent=alias.traffic_percent,
        retired_builds=alias.retired_builds,
        takeover=alias.takeover,
    )


def marketplace_alias_from(alias: catalog_pb2.MarketplaceAlias) -> MarketplaceAlias:
    """Read a name for marketplaces as wanted."""
    return MarketplaceAlias(
        alias_id=alias.alias_id,
        display_name=alias.display_name,
        source_model=key_from(alias.source_model, "alias.source_model"),
        marketplace_slug=alias.marketplace_slug,
        hugging_face_id=alias.hugging_face_id,
        active=alias.active,
    )


def marketplace_alias_to(alias: MarketplaceAlias) -> catalog_pb2.MarketplaceAlias:
    """Write a name for marketplaces as stored."""
    return catalog_pb2.MarketplaceAlias(
        alias_id=alias.alias_id,
        display_name=alias.display_name,
        source_model=alias.source_model,
        marketplace_slug=alias.marketplace_slug,
        hugging_face_id=alias.hugging_face_id,
        active=alias.active,
    )


def catalog_to(catalog: Catalog) -> catalog_pb2.Catalog:
    """Write the whole catalog."""
    return catalog_pb2.Catalog(
        generation=catalog.generation,
        builds=map(build_to, catalog.builds),
        aliases=map(alias_to, catalog.aliases),
        marketplace_aliases=map(marketplace_alias_to, catalog.marketplace_aliases),
    )


def timestamp(time: datetime) -> Timestamp:
    """Write a time that is aware of its zone."""
    message = Timestamp()
    message.FromDatetime(time)

    return message


def key_from(text: str, field: str) -> str:
    """Return a key to look up.

    Raises:
        InvalidArgumentError: it has a nul, which the store cannot hold.
    """
    if "\0" in text:
        raise InvalidArgumentError("has a nul", field)

    return text


def page_from(page: page_pb2.PageRequest) -> tuple[str, int]:
    """Return (id after which the page begins, its size).

    Raises:
        InvalidArgumentError: a negative size, or a token that none of our pages gave.
    """
    if page.page_size < 0:
        raise InvalidArgumentError("must not be negative", "page.page_size")
    try:
        after = base64.b64decode(page.page_token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidArgumentError("not a page token", "page.page_token") from None

    return key_from(after, "page.page_token"), min(page.page_size or DEFAULT_PAGE, MAX_PAGE)


def page_token(last: str) -> str:
    """Write the token of the page that begins after this id."""
    return base64.urlsafe_b64encode(last.encode()).decode("ascii")


def _version_to(version: Version) -> catalog_pb2.Version:
    message = catalog_pb2.Version(
        version=version.version,
        state=_STATE_TO[version.state],
        aggregate_sha256=version.aggregate_sha256,
        identity_sha256=version.identity_sha256,
        total_size_bytes=version.total_size_bytes,
        file_count=version.file_count,
        register_time=timestamp(version.register_time),
        sources=version.sources,
    )
    if version.template is not None:
        message.template.template_sha256 = version.template.template_sha256
        message.template.fixtures.update(version.template.fixtures)
    return message
