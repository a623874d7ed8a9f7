"""Verdict keys in a directory: the newest signs, all are published.

`<time>.key` holds an Ed25519 private key, 32 bytes in base64, mode 0600; `<time>.pub` holds the
public key of one whose private half was destroyed. `<time>` is when it came into use, for example
`20260131T120000Z`. To rotate, add a file with the present time and restart; keep the older ones as
`.pub`, because documents that they signed stay valid.
"""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import (
    ED25519_BYTES,
    Ed25519Signer,
    ed25519_key_id,
    from_base64,
    to_base64,
)
from darkbloom_edge.strict_json import parse_json_object

from darkbloom_attestation.model import PublicKey

_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"(\d{8}T\d{6}Z)\.(key|pub)")
_PRIVATE_MODE = 0o600
_MAX_FILE = 256
_MAX_PINS = 65_536


class KeyDirectoryError(Exception):
    """The key directory cannot be used; the message names files, never their content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The key that signs, and all that were ever published."""

    signer: Ed25519Signer
    """Newest private key."""
    published: Sequence[PublicKey]
    """Oldest first, the signer's last."""


def load_keyring(directory: Path, *, now: datetime, create: bool) -> Keyring:
    """Read the directory.

    Args:
        directory: where the keys are.
        now: a key of the future does not sign and is refused.
        create: make a first key where there is none; for development.

    Raises:
        KeyDirectoryError: no key, a file that others may read, or one that is no key.
    """
    if create:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        names = sorted(entry.name for entry in directory.iterdir() if _NAME.fullmatch(entry.name))
        if create and not any(name.endswith(".key") for name in names):
            names.append(_create(directory, now))
        entries = [_read(directory / name, now) for name in names]
    except OSError as error:
        raise KeyDirectoryError(f"key directory: {type(error).__name__}") from None

    if not entries or entries[-1][2] is None:
        raise KeyDirectoryError("the newest verdict key has no private half")
    signer = entries[-1][2]

    retired: list[datetime | None] = [time for time, _, _ in entries[1:]]
    published = [
        PublicKey(
            key_id=ed25519_key_id(public),
            public_key=public,
            create_time=time,
            retire_time=retire_time,
        )
        for (time, public, _), retire_time in zip(entries, [*retired, None], strict=True)
    ]
    return Keyring(signer=signer, published=published)


def load_release_keys(path: Path) -> Mapping[str, bytes]:
    """Read pinned release keys: JSON, key id to public key in base64.

    Raises:
        KeyDirectoryError: it cannot be read as that, or an id is not that of its key.
    """
    try:
        fields = parse_json_object(path.read_bytes(), max_bytes=_MAX_PINS)
        keys = {name: from_base64(str(text)) for name, text in fields.items()}
    except OSError as error:
        raise KeyDirectoryError(f"release keys: {type(error).__name__}") from None
    except MalformedError as error:
        raise KeyDirectoryError(f"release keys: {error.what}") from None
    if any(ed25519_key_id(public) != name for name, public in keys.items()):
        raise KeyDirectoryError("release keys: an id is not that of its key")

    return keys


def _create(directory: Path, now: datetime) -> str:
    name = f"{now.astimezone(UTC).strftime(_STAMP)}.key"
    text = to_base64(Ed25519Signer.generate().private_bytes())
    file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(text + "\n")

    return name


def _read(path: Path, now: datetime) -> tuple[datetime, bytes, Ed25519Signer | None]:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise KeyDirectoryError(f"{path.name}: not the name of a key")
    try:
        time = datetime.strptime(match.group(1), _STAMP).replace(tzinfo=UTC)
    except ValueError:
        raise KeyDirectoryError(f"{path.name}: no such time") from None
    if time > now:
        raise KeyDirectoryError(f"{path.name}: a key of the future")

    private = match.group(2) == "key"
    # Checked on the open file, so that it cannot be exchanged in between.
    with path.open("rb") as stream:
        facts = os.fstat(stream.fileno())
        if private and (stat.S_IMODE(facts.st_mode) & 0o077 or facts.st_uid != os.geteuid()):
            raise KeyDirectoryError(f"{path.name}: others may read it; want mode 0600 and own it")
        raw = stream.read(_MAX_FILE)
    try:
        data = from_base64(raw.decode("ascii").strip())
    except (MalformedError, UnicodeDecodeError):
        raise KeyDirectoryError(f"{path.name}: not a key in base64") from None
    if len(data) != ED25519_BYTES:
        raise KeyDirectoryError(f"{path.name}: not {ED25519_BYTES} bytes")
    if not private:
        return time, data, None

    signer = Ed25519Signer(data)
    return time, signer.public, signer
