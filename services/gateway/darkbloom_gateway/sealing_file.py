"""Make or rotate the keys of sealed requests: `python -m darkbloom_gateway.sealing_file FILE`."""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.sealing_keys import KeyRing, encode_keys, rotated
from darkbloom_mesh.clock import Clock, SystemClock

from darkbloom_gateway.mnemonics import INFO, private_key_of
from darkbloom_gateway.sealing_ring import read_ring

_KEY_BYTES = 32
_REFUSED = 2


def main(
    arguments: Sequence[str], clock: Clock, entropy: Callable[[int], bytes] = secrets.token_bytes
) -> int:
    """Run the command; returns the exit code."""
    given = _parser().parse_args(arguments)
    path: Path = given.file
    try:
        ring = read_ring(path) if path.exists() else KeyRing()
        if given.mnemonic_file is None:
            private = entropy(_KEY_BYTES)
        else:
            private = private_key_of(given.mnemonic_file.read_text("utf-8"), given.info)
        changed = rotated(
            ring,
            private,
            clock.now(),
            lead=timedelta(seconds=given.lead),
            grace=timedelta(seconds=given.grace),
        )
        _write(path, encode_keys(changed))
    except (ValueError, MalformedError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return _REFUSED
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return _REFUSED
    newest = changed.keys[-1]
    sys.stdout.write(f"{newest.kid} published from {newest.since:%Y-%m-%dT%H:%M:%SZ}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="darkbloom_gateway.sealing_file", description="Make or rotate the sealing keys."
    )
    parser.add_argument("file", type=Path, help="the file that every gateway reads")
    parser.add_argument("--lead", type=float, default=60, help="seconds until it is published")
    parser.add_argument("--grace", type=float, default=900, help="seconds that older ones open on")
    parser.add_argument("--mnemonic-file", type=Path, help="12 or 24 words; default: random key")
    parser.add_argument("--info", default=INFO, help="derives another key from the same words")
    return parser


def _write(path: Path, data: bytes) -> None:
    """Replace the file, whole or not at all, for its owner's eyes."""
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], SystemClock()))
