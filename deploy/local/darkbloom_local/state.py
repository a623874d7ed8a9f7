"""The directory that holds everything of one mesh: stores, keys, models, logs."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from darkbloom_local.errors import DiskFullError, LocalError, StateInUseError

_MIN_FREE_BYTES = 2 * 1024**3
_RUNNING = "mesh.json"


class StateDir:
    """Paths and secrets of a mesh. Secrets are files that only their owner can read."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, *parts: str) -> Path:
        """Return a path below the root; its parent exists afterwards."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def directory(self, *parts: str) -> Path:
        """Return a directory below the root, made when missing, open to its owner alone."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.path("logs", f"{name}.jsonl")

    def secret(self, name: str, make: Callable[[], str]) -> Path:
        """Return the file of a secret, made once and kept."""
        path = self.directory("keys") / name
        if not path.exists():
            scratch = path.with_suffix(".tmp")
            scratch.unlink(missing_ok=True)
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(make())
                os.fsync(file.fileno())
            scratch.rename(path)
        return path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory; the kernel lets go of it whatever happens to us.

        Raises:
            StateInUseError: Another process holds it.
            LocalError: The directory cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "lock").open("w")
        except OSError as error:
            raise LocalError(f"cannot write to {self.root}: {error.strerror}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateInUseError(
                    f"a mesh already runs in {self.root}; stop it, or choose another --state"
                ) from None
            yield

    def require_space(self, needed_bytes: int = _MIN_FREE_BYTES) -> None:
        """Return if the disk has room.

        Raises:
            DiskFullError: It has less than `needed_bytes` left.
        """
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise DiskFullError(
                f"{self.root} has {free / 1024**3:.1f} GB free, a mesh needs "
                f"{needed_bytes / 1024**3:.1f} GB"
            )

    def announce(self, facts: Mapping[str, Any]) -> None:
        """Write what `ask` and other tools need to find the running mesh; no secrets."""
        path = self.root / _RUNNING
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(facts, indent=2) + "\n")
        scratch.rename(path)

    def retract(self) -> None:
        """Say that no mesh runs here."""
        (self.root / _RUNNING).unlink(missing_ok=True)

    def running(self) -> Mapping[str, Any]:
        """Return what `announce` wrote.

        Raises:
            LocalError: No mesh runs here.
        """
        try:
            facts = json.loads((self.root / _RUNNING).read_text())
            alive = psutil.pid_exists(int(facts["pid"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            alive = False
        if not alive:
            raise LocalError(f"no mesh runs in {self.root}; start one with `make run`")
        return dict(facts)
