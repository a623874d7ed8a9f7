"""Keys that an operator pins instead of trusting what is published."""

import json
from pathlib import Path

from darkbloom_edge.errors import EdgeError
from darkbloom_edge.signatures import from_base64


def read_pins(path: Path) -> dict[str, bytes]:
    """Read a file of pinned keys: JSON, key id to base64.

    Raises:
        ValueError: it cannot be read as that.
    """
    try:
        return {str(name): from_base64(key) for name, key in json.loads(path.read_text()).items()}
    except (OSError, AttributeError, TypeError, EdgeError) as error:
        raise ValueError(f"pinned keys are unusable ({type(error).__name__})") from None
