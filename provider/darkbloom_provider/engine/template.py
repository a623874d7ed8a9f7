"""Find the chat template of a build on the disk."""

from pathlib import Path

from darkbloom_edge.chat_template.fixtures import NOTHING, TemplateReport
from darkbloom_edge.chat_template.fixtures import examine as examine_template
from darkbloom_edge.chat_template.template import (
    MAX_FILE_BYTES,
    TEMPLATE_FILES,
    ChatTemplate,
    TemplateError,
    source_in,
)


def read_template(directory: Path) -> ChatTemplate | None:
    """Read the template of a build: from a file of its own, else from the tokenizer's settings.

    Raises:
        TemplateError: It cannot be read or does not compile.
    """
    for name in TEMPLATE_FILES:
        path = directory / name
        if not path.exists():
            continue
        source = source_in(name, _read(path))
        if source is not None:
            return ChatTemplate(source)
    return None


def examine(directory: Path, *, vision: bool = False) -> TemplateReport:
    """Try the template of a build.

    Args:
        directory: Of the build.
        vision: Whether messages with image parts must render as well.
    """
    try:
        template = read_template(directory)
    except TemplateError:
        template = None
    return NOTHING if template is None else examine_template(template, vision=vision)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TemplateError(f"{path.name} cannot be read") from error
