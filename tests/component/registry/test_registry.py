import asyncio
import contextlib

import asyncpg
import pytest
from darkbloom.common.v1 import page_pb2
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_edge.manifest import FileRole, parse_manifest
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_edge.signed_manifest import open_manifest
from darkbloom_mesh.errors import (
    ConflictError,
    DrainingError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    StoreUnavailableError,
    from_rpc_error,
)
from darkbloom_mesh.testing import FakeClock
from darkbloom_registry.changes import Scope
from darkbloom_registry.store import PostgresStore

from tests.component.registry.harness import facts, manifest, next_event, publishing_key, served


def request(build: str, data: bytes, **changes: object) -> pb.RegisterBuildRequest:
    return pb.RegisterBuildRequest(build=facts(build, **changes), manifest=data, promote=True)


async def test_a_registered_build_is_in_the_catalog_with_its_hash(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        answer = await registry.register("org/one")
        expected = parse_manifest(manifest("org/one"))
        snapshot = await registry.catalog(1)

        assert answer.generation == snapshot.generation == 1
        assert snapshot.builds[0].weight_hash == expected.aggregate_sha256
        assert snapshot.builds[0].identity_hash == expected.identity_sha256
        assert list(snapshot.builds[0].accepted_weight_hashes) == [expected.aggregate_sha256]


async def test_the_manifest_comes_back_exactly_as_registered(
    store: PostgresStore, clock: FakeClock
) -> None:
    data = manifest("org/one") + b"\n \n"
    async with served(store, clock) as registry:
        await registry.call("RegisterBuild", request("org/one", data))
        for version in ("v1", ""):
            answer = await registry.call(
                "GetManifest", pb.GetManifestRequest(build="org/one", version=version)
            )
            assert answer.manifest == data


async def test_the_same_files_again_change_nothing(store: PostgresStore, clock: FakeClock) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one", "v1")
        await registry.register("org/one", "v2")
        again = await registry.register("org/one", "v1", created_at="2026-02-02T00:00:00Z")

        assert again.generation == 2
        # A late retry must not undo the promotion that came after it.
        assert again.build.active_version == "v2"


async def test_other_files_under_the_same_version_are_refused(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one", content=b"first")
        error = await registry.refused(
            "RegisterBuild", request("org/one", manifest("org/one", content=b"second"))
        )
        assert isinstance(error, ConflictError)
        assert error.reason_name == "IMMUTABLE"


async def test_facts_are_those_of_the_first_registration(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.call("RegisterBuild", request("org/one", manifest("org/one"), family="a"))
        answer = await registry.call(
            "RegisterBuild", request("org/one", manifest("org/one", "v2"), family="b")
        )
        assert answer.build.family == "a"


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xff" * 9, b"[" * 9999, manifest("org/other"), b" " * ((1 << 20) + 1)],
    ids=["empty", "no fields", "not utf-8", "too deep", "another build", "too large"],
)
async def test_a_bad_manifest_is_refused_with_its_reason(
    store: PostgresStore, clock: FakeClock, data: bytes
) -> None:
    async with served(store, clock) as registry:
        error = await registry.refused("RegisterBuild", request("org/one", data))
        assert isinstance(error, InvalidArgumentError)
        assert error.reason_name == "MANIFEST_INVALID"


async def test_scripted_builds_are_small_and_never_in_production(
    store: PostgresStore, clock: FakeClock
) -> None:
    tiny = request("dev/scripted", manifest("dev/scripted", role=FileRole.CONFIG))
    async with served(store, clock, development=False) as registry:
        registry.key = await publishing_key(store, "someone", Scope.PUBLISH, Scope.PROMOTE)
        assert isinstance(await registry.refused("RegisterBuild", tiny), PreconditionError)
    async with served(store, clock, development=True) as registry:
        assert (await registry.call("RegisterBuild", tiny)).build.active_version == "v1"


async def test_a_promotion_retains_the_hash_before_and_may_be_rolled_back(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        first = (await registry.register("org/one", "v1")).build.weight_hash
        second = await registry.register("org/one", "v2", promote=False)
        assert list(second.build.accepted_weight_hashes) == [first]

        await registry.promote("org/one", "v2")
        back = await registry.promote("org/one", "v1")
        again = await registry.promote("org/one", "v1")
        states = {version.version: version.state for version in back.build.versions}

        assert back.build.weight_hash == first
        assert len(back.build.accepted_weight_hashes) == 2
        assert states == {
            "v1": catalog_pb2.VERSION_STATE_ACTIVE,
            "v2": catalog_pb2.VERSION_STATE_RETAINED,
        }
        assert again.generation == back.generation


async def test_a_build_that_was_never_promoted_is_not_in_the_catalog(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one", promote=False)
        assert not (await registry.catalog(1)).builds


async def test_a_deprecated_build_is_not_in_the_catalog(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        status = catalog_pb2.BUILD_STATUS_DEPRECATED
        await registry.call("RegisterBuild", request("org/one", manifest("org/one"), status=status))
        assert not (await registry.catalog(1)).builds
        listed = await registry.call("ListBuilds", pb.ListBuildsRequest())
        assert [build.id for build in listed.builds] == ["org/one"]


async def test_unknown_things_are_not_found(store: PostgresStore, clock: FakeClock) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one")
        for method, wanted in (
            ("GetBuild", pb.GetBuildRequest(build="org/two")),
            ("GetManifest", pb.GetManifestRequest(build="org/one", version="v9")),
            ("PromoteVersion", pb.PromoteVersionRequest(build="org/two", version="v1")),
            ("PromoteVersion", pb.PromoteVersionRequest(build="org/one", version="v9")),
        ):
            assert isinstance(await registry.refused(method, wanted), NotFoundError)
        nul = await registry.refused("GetBuild", pb.GetBuildRequest(build="a\0"))
        assert isinstance(nul, InvalidArgumentError)


async def test_pages_cover_every_build_once(store: PostgresStore, clock: FakeClock) -> None:
    names = [f"org/{letter}" for letter in "BAcde"]
    async with served(store, clock) as registry:
        for name in names:
            await registry.register(name)
        found, token = [], ""
        while True:
            page = page_pb2.PageRequest(page_size=2, page_token=token)
            answer = await registry.call("ListBuilds", pb.ListBuildsRequest(page=page))
            found += [build.id for build in answer.builds]
            token = answer.next_page_token
            if not token:
                break
        assert found == sorted(names)


async def test_an_alias_moves_and_remembers(store: PostgresStore, clock: FakeClock) -> None:
    async with served(store, clock) as registry:
        for name in ("org/one", "org/two", "org/three"):
            await registry.register(name)
        await registry.alias("small", "org/one")
        await registry.alias("small", "org/two", "org/one")
        last = await registry.alias("small", "org/three", traffic_percent=50)
        again = await registry.alias("small", "org/three", traffic_percent=50)
        snapshot = await registry.catalog(last.generation)

        assert list(last.alias.retired_builds) == ["org/two", "org/one"]
        assert again.generation == last.generation == snapshot.generation
        assert snapshot.aliases[0] == last.alias


async def test_an_alias_points_only_at_registered_builds_of_another_name(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register("one")
        for alias, field in (
            (catalog_pb2.Alias(alias_id="small", desired_build="two"), "alias.desired_build"),
            (
                catalog_pb2.Alias(alias_id="small", desired_build="one", previous_build="two"),
                "alias.previous_build",
            ),
        ):
            error = await registry.refused("UpsertAlias", pb.UpsertAliasRequest(alias=alias))
            assert isinstance(error, InvalidArgumentError)
            assert error.field == field


async def test_a_name_is_a_build_or_an_alias_never_both(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        for name in ("one", "two"):
            await registry.register(name)
        taken = catalog_pb2.Alias(alias_id="two", desired_build="one")
        error = await registry.refused("UpsertAlias", pb.UpsertAliasRequest(alias=taken))
        assert isinstance(error, PreconditionError)

        await registry.alias("small", "one")
        error = await registry.refused("RegisterBuild", request("small", manifest("small")))
        assert isinstance(error, PreconditionError)


async def test_an_inactive_alias_is_not_in_the_catalog(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one")
        await registry.alias("small", "org/one", active=False)
        assert not (await registry.catalog(2)).aliases


async def test_a_watch_sees_each_write_without_waiting_for_a_heartbeat(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        watch = registry.watch()
        # An empty registry says that it is alive, never that the catalog is empty.
        assert (await next_event(watch)).heartbeat.generation == 0
        for number, name in enumerate(("org/one", "org/two"), 1):
            await registry.register(name)
            assert (await next_event(watch)).snapshot.generation == number


async def test_a_watcher_that_holds_the_generation_gets_no_snapshot(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one")
        assert (await registry.catalog(1)).generation == 1
        assert (await next_event(registry.watch(after=1))).heartbeat.generation == 1


async def test_a_write_at_one_replica_reaches_the_watchers_of_another(
    store: PostgresStore, database_url: str, clock: FakeClock
) -> None:
    other = await PostgresStore.connect(database_url)
    async with served(store, clock) as registry, served(other, clock) as replica:
        watch = replica.watch()
        await next_event(watch)
        await registry.register("org/one")
        assert (await next_event(watch)).snapshot.generation == 1
    await other.close()


async def test_writes_in_parallel_make_one_generation_each(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        answers = await asyncio.gather(
            *(registry.register(f"org/{number}") for number in range(12))
        )
        same = await asyncio.gather(*(registry.register("org/same") for _ in range(4)))

        assert sorted(answer.generation for answer in answers) == list(range(1, 13))
        assert {answer.generation for answer in same} == {13}
        assert await store.generation() == 13


async def test_the_catalog_survives_a_restart(
    store: PostgresStore, database_url: str, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one")
    again = await PostgresStore.connect(database_url)
    async with served(again, clock) as registry:
        snapshot = (await next_event(registry.watch())).snapshot
        assert (snapshot.generation, len(snapshot.builds)) == (1, 1)
    await again.close()


async def test_a_lost_listener_is_replaced(
    store: PostgresStore, database_url: str, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        watch = registry.watch()
        await next_event(watch)
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()
        # A call may meet a connection that is gone; repeating it is safe.
        while True:
            with contextlib.suppress(StoreUnavailableError):
                await registry.register("org/one")
                break
        event = None
        while event is None or not event.HasField("snapshot"):
            # Each round brings a heartbeat at least.
            await clock.advance(10)
            event = await next_event(watch)
        assert event.snapshot.generation == 1


async def test_what_was_published_cannot_be_changed_by_anybody(
    store: PostgresStore, database_url: str, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one")
    connection = await asyncpg.connect(database_url)
    for statement in (
        "UPDATE registry.versions SET manifest = ''",
        "UPDATE registry.versions SET aggregate_sha256 = identity_sha256",
        "DELETE FROM registry.versions",
    ):
        with pytest.raises(asyncpg.RaiseError, match="immutable"):
            await connection.execute(statement)
    await connection.close()


async def test_a_draining_replica_sends_its_watchers_away(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        watch = registry.watch()
        await next_event(watch)
        await registry.feed.close()
        with pytest.raises(Exception, match="leaving") as caught:
            await next_event(watch)
        assert isinstance(from_rpc_error(caught.value), DrainingError)


async def test_a_manifest_is_signed_and_its_key_is_published(
    store: PostgresStore, clock: FakeClock
) -> None:
    signer = Ed25519Signer(bytes(range(32)))
    async with served(store, clock, signer=signer) as registry:
        await registry.register("org/one")
        found = await registry.call("GetManifest", pb.GetManifestRequest(build="org/one"))
        listed = await registry.call("ListManifestKeys", pb.ListManifestKeysRequest())

    keys = {key.key_id: key.public_key for key in listed.keys}
    opened = open_manifest(found.manifest, found.signature, found.key_id, keys)
    assert opened.model_id == "org/one"


async def test_without_a_key_manifests_are_unsigned(store: PostgresStore, clock: FakeClock) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one")
        found = await registry.call("GetManifest", pb.GetManifestRequest(build="org/one"))
        listed = await registry.call("ListManifestKeys", pb.ListManifestKeysRequest())

    assert (found.signature, found.key_id, len(listed.keys)) == (b"", "", 0)


async def test_sources_may_move_and_files_may_not(store: PostgresStore, clock: FakeClock) -> None:
    data = manifest("org/one")

    def sent(*sources: str) -> pb.RegisterBuildRequest:
        return pb.RegisterBuildRequest(
            build=facts("org/one"), manifest=data, promote=True, sources=sources
        )

    async with served(store, clock) as registry:
        await registry.call("RegisterBuild", sent("https://a.example/x/"))
        same = await registry.call("RegisterBuild", sent())
        moved = await registry.call("RegisterBuild", sent("s3://bucket/x", "s3://bucket/x"))

    assert (same.generation, moved.generation) == (1, 2)
    assert list(same.build.versions[0].sources) == ["https://a.example/x"]
    assert list(moved.build.versions[0].sources) == ["s3://bucket/x"]


async def test_a_source_that_providers_would_refuse_is_refused(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        for text in ("ftp://x/y", "file:///etc", "https://u@x/y", "https://x/../y", "hf:a/b@main"):
            request = pb.RegisterBuildRequest(
                build=facts("org/one"), manifest=manifest("org/one"), sources=[text]
            )
            error = await registry.refused("RegisterBuild", request)
            assert isinstance(error, InvalidArgumentError), text
