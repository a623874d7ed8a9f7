"""What the hub's own cache holds that could be imported; only listed, and at most so much."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from darkbloom_provider.checks.model import GIB, Check, Scene

MAX_MODELS: Final = 64
"""Models that are looked at."""
MAX_FILES: Final = 256
"""Files of one folder that are looked at."""
MAX_SHOWN: Final = 5
"""Models that are named."""
_PREFIX: Final = "models--"
_REQUIRED: Final = ("config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class Cached:
    """One model of the cache."""

    name: str
    size_bytes: int
    folder: Path | None
    """A revision that `models import` takes; None where none is whole enough."""


def checks(scene: Scene) -> Iterator[Check]:
    """Look at the cache."""
    root = cache_root(scene.environ)
    name = "huggingface cache"
    try:
        found = list(cached(root))
    except FileNotFoundError:
        yield Check(name=name, area="models", result="pass", detail=f"none in {root}")
        return
    except OSError as error:
        yield Check(
            name=name,
            area="models",
            result="warn",
            detail=f"{root} cannot be read ({(error.strerror or type(error).__name__).lower()})",
            fix=f"make it a folder of yours, for example `sudo chown -R $USER {root}`",
        )
        return
    yield Check(name=name, area="models", result="pass", detail=_told(scene, root, found))


def cache_root(environ: Mapping[str, str]) -> Path:
    """Return where the hub's tools keep models, by their own rules."""
    if chosen := environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def cached(root: Path) -> Iterator[Cached]:
    """Yield what the cache holds, by name, at most `MAX_MODELS`.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    named = (path for path in root.iterdir() if path.name.startswith(_PREFIX))
    for folder in sorted(islice(named, MAX_MODELS)):
        yield Cached(
            name=folder.name.removeprefix(_PREFIX).replace("--", "/", 1),
            size_bytes=_size(folder / "blobs"),
            folder=_importable(folder / "snapshots"),
        )


def _size(blobs: Path) -> int:
    if not blobs.is_dir():
        return 0
    size = 0
    for path in islice(blobs.iterdir(), MAX_FILES):
        # What is being fetched is renamed when it is whole.
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _importable(revisions: Path) -> Path | None:
    if not revisions.is_dir():
        return None
    for folder in sorted(islice(revisions.iterdir(), MAX_FILES)):
        # A link whose file was never fetched whole does not exist.
        whole = all((folder / name).exists() for name in _REQUIRED)
        if whole and any(path.exists() for path in islice(folder.glob("*.safetensors"), MAX_FILES)):
            return folder
    return None


def _told(scene: Scene, root: Path, found: list[Cached]) -> str:
    if not found:
        return f"{root} holds no model"
    here = {one.manifest.model_id for one in scene.stored}
    takes = [one for one in found if one.folder is not None and one.name not in here]
    size = sum(one.size_bytes for one in found) / GIB
    said = f"{len(found)} in {root}, {size:.1f} GB"
    if not takes:
        return f"{said}; none to import"
    names = ", ".join(one.name for one in takes[:MAX_SHOWN])
    more = f" and {len(takes) - MAX_SHOWN} more" if len(takes) > MAX_SHOWN else ""
    example = f"`darkbloom models import {takes[0].folder} --id {takes[0].name}`"
    return f"{said}; can be imported: {names}{more}, with {example}"
