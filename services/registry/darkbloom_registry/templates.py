"""The rules for the chat template of a version (spec/registry.md §13, "Better"); pure."""

import hashlib
from collections.abc import Mapping
from typing import Final

from darkbloom_edge.chat_template.fixtures import CALLED, PLAIN, TOOLS, VISION
from darkbloom_edge.chat_template.template import TEMPLATE_FILES
from darkbloom_edge.manifest import Manifest
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.model import BuildFacts, Rendering

_FIELD: Final = "template_files"


def check_template_files(
    manifest: Manifest, files: Mapping[str, bytes], *, development: bool
) -> Mapping[str, bytes]:
    """Return the files to render; none where there is nothing to render.

    Args:
        manifest: Of the version.
        files: As the publisher sent them, by path.
        development: Whether a publisher may keep them to himself.

    Raises:
        InvalidArgumentError: one is missing, is none of the version, or has other bytes.
    """
    listed = {file.path: file for file in manifest.files if file.path in TEMPLATE_FILES}
    for path, data in files.items():
        if path not in listed:
            raise InvalidArgumentError("the manifest lists no such template file", _FIELD)
        if hashlib.sha256(data).hexdigest() != listed[path].sha256:
            raise InvalidArgumentError(f"{path}: not the bytes that the manifest lists", _FIELD)
    missing = [path for path in TEMPLATE_FILES if path in listed and path not in files]
    if missing and (files or not development):
        raise InvalidArgumentError(f"{missing[0]} is required: it may hold a template", _FIELD)
    return files


def check_rendering(facts: BuildFacts, rendering: Rendering | None) -> None:
    """Refuse a template that cannot do what its build promises.

    A template that mentions no tools is told of them in words, so it has no fixtures with tools.

    Raises:
        InvalidArgumentError: a fixture does not render, or images were never tried.
    """
    if rendering is None or not rendering.template_sha256:
        return
    for name, needed, what in (
        (PLAIN, True, "a plain conversation"),
        (VISION, "vision" in facts.capabilities, "images"),
        (TOOLS, "tools" in facts.capabilities, "tools"),
        (CALLED, "tools" in facts.capabilities, "calls of tools and their results"),
    ):
        untold = name in (TOOLS, CALLED) and name not in rendering.fixtures
        if needed and not untold and not rendering.fixtures.get(name):
            raise InvalidArgumentError(f"the chat template does not render {what}", _FIELD)
