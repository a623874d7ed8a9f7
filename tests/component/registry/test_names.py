"""Names that take a build's id over, and names for marketplaces, by the publisher's commands."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

import pytest
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_gateway import convert as gateway
from darkbloom_gateway.errors import ApiError
from darkbloom_mesh.testing import FakeClock
from darkbloom_registry.store import PostgresStore
from darkbloom_router import convert as router
from darkbloom_router.catalog import desired_models
from structlog.testing import capture_logs

from tests.component.registry.harness import Registry, facts, manifest, served
from tests.component.registry.test_publish import publish

OLD, NEW, COPY = "small", "org/small-2", "org/small-copy"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nothing of the registry's log: it would be printed to where a command's thread prints."""
    with capture_logs():
        yield


def desk(registry: Registry) -> Callable[..., Awaitable[str]]:
    async def run(*arguments: object, code: int = 0) -> str:
        at = ("--target", registry.target, "--wait-s", 0)
        return await asyncio.to_thread(publish, *at, *arguments, code=code)

    return run


async def said(registry: Registry, *holdings: pb.BuildHolding, session: str = "s") -> None:
    """Let a router say what its machines hold."""
    request = pb.ConfirmCatalogRequest(
        session=session, room="router", replica="r-0", generation=99, holdings=holdings
    )
    await registry.call("ConfirmCatalog", request)


