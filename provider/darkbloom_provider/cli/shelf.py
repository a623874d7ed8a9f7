"""What the picker offers: the store and, where a gateway is known, the network's catalog."""

from collections.abc import Iterable

from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.engines import DEVELOPMENT_NAMESPACE
from darkbloom_provider.models.store import ModelStore
from darkbloom_provider.picking import GIB, Shelf, make_shelf


def offered(config: ProviderConfig, physical_bytes: int) -> Shelf:
    """Return what may be chosen on this machine."""
    scripted = config.engine == "scripted"
    stored = [
        (one.manifest.model_id, one.manifest.total_size_bytes)
        for one in ModelStore(config.store_root).list()
        if one.manifest.model_id.startswith(DEVELOPMENT_NAMESPACE) == scripted
    ]
    return make_shelf(
        stored,
        (),
        physical_bytes=physical_bytes,
        reserve_bytes=int(config.memory_reserve_gb * GIB),
    )


def fetch(config: ProviderConfig, names: Iterable[str]) -> None:
    """Download what was chosen and is not here."""
    del config, names
