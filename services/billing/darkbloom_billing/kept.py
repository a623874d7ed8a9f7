"""Small files that are written once: whole or not at all, whatever ends the process meanwhile."""

import contextlib
import os
import secrets
from pathlib import Path


def torn(path: Path) -> bool:
    """Say whether a file ends before its end: every file of ours is one line, with its end.

    Raises:
        OSError: It cannot be read.
    """
    return not path.read_bytes().endswith(b"\n")


def write_once(path: Path, text: str) -> None:
    """Write a file unless it is there; what an older release left torn is replaced.

    Args:
        path: On a file system with hard links.
        text: One line, with its end.

    Raises:
        OSError: The directory is missing or may not be written, or is full.
        ValueError: There is a file of this name with other contents.
    """
    if path.exists() and not _begun(path, text):
        _require_same(path, text)
        return
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and _begun(path, text):
            draft.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
            _require_same(path, text)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


def _begun(path: Path, text: str) -> bool:
    """Say whether a file is the beginning of this text; one that says otherwise is not torn."""
    found = path.read_bytes()
    whole = text.encode()
    return len(found) < len(whole) and whole.startswith(found)


def _require_same(path: Path, text: str) -> None:
    if path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{path.name} says otherwise")


def _sync(directory: Path) -> None:
    """Let a new name outlive a loss of power."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
