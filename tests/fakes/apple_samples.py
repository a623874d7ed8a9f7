"""The published samples of Apple's objects, read where they lie."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

APP_ATTEST = (
    "apple-guide-production",
    "splitsecure-development",
    "uebelack-development",
    "veehaitch-ios-14.2",
    "veehaitch-ios-14.3",
    "veehaitch-ios-14.4",
)


def sample_path(kind: str, name: str) -> Path:
    """Where a sample lies; skips the test by name without the data."""
    root = os.environ.get("DARKBLOOM_TEST_DATA", "../shared/data")  # noqa: TID251 - where the data lies is the environment's to say
    path = Path(root, "apple", kind, f"{name}.json")
    if not path.exists():
        pytest.skip(f"no test data: {path.name}")
    return path


def sample(kind: str, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(sample_path(kind, name).read_text())
    return loaded


def raw(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