async def test_a_name_takes_a_builds_id_over_and_lets_go_in_one_order(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        run = desk(registry)
        for build in (OLD, NEW, COPY):
            await registry.register(build)
        assert "`takeover`" in await run("alias", OLD, NEW, code=1)
        taken = json.loads(await run("alias", OLD, NEW, "--takeover"))
        assert (taken["alias"]["previous_build"], taken["alias"]["takeover"]) == (OLD, True)
        shown = await registry.catalog(int(taken["generation"]))

        # Requests and machines go by the name, and the build behind it is still served.
        found = gateway.catalog(shown).resolve(OLD)
        assert (found.name, found.build.build_id, found.fallback_build) == (OLD, NEW, OLD)
        assert [row.name for row in gateway.catalog(shown).listed()] == [OLD, COPY]
        (wish,) = desired_models(router.catalog(shown), [OLD], lambda _alias: True)
        assert (wish.alias, wish.desired, wish.previous) == (OLD, NEW, OLD)

        # Back: never to its own id, always to a copy that was registered before.
        assert "registered under another id" in await run("alias", OLD, OLD, code=1)
        back = json.loads(await run("alias", OLD, COPY, "--takeover"))
        assert back["alias"]["retired_builds"] == [NEW]
        assert "stands behind it" in await run("rollout", "start", OLD, NEW, code=1)
        await run("alias", OLD, NEW, "--takeover")

        # Letting go: everybody has the new one, nobody the old one in memory, deprecated, dropped.
        assert "keep `takeover`" in await run("alias", OLD, NEW, code=1)
        assert "then the name may go" in await run("alias", OLD, "--delete", code=1)
        hidden = catalog_pb2.Alias(
            alias_id=OLD, desired_build=NEW, previous_build=OLD, active=False, takeover=True
        )
        refused = await registry.refused("UpsertAlias", pb.UpsertAliasRequest(alias=hidden))
        assert "then the name may go" in str(refused)
        assert "no router is known" in await run("status", OLD, "deprecated", code=1)
        half = pb.BuildHolding(build=NEW, wished=2, holding=1, current=1)
        await said(registry, half)
        assert "1 of 2 machines do not have" in await run("status", OLD, "deprecated", code=1)
        whole = pb.BuildHolding(build=NEW, wished=2, holding=2, current=2)
        await said(registry, whole, pb.BuildHolding(build=OLD, holding=2, warm=1))
        assert "1 machines still have it in memory" in await run("status", OLD, "retired", code=1)
        await said(registry, whole, pb.BuildHolding(build=OLD, holding=2))
        left = json.loads(await run("status", OLD, "deprecated"))
        assert left["build"]["status"] == "BUILD_STATUS_DEPRECATED"
        plain = json.loads(await run("alias", OLD, NEW))
        assert (plain["alias"]["takeover"], plain["alias"]["previous_build"]) == (False, "")
        assert plain["alias"]["retired_builds"] == [COPY, OLD]

        # Who follows the name cannot be left with a build that is not served.
        await run("alias", "free", OLD, "--marketplace-only")
        assert "free of marketplaces follows it" in await run("alias", OLD, "--delete", code=1)
        await run("alias", "free", "--delete")

        # For good: the build of that id is not served again, and the name may be rolled out.
        assert "took this id over for good" in await run("status", OLD, "active", code=1)
        assert "1 %" in await run("rollout", "start", OLD, COPY)
        final = gateway.catalog(await registry.catalog(int(plain["generation"]) + 3)).resolve(OLD)
        assert (final.build.build_id, final.fallback_build) == (COPY, NEW)


async def test_who_must_let_a_build_go_says_how_many_machines_it_may_cost(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        run = desk(registry)
        await registry.register(OLD)
        await registry.register(NEW)
        await run("alias", OLD, NEW, "--takeover")
        await said(registry, pb.BuildHolding(build=NEW, wished=5, current=3))
        late = ("status", OLD, "deprecated", "--leave-behind")
        assert "2 of 5 machines" in await run(*late, 1, code=1)
        assert json.loads(await run(*late, 2))["generation"] == "4"


async def test_a_name_for_marketplaces_follows_a_model_and_moves_nobody(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        run = desk(registry)
        for build in (NEW, COPY):
            await registry.register(build)
        await run("update", NEW, "--marketplace-slug", "org/by-the-build")
        await run("alias", "name", NEW)
        before = router.catalog(await registry.catalog(4))
        free = ("alias", "name-free", "name", "--marketplace-only")
        made = json.loads(await run(*free, "--marketplace-slug", "org/free"))
        again = json.loads(await run(*free, "--marketplace-slug", "org/free"))
        assert made["alias"]["source_model"] == "name"
        assert again["generation"] == made["generation"]

        shown = await registry.catalog(int(made["generation"]))
        catalog = gateway.catalog(shown)
        assert catalog.resolve("name-free").build.build_id == NEW
        assert [row.name for row in catalog.listed(include_builds=True)] == ["name", NEW, COPY]
        (row,) = catalog.for_marketplaces()
        assert (row.name, row.marketplace_slug) == ("name-free", "org/free")
        # What a router goes by is what it went by before.
        after = router.catalog(shown)
        assert (after.aliases, after.builds) == (before.aliases, before.builds)

        # It moves with the name that it follows, and that name cannot leave it.
        await run("alias", "name", COPY)
        moved = gateway.catalog(await registry.catalog(int(made["generation"]) + 1))
        assert moved.resolve("name-free").build.build_id == COPY
        assert "name-free of marketplaces follows it" in await run(
            "alias", "name", "--delete", code=1
        )
        names = json.loads(await run("aliases"))
        assert [one["alias_id"] for one in names["marketplace_aliases"]] == ["name-free"]
        await run("alias", "name-free", "--delete")
        await run("alias", "name", "--delete")
        gone = gateway.catalog(await registry.catalog(int(made["generation"]) + 3))
        with pytest.raises(ApiError) as caught:
            gone.resolve("name-free")
        assert caught.value.http_status == 404
        actions = [one["action"] for one in json.loads(await run("changes"))["changes"]]
        assert actions[:4] == ["alias_deleted", "alias_deleted", "alias", "marketplace_alias"]


async def test_one_id_is_never_two_things(store: PostgresStore, clock: FakeClock) -> None:
    async with served(store, clock) as registry:
        run = desk(registry)
        await registry.register(OLD)
        await run("alias", "name", OLD)
        for taken in (OLD, "name"):
            refused = await run("alias", taken, OLD + "x", "--marketplace-only", code=1)
            assert "a build or an alias has this name" in refused
        assert "not an alias or a build" in await run(
            "alias", "market", "nobody", "--marketplace-only", code=1
        )
        await run("alias", "market", OLD, "--marketplace-only")
        assert "not an alias or a build" in await run(
            "alias", "other", "market", "--marketplace-only", code=1
        )
        assert "marketplaces have this name" in await run("alias", "market", OLD, code=1)
        error = await registry.refused(
            "RegisterBuild",
            pb.RegisterBuildRequest(build=facts("market"), manifest=manifest("market")),
        )
        assert "an alias has this name" in str(error)


async def test_a_command_that_makes_no_sense_says_so(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        run = desk(registry)
        both = ("alias", "n", OLD, "--marketplace-only", "--takeover")
        assert "follows one model" in await run(*both, code=1)
        slug = ("alias", "n", OLD, "--marketplace-slug", "a/b")
        assert "go with --marketplace-only" in await run(*slug, code=1)
