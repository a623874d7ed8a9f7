"""Brings a newer version in: check, download, verify, unpack, measure, try, swap.

Each step is told to `say` before it begins. Killed in any of them, the version in use is untouched,
and the next update clears away what was left.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import httpx
from darkbloom_mesh.clock import Clock, SystemClock

from darkbloom_provider.service.files import sync_folder
from darkbloom_provider.service.running import Runner, run_tool
from darkbloom_provider.update.quarantine import note_stable, read_health, write_health
from darkbloom_provider.update.results import UpdateError, UpdateResult
from darkbloom_provider.update.ring import read_mark
from darkbloom_provider.update.source import Release, fetch_latest
from darkbloom_provider.update.store import AppStore
from darkbloom_provider.update.unpacking import check_tree, unpack
from darkbloom_provider.update.versions import newer

PIECE_S: Final = 30.0
"""Bound of the wait for the next bytes of a download."""
PACE_S: Final = 60.0
PACE_BYTES: Final = 64 << 10
"""What a download gives in each `PACE_S` at least: a trickle would hold the lock for ever."""
SPARE_BYTES: Final = 256 << 20
"""What must stay free beside the archive and four times its size for the tree."""
_OK = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What a check has found."""

    result: UpdateResult
    """`upToDate`, `available` or `quarantined`."""
    current: str
    release: Release | None = None


@final
class Updater:
    """Updates one installation.

    Args:
        store: of the versions.
        current: version that runs.
        platform: such as `macos-arm64`.
        keys: pinned release keys by id.
        gateway: base URL that is asked for releases.
        plain: whether bundles may come without TLS (development).
        run: runs the tools that unpack and try.
        say: hears of each step, in one word.
        clock: of the download's pace.
        entropy: draws this machine's mark, once.
    """

    def __init__(
        self,
        store: AppStore,
        *,
        current: str,
        platform: str,
        keys: Mapping[str, bytes],
        gateway: str,
        plain: bool = False,
        run: Runner = run_tool,
        say: Callable[[str], None] = lambda _step: None,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._current = current
        self._platform = platform
        self._keys = keys
        self._gateway = gateway
        self._plain = plain
        self._run = run
        self._say = say
        self._clock = clock or SystemClock()
        self._entropy = entropy

    def check(self, *, override_quarantine: bool = False) -> Checked:
        """Ask whether there is something newer.

        Raises:
            UpdateError: nobody answers, or what is answered is not signed.
        """
        self._say("check")
        with httpx.Client(base_url=self._gateway.rstrip("/")) as http:
            release = fetch_latest(
                http,
                self._platform,
                self._keys,
                ring=read_mark(self._store.mark, self._entropy),
                plain=self._plain,
            )
        if release is None or not newer(release.version, than=self._current):
            return Checked(result=UpdateResult.UP_TO_DATE, current=self._current)
        barred = release.version in read_health(self._store.state).quarantined
        result = UpdateResult.AVAILABLE
        if barred and not override_quarantine:
            result = UpdateResult.QUARANTINED
        return Checked(result=result, current=self._current, release=release)

    def install(self, release: Release) -> None:
        """Install a release and put it in use; whoever runs is not touched.

        Raises:
            UpdateError: it was not installed, and why.
        """
        store = self._store
        with store.locked():
            if release.version == store.current:
                # Swapped in before; only the restart is missing.
                return
            self._say("download")
            archive = store.staging / "bundle"
            self._download(release, archive)
            self._say("unpack")
            tree = store.staging / "tree"
            unpack(archive, tree, self._run)
            archive.unlink()
            self._say("verify")
            check_tree(tree, release.manifest, self._run)
            self._say("publish")
            store.publish(tree, release.version)
            self._say("swap")
            # A version that the owner asked for in spite of its quarantine gets another chance.
            write_health(store.state, note_stable(read_health(store.state), release.version))
            store.activate(release.version)
            self._say("done")

    def _download(self, release: Release, archive: Path) -> None:
        bundle = release.bundle
        free = shutil.disk_usage(archive.parent).free
        if free < 5 * bundle.size_bytes + SPARE_BYTES:
            raise UpdateError(
                UpdateResult.DOWNLOAD_FAILED,
                f"the update needs {(5 * bundle.size_bytes + SPARE_BYTES) >> 20} MiB of free disk",
                "make room, for example with `darkbloom models remove`",
            )
        digest, size = hashlib.sha256(), 0
        since, before = self._clock.monotonic(), 0
        try:
            with (
                archive.open("wb") as file,
                httpx.stream("GET", bundle.url, timeout=PIECE_S, follow_redirects=False) as answer,
            ):
                if answer.status_code != _OK:
                    raise UpdateError(
                        UpdateResult.DOWNLOAD_FAILED,
                        f"the bundle's server answered {answer.status_code}",
                        "try again later",
                    )
                for piece in answer.iter_raw():
                    size += len(piece)
                    if size > bundle.size_bytes:
                        raise _not_what_was_signed()
                    digest.update(piece)
                    file.write(piece)
                    now = self._clock.monotonic()
                    if now - since >= PACE_S:
                        if size - before < PACE_BYTES:
                            raise _too_slow()
                        since, before = now, size
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise UpdateError(
                UpdateResult.DOWNLOAD_FAILED,
                f"the download broke ({type(error).__name__})",
                "check the connection, then try again",
            ) from None
        if size != bundle.size_bytes or digest.hexdigest() != bundle.sha256:
            raise _not_what_was_signed()
        sync_folder(archive.parent)


def _too_slow() -> UpdateError:
    return UpdateError(
        UpdateResult.DOWNLOAD_FAILED,
        "the download is too slow",
        "check the connection, then try again",
    )


def _not_what_was_signed() -> UpdateError:
    return UpdateError(
        UpdateResult.HASH_MISMATCH,
        "the bundle's bytes are not those that were signed",
        "nothing was installed; try again, and tell the operator if it stays so",
    )
