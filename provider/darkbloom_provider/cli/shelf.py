"""What the picker offers: the store and, where a gateway is known, the network's catalog."""

import asyncio
from collections.abc import Iterable

import typer

from darkbloom_provider.cli.models_fetch import download
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.engines import DEVELOPMENT_NAMESPACE
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.fetchers import gateway_of
from darkbloom_provider.models.catalog import CatalogClient
from darkbloom_provider.models.store import ModelStore
from darkbloom_provider.picking import GIB, Shelf, make_shelf

PATIENCE_S = 10.0
"""How long the catalog is waited for; what is here can be served without it."""


def offered(config: ProviderConfig, physical_bytes: int) -> Shelf:
    """Return what may be chosen on this machine; without a catalog, what is here."""
    scripted = config.engine == "scripted"
    stored = [
        (one.manifest.model_id, one.manifest.total_size_bytes)
        for one in ModelStore(config.store_root).list()
        if one.manifest.model_id.startswith(DEVELOPMENT_NAMESPACE) == scripted
    ]
    return make_shelf(
        stored,
        () if scripted else _catalog(config),
        physical_bytes=physical_bytes,
        reserve_bytes=int(config.memory_reserve_gb * GIB),
    )


def fetch(names: Iterable[str]) -> None:
    """Download what was chosen and is not here.

    Raises:
        ProviderError: one of them cannot be had; what has come is kept.
    """
    for name in names:
        if download(name, version="", source="", force=False, json_=False):
            raise ProviderError(f"{name} is not whole", "`darkbloom start` goes on with it")


def _catalog(config: ProviderConfig) -> list[tuple[str, int]]:
    try:
        return asyncio.run(_ask(gateway_of(config)))
    except ProviderError as error:
        typer.echo(f"The network's catalog cannot be seen: {error}.", err=True)
    except TimeoutError:
        typer.echo("The network's catalog does not come in time.", err=True)
    return []


async def _ask(gateway: str) -> list[tuple[str, int]]:
    async with asyncio.timeout(PATIENCE_S), CatalogClient(gateway) as client:
        entries = await client.models("text")
    return [(one.id, version.size_bytes) for one in entries if (version := one.get()) is not None]
