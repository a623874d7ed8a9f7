"""What a public name may point at, and what it remembers (spec/registry.md §8)."""

import dataclasses
import re

from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.model import Alias, MarketplaceAlias

_ALIAS_ID = re.compile(r"[0-9A-Za-z._-]{1,128}")
_MAX_TEXT = 256
_ALL = 100


def check_alias(alias: Alias) -> Alias:
    """Check what an alias says by itself and return its normal form.

    Raises:
        InvalidArgumentError: a field is missing or out of range; `field` names it.
    """
    check_id(alias.alias_id)
    _check_text(alias.display_name, "display_name")
    if not alias.desired_build:
        raise InvalidArgumentError("required", "alias.desired_build")
    if alias.desired_build == alias.alias_id:
        raise InvalidArgumentError(
            "an alias cannot point at itself; a takeover goes back to a copy of the build,"
            " registered under another id before",
            "alias.desired_build",
        )
    if alias.takeover != (alias.previous_build == alias.alias_id):
        raise InvalidArgumentError(
            "a takeover, and it alone, has the build of its own name behind it",
            "alias.previous_build",
        )
    if alias.previous_build == alias.desired_build:
        raise InvalidArgumentError("equals the desired build", "alias.previous_build")
    if alias.traffic_percent is not None and not 0 <= alias.traffic_percent <= _ALL:
        raise InvalidArgumentError("must be 0 to 100", "alias.traffic_percent")

    return dataclasses.replace(alias, display_name=alias.display_name.strip() or alias.alias_id)


def check_marketplace_alias(alias: MarketplaceAlias) -> MarketplaceAlias:
    """Check what a name for marketplaces says by itself and return its normal form.

    Raises:
        InvalidArgumentError: a field is missing or out of range; `field` names it.
    """
    check_id(alias.alias_id)
    for name in ("display_name", "marketplace_slug", "hugging_face_id"):
        _check_text(getattr(alias, name), name)
    if not alias.source_model:
        raise InvalidArgumentError("required", "alias.source_model")
    if alias.source_model == alias.alias_id:
        raise InvalidArgumentError("a name cannot follow itself", "alias.source_model")

    return dataclasses.replace(alias, display_name=alias.display_name.strip() or alias.alias_id)


def check_id(alias_id: str) -> None:
    """Refuse what is no name.

    Raises:
        InvalidArgumentError: it is none.
    """
    if _ALIAS_ID.fullmatch(alias_id) is None:
        raise InvalidArgumentError("must be 1 to 128 of [0-9A-Za-z._-]", "alias.alias_id")


def _check_text(text: str, name: str) -> None:
    if len(text) > _MAX_TEXT or "\0" in text:
        raise InvalidArgumentError("too long, or has a nul", f"alias.{name}")


def is_split(alias: Alias) -> bool:
    """Return whether a part of its accounts is on the build before."""
    percent = alias.traffic_percent
    return bool(alias.previous_build) and percent is not None and percent < _ALL


def succeed(wanted: Alias, current: Alias | None) -> Alias:
    """Return the alias as it shall be stored: builds that it leaves are remembered.

    The memory is the registry's own; what the caller sends for it is ignored.
    """
    if current is None:
        return dataclasses.replace(wanted, retired_builds=())

    left = (*current.retired_builds, current.desired_build, current.previous_build)
    pointed_at = {"", wanted.desired_build, wanted.previous_build}
    retired = tuple(dict.fromkeys(build for build in left if build not in pointed_at))

    return dataclasses.replace(wanted, retired_builds=retired)
