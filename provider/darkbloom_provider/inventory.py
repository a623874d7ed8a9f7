"""The verified builds of a shift. They change while it serves: a build comes, a version follows.

Everybody who must know holds a view of the one inventory: requests are admitted by `hosted`,
registrations and challenges speak of `models`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, Final, final

from darkbloom_edge.memory import resident_bytes

from darkbloom_provider.attempt import Hosted
from darkbloom_provider.engine.interface import Build
from darkbloom_provider.engine.template import examine
from darkbloom_provider.models.store import ModelStore, StoredModel
from darkbloom_provider.presentation import Model

_GIB: Final = 1 << 30
_SCRIPTED: Final = "scripted"
"""The `model_type` of builds without a model."""
_VISION: Final = "vision_config"
"""What the configuration of a model with eyes has."""


@final
class Inventory:
    """Verified builds by id.

    Args:
        stored: one version of each build; every byte of them has been hashed.
    """

    def __init__(self, stored: Iterable[StoredModel] = ()) -> None:
        self._stored = {one.manifest.model_id: one for one in stored}
        self._hosted = {name: _hosted(one) for name, one in self._stored.items()}
        self._marks: dict[str, IO[bytes]] = {}

    @property
    def builds(self) -> tuple[Build, ...]:
        """What the engine loads."""
        return tuple(map(build_of, self._stored.values()))

    @property
    def models(self) -> tuple[Model, ...]:
        """What the network is told; a build that is being exchanged is not among them."""
        return tuple(model_of(one) for name, one in self._stored.items() if name in self._hosted)

    @property
    def hosted(self) -> Mapping[str, Hosted]:
        """Builds for which requests are taken; a view that follows every change."""
        return self._hosted

    def live_models(self) -> Iterable[Model]:
        """Give `models` as a view that follows every change."""
        return _Live(self)

    def get(self, model_id: str) -> StoredModel | None:
        """Return the version of a build that is here."""
        return self._stored.get(model_id)

    def only(self, model_id: str) -> "Inventory":
        """Return an inventory of this one build."""
        return Inventory((self._stored[model_id],))

    def put(self, stored: StoredModel) -> None:
        """Take a verified version, in place of another of the same build, and admit requests."""
        name = stored.manifest.model_id
        self._stored[name] = stored
        self._hosted[name] = _hosted(stored)

    def shut(self, model_id: str) -> None:
        """Take no more requests for a build; those that run are not touched."""
        self._hosted.pop(model_id, None)

    def mark(self, store: ModelStore) -> None:
        """Keep what is here from being removed from the store, until `release`."""
        for name, one in self._stored.items():
            self._unmark(name)
            # A store that cannot be written is served from all the same.
            with suppress(OSError):
                self._marks[name] = store.use(one)

    def release(self) -> None:
        """Let the store remove what it is told to."""
        for name in tuple(self._marks):
            self._unmark(name)

    def _unmark(self, name: str) -> None:
        mark = self._marks.pop(name, None)
        if mark is not None:
            mark.close()


class _Live:
    """Iterates over the models as they are at that moment."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def __iter__(self) -> Iterator[Model]:
        return iter(self._inventory.models)


def build_of(stored: StoredModel) -> Build:
    """Return a version as the engine takes it."""
    facts = _config_of(stored)
    return Build(
        build_id=stored.manifest.model_id,
        directory=stored.directory,
        weight_hash=stored.manifest.aggregate_sha256,
        vision=_sees(facts),
    )


def model_of(stored: StoredModel) -> Model:
    """Return a version as the network is told of it."""
    facts = _config_of(stored)
    quantization = facts.get("quantization")
    bits = quantization.get("bits") if isinstance(quantization, dict) else None
    size = stored.manifest.total_size_bytes
    scripted = facts.get("model_type") == _SCRIPTED
    template = None if scripted else examine(stored.directory, vision=_VISION in facts)
    return Model(
        id=stored.manifest.model_id,
        size_bytes=size,
        model_type=str(facts.get("model_type", "text")),
        quantization=f"{bits}bit" if bits else "none",
        weight_hash=stored.manifest.aggregate_sha256,
        identity_hash=stored.manifest.identity_sha256,
        estimated_memory_gb=resident_bytes(size) / _GIB,
        # A script renders nothing and is held to no grammar: of it there is nothing to say.
        template_renders=None if template is None else template.tools,
        template_hash="" if template is None else template.sha256,
        constrains_tools=template is not None and template.tools,
        template_fixtures={} if template is None else template.fixtures,
        vision=_sees(facts),
    )


def _sees(facts: Mapping[str, Any]) -> bool:
    """Tell whether images can be answered: of a model that could, our engine runs the text part."""
    return facts.get("model_type") == _SCRIPTED and _VISION in facts


def _hosted(stored: StoredModel) -> Hosted:
    return Hosted(build=stored.manifest.model_id, weight_hash=stored.manifest.aggregate_sha256)


def _config_of(one: StoredModel) -> dict[str, Any]:
    try:
        facts = json.loads((one.directory / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
