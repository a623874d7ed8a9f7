"""Which catalogs a gateway believes."""

from collections.abc import AsyncIterator, Sequence

from darkbloom.registry.v1.catalog_pb2 import Alias, Build, Catalog
from darkbloom_gateway.news import CatalogNews
from darkbloom_gateway.stage import CatalogShelf
from darkbloom_mesh.testing import FakeClock


class Registry:
    """Says what it was told to say."""

    def __init__(self, catalogs: Sequence[Catalog]) -> None:
        self._catalogs = catalogs

    async def watch_catalog(self, after_generation: int) -> AsyncIterator[Catalog | None]:
        assert after_generation == 0
        for catalog in self._catalogs:
            yield catalog


async def last_of(*catalogs: Catalog) -> int:
    """Return the generation that is in force after so many catalogs."""
    shelf = CatalogShelf()
    news = CatalogNews(Registry(catalogs), shelf, FakeClock(), None)
    async for snapshot in news._connect():
        news._take(snapshot)
    assert shelf.catalog is not None
    return shelf.catalog.generation


def full(generation: int) -> Catalog:
    return Catalog(
        generation=generation,
        builds=[Build(id="o/b")],
        aliases=[Alias(alias_id="b", desired_build="o/b", active=True)],
    )


async def test_a_registry_whose_volume_came_back_blank_takes_no_model_away() -> None:
    assert await last_of(full(5), Catalog(generation=0)) == 5
    assert await last_of(full(5), Catalog(generation=4)) == 5


async def test_whoever_takes_the_last_model_away_or_restores_a_backup_is_believed() -> None:
    assert await last_of(full(5), Catalog(generation=6)) == 6
    assert await last_of(full(5), full(4)) == 4
