"""Installed versions of this program, and which one is in use.

    app/versions/<version>/…     whole trees, never changed once they are here
    app/current -> versions/…    in use; replaced by one rename
    app/proven  -> versions/…    the last that ran for ten minutes; what a roll-back returns to
    app/ring                     this machine's mark, which says whose turn an update is
    app/staging/                 what is being made; emptied by whoever updates next

Whatever is killed at whatever point leaves `current` at a whole tree: a tree comes into `versions`
by one rename, after everything about it was checked, and the link is replaced by another.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from darkbloom_provider.service.files import sync_folder
from darkbloom_provider.service.program import CURRENT, PROVEN
from darkbloom_provider.update.results import UpdateError, UpdateResult

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}\Z", re.ASCII)


@final
class AppStore:
    """The folder of versions.

    Args:
        root: the folder; made when something is installed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._versions = root / "versions"
        self.staging = root / "staging"
        self.mark = root / "ring"
        self.state = root / "update-state.json"

    @property
    def current(self) -> str | None:
        """The version in use; None where nothing was ever installed here."""
        return self._target(CURRENT)

    @property
    def proven(self) -> str | None:
        """The version that a roll-back returns to."""
        return self._target(PROVEN)

    def folder(self, version: str) -> Path:
        """Return the folder of a version, installed or not.

        Raises:
            UpdateError: no version can be called so.
        """
        if _NAME.match(version) is None:
            raise UpdateError(UpdateResult.REPLACE_FAILED, "the version has an impossible name")
        return self._versions / version

    def contains(self, path: Path) -> bool:
        """Whether a file belongs to a version here."""
        try:
            return path.resolve().is_relative_to(self._versions.resolve())
        except OSError:
            return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who updates, with an empty staging folder.

        Raises:
            UpdateError: `busy`.
        """
        with self._alone():
            # What a killed update has left; nothing here is in use.
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir(mode=0o700)
            yield
            shutil.rmtree(self.staging, ignore_errors=True)

    def publish(self, tree: Path, version: str) -> None:
        """Move a checked tree of the staging folder among the versions.

        Raises:
            UpdateError: it cannot be moved, or is the version in use.
        """
        target = self.folder(version)
        if version in (self.current, self.proven):
            raise UpdateError(
                UpdateResult.REPLACE_FAILED, f"{version} is installed and kept as it is"
            )
        try:
            if target.exists():
                # Of an earlier try that was taken back; its place is needed.
                target.rename(self.staging / f"old-{version}")
            # A tree whose bytes a loss of power takes back would be whole in name only.
            os.sync()
            tree.rename(target)
            sync_folder(self._versions)
        except OSError as error:
            raise _replace_failed(error) from None

    def activate(self, version: str) -> None:
        """Put a published version in use; the one before stays, to return to.

        Raises:
            UpdateError: the link cannot be replaced.
        """
        before = self.current
        if self.proven is None and before is not None:
            self._point(PROVEN, before)
        self._point(CURRENT, version)

    def prove(self, version: str) -> bool:
        """Note that a version runs well, and forget all others.

        Returns:
            Whether it is noted: not while an update is under way, nor once another is in use.

        Raises:
            UpdateError: the link cannot be replaced.
        """
        try:
            with self._alone():
                if self.current != version:
                    return False
                if self.proven != version:
                    self._point(PROVEN, version)
                for folder in self._versions.iterdir():
                    if folder.name != version:
                        shutil.rmtree(folder, ignore_errors=True)
        except UpdateError as error:
            if error.result is not UpdateResult.BUSY:
                raise
            return False
        return True

    def roll_back(self) -> str | None:
        """Return to the proven version; None where there is no other one."""
        proven = self.proven
        if proven is None or proven == self.current:
            return None
        self._point(CURRENT, proven)
        return proven

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._versions.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root / "update.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UpdateError(UpdateResult.BUSY, "another update is under way") from None
            yield
        finally:
            os.close(descriptor)

    def _target(self, link: str) -> str | None:
        try:
            name = (self._root / link).readlink().name
        except OSError:
            return None
        return name if (self._versions / name).is_dir() else None

    def _point(self, link: str, version: str) -> None:
        scratch = self._root / f".{link}.{os.getpid()}"
        try:
            scratch.unlink(missing_ok=True)
            scratch.symlink_to(Path("versions", version))
            scratch.replace(self._root / link)
            sync_folder(self._root)
        except OSError as error:
            raise _replace_failed(error) from None


def _replace_failed(error: OSError) -> UpdateError:
    return UpdateError(
        UpdateResult.REPLACE_FAILED,
        f"the new version cannot be put in place ({error.strerror})",
        "see that the disk has room and that the folder is yours; what ran before still does",
    )
