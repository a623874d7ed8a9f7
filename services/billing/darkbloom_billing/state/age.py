"""Streams through age (https://age-encryption.org), so that no plaintext touches a disk.

The library pulls from a reader and pushes into a writer; a pipe and a thread turn that around for
whoever writes piece by piece, or wants to read so.
"""

import io
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pyrage import (
    DecryptError,
    EncryptError,
    IdentityError,
    RecipientError,
    decrypt_io,
    encrypt_io,
)
from pyrage.x25519 import Identity, Recipient

from darkbloom_billing.state.errors import (
    BrokenStateError,
    RecipientRefusedError,
    WrongIdentityError,
)

_WAIT_S = 60.0
_NOT_FOR_US = "No matching keys"


def recipients(names: Sequence[str]) -> list[Recipient]:
    """Read recipients.

    Raises:
        RecipientRefusedError: One is not `age1…`, or there is none.
    """
    if not names:
        raise RecipientRefusedError("a recipient is needed")
    try:
        return [Recipient.from_str(name) for name in names]
    except RecipientError:
        raise RecipientRefusedError("a recipient is not of the form age1…") from None


def identities(path: Path) -> list[Identity]:
    """Read a file as `age-keygen` writes it.

    Raises:
        WrongIdentityError: It cannot be read, or holds none.
    """
    try:
        lines = path.read_text("ascii").splitlines()
        found = [Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (OSError, UnicodeError, IdentityError):
        raise WrongIdentityError("the identity file cannot be read") from None
    if not found:
        raise WrongIdentityError("the identity file holds no identity")
    return found


class _Through(threading.Thread):
    """Runs one direction of the library beside us."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.error: Exception | None = None

    def run(self) -> None:
        """Work; what went wrong is kept for whoever joins."""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - raised again by who waits for us
            self.error = error

    def finish(self) -> None:
        """Wait for the end; raises what went wrong."""
        self.join(_WAIT_S)
        if self.is_alive():
            raise BrokenStateError("encryption does not end")
        if self.error is not None:
            raise self.error


class Encrypting(io.RawIOBase):
    """A file that is written in plain and lands encrypted; `close` finishes it.

    Args:
        path: Made here; must not be there.
        to: Who can read it.
    """

    def __init__(self, path: Path, to: Sequence[Recipient]) -> None:
        super().__init__()
        self._out = path.open("xb")
        ours, theirs = os.pipe()
        self._pipe = os.fdopen(theirs, "wb")
        source = os.fdopen(ours, "rb")

        def work() -> None:
            with source:
                encrypt_io(source, self._out, list(to))

        self._thread = _Through(work)
        self._thread.start()
        self._at = 0

    def writable(self) -> bool:
        """It is written."""
        return True

    def tell(self) -> int:
        """Return how many plain bytes were written."""
        return self._at

    def write(self, data: Any) -> int:
        """Add plain bytes.

        Raises:
            OSError: The disk is full.
        """
        size = memoryview(data).nbytes
        try:
            self._pipe.write(data)
        except BrokenPipeError:
            self._thread.finish()
            raise
        self._at += size
        return size

    def close(self) -> None:
        """Finish the file and wait until it is on its way to the disk.

        Raises:
            OSError: It cannot be written.
        """
        if self.closed:
            return
        try:
            self._pipe.close()
            self._thread.finish()
        except EncryptError as error:
            raise OSError("cannot be encrypted") from error
        finally:
            self._out.close()
            super().close()


class Decrypting:
    """Reads the plain bytes of an encrypted file; leaving it without an error proves its end.

    Raises (on leaving):
        WrongIdentityError: It was encrypted to somebody else.
        BrokenStateError: It was cut short or changed.
    """

    def __init__(self, path: Path, who: Sequence[Identity]) -> None:
        self._path, self._who = path, who

    def __enter__(self) -> Self:
        source = self._path.open("rb")
        ours, theirs = os.pipe()
        self.plain: IO[bytes] = os.fdopen(ours, "rb")
        sink = os.fdopen(theirs, "wb")

        def work() -> None:
            with source, sink:
                decrypt_io(source, sink, list(self._who))

        self._thread = _Through(work)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Whoever stops early lets the other end stop as well.
        self.plain.close()
        try:
            self._thread.finish()
        except DecryptError as problem:
            if _NOT_FOR_US in str(problem):
                raise WrongIdentityError("it is encrypted to somebody else") from None
            raise BrokenStateError("it was cut short or changed") from None
        except OSError:
            if error is None:
                raise BrokenStateError("it was cut short or changed") from None
