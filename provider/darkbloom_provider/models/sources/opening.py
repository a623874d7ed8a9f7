"""From a line of text to a source; the S3 library is loaded only where it is needed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.manifest import object_prefix
from darkbloom_edge.model_source import ModelSource, SourceKind, parse_source

from darkbloom_provider.models.errors import ManifestError
from darkbloom_provider.models.sources.folder import FolderSource
from darkbloom_provider.models.sources.http import HttpSource, make_client
from darkbloom_provider.models.sources.interface import Source

if TYPE_CHECKING:
    from darkbloom_provider.models.sources.s3 import S3Access

HUB: Final = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """What the owner says about places."""

    mirrors: tuple[str, ...] = ()
    """Folders that hold every build under its prefix; asked before the catalog's places."""
    hub: str = HUB
    s3: "S3Access | None" = None
    """None: places of `s3` are passed over."""
    plain_http: bool = False
    """Whether `http` on the loopback will do; for development."""


def choose_places(
    model_id: str, version: str, named: Iterable[str], settings: SourceSettings
) -> list[ModelSource]:
    """Return the places of a version: the owner's mirrors, then those that the catalog names.

    A folder is the owner's to name: a catalog that names one is not obeyed. Places that cannot be
    read here are passed over.
    """
    prefix = object_prefix(model_id, version)
    own = [f"{base.rstrip('/')}/{prefix}" for base in settings.mirrors]
    found = []
    for text in (*own, *named):
        try:
            place = parse_source(text, plain_http=settings.plain_http)
        except MalformedError:
            continue
        if place.kind is SourceKind.FILE and text not in own:
            continue
        if place.kind is SourceKind.S3 and settings.s3 is None:
            continue
        found.append(place)
    return found


def own_place(text: str, settings: SourceSettings) -> ModelSource:
    """Read a place that the owner has named.

    Raises:
        ManifestError: it is none.
    """
    try:
        return parse_source(text, plain_http=settings.plain_http)
    except MalformedError as error:
        raise ManifestError(f"no place of model files, {error.what}") from None


def open_source(place: ModelSource, settings: SourceSettings) -> Source:
    """Return the source that reads a place."""
    if place.kind is SourceKind.FILE:
        return FolderSource(place)
    if place.kind is SourceKind.S3:
        from darkbloom_provider.models.sources.s3 import S3Access, S3Source

        return S3Source(place, settings.s3 or S3Access(), plain_http=settings.plain_http)
    return HttpSource(place, make_client(), hub=settings.hub, plain_http=settings.plain_http)
