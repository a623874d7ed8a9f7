"""Change `provider.toml`: keys are set or removed, comments and order stay, the swap is atomic."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from darkbloom_provider.errors import ProviderError
from darkbloom_provider.file_keys import CONFIG_VERSION

Value = bool | int | float | str | Sequence[str] | Sequence[Mapping[str, Any]]


def edit(path: Path, changes: Mapping[str, Value | None]) -> None:
    """Set each dotted key, or remove it where the value is None.

    Raises:
        ProviderError: The file is not valid TOML and stays as it is, or it cannot be written.
    """
    try:
        document = tomlkit.parse(_text(path))
    except (TOMLKitError, UnicodeDecodeError):
        raise ProviderError(
            f"{path} is not valid and is left as it is", "see `darkbloom doctor`, then mend it"
        ) from None
    if "config_version" not in document:
        # At the top, where a key of the file itself must be.
        fresh = tomlkit.document()
        fresh.add("config_version", tomlkit.item(CONFIG_VERSION))
        document = tomlkit.parse(tomlkit.dumps(fresh) + tomlkit.dumps(document))
    for key, value in changes.items():
        _put(document, key, value)
    _replace(path, tomlkit.dumps(document))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""


def _put(document: tomlkit.TOMLDocument, key: str, value: Value | None) -> None:
    *tables, name = key.split(".")
    at: Any = document
    for table in tables:
        if table not in at:
            if value is None:
                return
            at[table] = tomlkit.table()
        at = at[table]
        if not isinstance(at, dict):
            raise ProviderError(f"{table} of the file is no table", "see `darkbloom doctor`")
    if value is None:
        at.pop(name, None)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        rows = tomlkit.aot()
        for row in value:
            entry = tomlkit.table()
            entry.update(row)
            rows.append(entry)
        at[name] = rows
    else:
        at[name] = list(value) if isinstance(value, tuple) else value


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A link keeps its place; what it points to is replaced.
    target = path.resolve()
    descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(target)
    except OSError:
        Path(scratch).unlink(missing_ok=True)
        raise
