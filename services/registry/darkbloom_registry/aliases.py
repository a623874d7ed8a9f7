"""What a public name may point at, and what it remembers (spec/registry.md §8)."""

import dataclasses
import re

from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.model import Alias

_ALIAS_ID = re.compile(r"[0-9A-Za-z._-]{1,128}")
_MAX_DISPLAY_NAME = 256
_ALL = 100


def check_alias(alias: Alias) -> Alias:
    """Check what an alias says by itself and return its normal form.

    Raises:
        InvalidArgumentError: a field is missing or out of range; `field` names it.
    """
    if _ALIAS_ID.fullmatch(alias.alias_id) is None:
        raise InvalidArgumentError("must be 1 to 128 of [0-9A-Za-z._-]", "alias.alias_id")
    if len(alias.display_name) > _MAX_DISPLAY_NAME or "\0" in alias.display_name:
        raise InvalidArgumentError("too long, or has a nul", "alias.display_name")
    if not alias.desired_build:
        raise InvalidArgumentError("required", "alias.desired_build")
    if alias.desired_build == alias.alias_id:
        raise InvalidArgumentError("an alias cannot point at itself", "alias.desired_build")
    if alias.previous_build == alias.desired_build:
        raise InvalidArgumentError("equals the desired build", "alias.previous_build")
    if alias.traffic_percent is not None and not 0 <= alias.traffic_percent <= _ALL:
        raise InvalidArgumentError("must be 0 to 100", "alias.traffic_percent")

    return dataclasses.replace(alias, display_name=alias.display_name.strip() or alias.alias_id)


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
