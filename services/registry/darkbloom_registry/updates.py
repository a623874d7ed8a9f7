"""What may be said anew about a build that is published (spec/registry.md §7, actions); pure."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.facts import MAX_PARAMETERS
from darkbloom_registry.model import BuildFacts

MUTABLE: Final = frozenset(
    {
        "capabilities",
        "deprecation_date",
        "description",
        "display_name",
        "hugging_face_id",
        "marketplace_slug",
        "runtime_parameters_json",
    }
)
"""Everything else is what the bytes are, and they never change."""
DECIDING: Final = frozenset({"capabilities", "deprecation_date", "runtime_parameters_json"})
"""What decides what consumers get; the others are words."""


def updated(known: BuildFacts, wanted: BuildFacts, fields: Sequence[str]) -> BuildFacts:
    """Return the facts with these fields as wanted; runtime parameters are merged.

    Raises:
        InvalidArgumentError: no field, or one that may not change.
    """
    if not fields or not MUTABLE.issuperset(fields):
        raise InvalidArgumentError(f"must name some of {', '.join(sorted(MUTABLE))}", "update_mask")
    changes: dict[str, Any] = {name: getattr(wanted, name) for name in fields}
    if "runtime_parameters_json" in changes:
        changes["runtime_parameters_json"] = _merged(
            known.runtime_parameters_json, wanted.runtime_parameters_json
        )
    return dataclasses.replace(known, **changes)


def _merged(known: str, wanted: str) -> str:
    """Return parameters with others laid over them; null takes one away."""
    try:
        over = parse_json_object((wanted or "{}").encode(), max_bytes=MAX_PARAMETERS)
    except MalformedError as error:
        raise InvalidArgumentError(error.what, "build.runtime_parameters_json") from None
    merged = {**json.loads(known or "{}"), **over}
    left = {name: value for name, value in merged.items() if value is not None}
    return json.dumps(left, sort_keys=True) if left else ""
