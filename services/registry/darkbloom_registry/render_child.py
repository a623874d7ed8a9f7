"""The process in which one chat template is rendered: an order on stdin, digests on stdout."""

import base64
import json
import resource
import sys
from collections.abc import Mapping
from typing import Any, Final

from darkbloom_edge.chat_template.fixtures import examine
from darkbloom_edge.chat_template.template import (
    TEMPLATE_FILES,
    ChatTemplate,
    TemplateError,
    source_in,
)

CPU_S: Final = 10
"""Of the whole process; then it is killed."""
FIXTURE_CPU_S: Final = 0.5
"""Of one rendering; then it counts as one that does not render."""
MEMORY_BYTES: Final = 192 << 20
"""Of the whole process, 30 MiB for Python included; a pod has room for it beside the registry."""
_LIMITS: Final = (
    (resource.RLIMIT_CPU, CPU_S),
    (resource.RLIMIT_AS, MEMORY_BYTES),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_FSIZE, 0),
)


def rendered(files: Mapping[str, bytes], *, vision: bool) -> dict[str, Any]:
    """Return the digests of the template that a build uses; every source must compile.

    Raises:
        TemplateError: One does not.
    """
    found = [
        source
        for name in TEMPLATE_FILES
        if name in files and (source := source_in(name, files[name])) is not None
    ]
    templates = [ChatTemplate(source, limit_seconds=FIXTURE_CPU_S) for source in found]
    if not templates:
        return {"sha256": "", "fixtures": {}}
    report = examine(templates[0], vision=vision)
    return {"sha256": report.sha256, "fixtures": dict(report.fixtures)}


def main() -> int:
    """Render within limits; end with 1 where they were met."""
    for kind, most in _LIMITS:
        resource.setrlimit(kind, (most, most))
    try:
        order = json.load(sys.stdin.buffer)
        files = {name: base64.b64decode(data) for name, data in order["files"].items()}
        said = rendered(files, vision=order["vision"])
    except TemplateError as error:
        said = {"fault": str(error)}
    except MemoryError:
        return 1
    sys.stdout.write(json.dumps(said))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
