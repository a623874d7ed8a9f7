"""Tokenizers of the catalog's builds, so that a hold is close to what a prompt will cost.

They come out of a directory in the layout of a provider's model store, and count only where their
bytes are those of the manifest. Without one the bound is the number of bytes, which is never too
low. A count is of the texts alone: what a chat template adds is bounded as before.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import structlog
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.manifest import parse_manifest, store_name
from darkbloom_mesh.clock import Clock

from darkbloom_gateway.catalog import Build, Catalog
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.install import Manifests

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE_NAME: Final = "tokenizer.json"
MAX_FILE_BYTES: Final = 64 << 20
"""Largest tokenizer that is read."""
LOOK_S: Final = 30.0
"""Between looks for builds whose tokenizer is not here yet."""
SOON_S: Final = 0.25
"""The same before there is a catalog."""
_log = structlog.get_logger()


@final
class Tokenizers:
    """Counts tokens of texts.

    Args:
        directory: `<store name>/<version>/tokenizer.json` of each build; None: there is nothing.
        manifests: say which bytes those must be.
        catalog: the newest one, None before there is one.
        clock: time.
    """

    def __init__(
        self,
        directory: Path | None,
        manifests: Manifests,
        catalog: Callable[[], Catalog | None],
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._manifests = manifests
        self._catalog = catalog
        self._clock = clock
        self._read: dict[str, Tokenizer] = {}
        self._missed: set[tuple[str, str]] = set()
        self._known: Mapping[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        self._by_build: Mapping[str, tuple[Tokenizer, ...]] = {}

    @property
    def any(self) -> bool:
        """Whether there is any tokenizer, so that counting may take time."""
        return bool(self._by_build)

    def count(self, builds: Iterable[str], texts: Sequence[str]) -> int | None:
        """Count the tokens of texts, by the tokenizer that makes most of them.

        Takes about a millisecond for 2 KB and lets other threads run.

        Args:
            builds: every one that may serve.
            texts: each on its own.

        Returns:
            The count; None where a build has no tokenizer here.
        """
        counts = []
        for build in builds:
            found = self._by_build.get(build)
            if found is None:
                return None
            for tokenizer in found:
                encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
                counts.append(sum(len(one.ids) for one in encoded))
        return max(counts, default=None)

    async def run(self) -> None:
        """Read what the catalog names, until cancelled; ends at once without a directory."""
        while self._directory is not None:
            catalog = self._catalog()
            if catalog is not None:
                await self._look(self._directory, catalog)
            await self._clock.sleep(LOOK_S if catalog is not None else SOON_S)

    async def _look(self, directory: Path, catalog: Catalog) -> None:
        by_build: dict[str, tuple[Tokenizer, ...]] = {}
        known: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        for build in catalog.builds.values():
            versions = _versions(build)
            digests = self._known.get((build.build_id, versions))
            if digests is None:
                digests = await self._read_build(directory, build.build_id, versions)
            if digests:
                known[build.build_id, versions] = digests
                by_build[build.build_id] = tuple(self._read[digest] for digest in digests)
        used = {digest for digests in known.values() for digest in digests}
        self._read = {digest: one for digest, one in self._read.items() if digest in used}
        self._known, self._by_build = known, by_build

    async def _read_build(
        self, directory: Path, build: str, versions: Sequence[str]
    ) -> tuple[str, ...]:
        """Read the tokenizer of every version that may serve; one that is missing misses all."""
        digests = []
        for version in versions:
            path = directory / store_name(build) / version / FILE_NAME
            try:
                manifest = parse_manifest((await self._manifests.get(build, version)).document)
                wanted = next(file for file in manifest.files if file.path == FILE_NAME)
                if wanted.sha256 not in self._read:
                    self._read[wanted.sha256] = await asyncio.to_thread(_load, path, wanted.sha256)
            except (ApiError, MalformedError, OSError, StopIteration) as error:
                # Every look would say the same again.
                if (build, version) not in self._missed:
                    self._missed.add((build, version))
                    _log.info("tokenizer_not_read", build=build, error_type=type(error).__name__)
                return ()
            digests.append(wanted.sha256)
        return tuple(dict.fromkeys(digests))


def _versions(build: Build) -> tuple[str, ...]:
    return tuple(one.version for one in build.install.versions) if build.install else ()


def _load(path: Path, sha256: str) -> "Tokenizer":
    """Read one file.

    Raises:
        OSError: it is not there.
        MalformedError: it is too large, not the one of the manifest, or no tokenizer.
    """
    # Workers without tokenizers do not pay for the library.
    from tokenizers import Tokenizer

    if path.stat().st_size > MAX_FILE_BYTES:
        raise MalformedError("tokenizer is too large")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise MalformedError("tokenizer is not the one of the manifest")
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception:  # noqa: BLE001 - the library raises nothing narrower
        raise MalformedError("not a tokenizer") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
