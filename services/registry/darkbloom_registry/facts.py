"""The rules for what a publisher may say about a build (spec/registry.md §3)."""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import date

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.manifest import FileRole, Manifest, valid_model_id
from darkbloom_edge.memory import min_ram_gb
from darkbloom_edge.model_source import MAX_SOURCES, SourceKind, parse_source
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.errors import DevelopmentOnlyError, ManifestInvalidError
from darkbloom_registry.model import BuildFacts

DEVELOPMENT_NAMESPACE = "dev/"
"""Builds of the scripted engine. Its text is made up, so production never lists it."""
CAPABILITIES = frozenset(
    {
        "chat",
        "json_mode",
        "logprobs",
        "reasoning",
        "structured_outputs",
        "tools",
        "vision",
        "web_search",
    }
)
"""What a build may be able to do."""

_MAX_WORD = 256
_MAX_DESCRIPTION = 4096
MAX_PARAMETERS = 64 * 1024
_MAX_LIST = 64
_MAX_INT = (1 << 31) - 1


def check_facts(facts: BuildFacts) -> BuildFacts:
    """Return the facts in their normal form.

    Raises:
        InvalidArgumentError: a fact is missing or out of range; `field` names it.
    """
    if not valid_model_id(facts.id):
        raise InvalidArgumentError("not an id of a build", "build.id")
    for name in ("family", "architecture", "quantization"):
        if not getattr(facts, name).strip():
            raise InvalidArgumentError("required", f"build.{name}")
    for name in ("max_context_length", "max_output_length"):
        if not 0 < getattr(facts, name) <= _MAX_INT:
            raise InvalidArgumentError("must be positive", f"build.{name}")
    if not 0 <= facts.min_ram_gb <= _MAX_INT:
        raise InvalidArgumentError("must not be negative", "build.min_ram_gb")
    if facts.max_output_length > facts.max_context_length:
        raise InvalidArgumentError("exceeds the context", "build.max_output_length")

    for name in ("display_name", "family", "architecture", "quantization", "model_type"):
        _check_text(getattr(facts, name), name, _MAX_WORD)
    _check_text(facts.hugging_face_id, "hugging_face_id", _MAX_WORD)
    _check_text(facts.marketplace_slug, "marketplace_slug", _MAX_WORD)
    _check_text(facts.description, "description", _MAX_DESCRIPTION)
    check_deprecation_date(facts.deprecation_date)
    _check_parameters(facts.runtime_parameters_json)

    capabilities = _words(facts.capabilities, "capabilities")
    if not CAPABILITIES.issuperset(capabilities):
        raise InvalidArgumentError("not a known capability", "build.capabilities")

    return dataclasses.replace(
        facts,
        display_name=facts.display_name.strip() or facts.id,
        model_type=facts.model_type or "text",
        capabilities=capabilities,
        required_provider_capabilities=_words(
            facts.required_provider_capabilities, "required_provider_capabilities"
        ),
    )


def check_memory(facts: BuildFacts, manifest: Manifest, *, development: bool) -> BuildFacts:
    """Return the facts with the memory that a machine needs, by the rule that providers load by.

    Args:
        facts: With `min_ram_gb`, or 0 to have it computed.
        manifest: Says how large the weights are.
        development: Whether a publisher may say less; loads are not held to the rule there.

    Raises:
        InvalidArgumentError: machines that small would refuse to load it.
    """
    needed = min_ram_gb(manifest.weight_bytes)
    if not facts.min_ram_gb:
        return dataclasses.replace(facts, min_ram_gb=needed)
    if facts.min_ram_gb < needed and not development:
        raise InvalidArgumentError(f"weights of this size need {needed} GiB", "build.min_ram_gb")
    return facts


def check_namespace(build: str, *, development: bool) -> None:
    """Keep scripted builds out of production.

    Raises:
        DevelopmentOnlyError: a `dev/` build outside development.
    """
    if build.startswith(DEVELOPMENT_NAMESPACE) and not development:
        raise DevelopmentOnlyError("builds of dev/ exist only in development")


def check_manifest(manifest: Manifest, build: str) -> None:
    """Check that a manifest belongs to this build and holds a model.

    Raises:
        ManifestInvalidError: it names another build, or has no weights although it needs some.
    """
    if manifest.model_id != build:
        raise ManifestInvalidError("manifest names another build", "manifest.model_id")
    # The scripted engine has no weights: a small configuration file is its whole model.
    scripted = build.startswith(DEVELOPMENT_NAMESPACE)
    if not scripted and all(file.role is not FileRole.WEIGHT for file in manifest.files):
        raise ManifestInvalidError("manifest lists no weights", "manifest.files")


def check_sources(sources: Sequence[str], *, development: bool) -> tuple[str, ...]:
    """Return the places of a version's files in their normal form.

    Raises:
        InvalidArgumentError: too many, or one that providers would refuse.
    """
    if len(sources) > MAX_SOURCES:
        raise InvalidArgumentError(f"more than {MAX_SOURCES} places", "sources")
    found = []
    for text in sources:
        try:
            source = parse_source(text, plain_http=development)
        except MalformedError as error:
            raise InvalidArgumentError(error.what, "sources") from None
        # A folder of somebody's machine means nothing on another.
        if source.kind is SourceKind.FILE:
            raise InvalidArgumentError("a catalog cannot name a folder", "sources")
        found.append(source.text)

    return tuple(dict.fromkeys(found))


def _words(words: Iterable[str], name: str) -> tuple[str, ...]:
    """Trim, drop empties and repetitions, keep the order of first appearance."""
    kept = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    if len(kept) > _MAX_LIST:
        raise InvalidArgumentError(f"more than {_MAX_LIST} entries", f"build.{name}")
    for word in kept:
        _check_text(word, name, _MAX_WORD)

    return kept


def _check_text(text: str, name: str, limit: int) -> None:
    if len(text) > limit or "\0" in text:
        raise InvalidArgumentError(f"longer than {limit} characters, or has a nul", f"build.{name}")


def check_deprecation_date(text: str) -> None:
    """Check a date.

    Raises:
        InvalidArgumentError: neither empty nor YYYY-MM-DD.
    """
    if not text:
        return
    try:
        plain = date.fromisoformat(text).isoformat()
    except ValueError:
        plain = ""
    if plain != text:
        raise InvalidArgumentError("not a date YYYY-MM-DD", "build.deprecation_date")


def _check_parameters(text: str) -> None:
    if not text:
        return
    try:
        parse_json_object(text.encode(), max_bytes=MAX_PARAMETERS)
    except MalformedError as error:
        raise InvalidArgumentError(error.what, "build.runtime_parameters_json") from None
