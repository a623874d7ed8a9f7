"""Who may write, and that every write is on record."""

import json
from typing import Any

import asyncpg
import pytest
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_mesh.errors import (
    ConflictError,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnauthenticatedError,
)
from darkbloom_mesh.testing import FakeClock
from darkbloom_registry.changes import Scope
from darkbloom_registry.keys import PublishingKeys
from darkbloom_registry.store import PostgresStore
from google.protobuf.field_mask_pb2 import FieldMask

from tests.component.registry.harness import facts, manifest, publishing_key, served


def registration() -> pb.RegisterBuildRequest:
    return pb.RegisterBuildRequest(
        build=facts("org/one", min_ram_gb=64), manifest=manifest("org/one", "v1")
    )


async def test_production_wants_a_key_that_is_known_and_has_the_scope(
    store: PostgresStore, clock: FakeClock
) -> None:
    publish = await publishing_key(store, "ci", Scope.PUBLISH)
    promote = await publishing_key(store, "release-manager", Scope.PROMOTE)
    async with served(store, clock, development=False) as registry:
        assert isinstance(
            await registry.refused("RegisterBuild", registration()), UnauthenticatedError
        )
        registry.key = "dbp-nobody"
        assert isinstance(
            await registry.refused("RegisterBuild", registration()), UnauthenticatedError
        )
        registry.key = promote
        assert isinstance(await registry.refused("RegisterBuild", registration()), ForbiddenError)
        registry.key = publish
        await registry.call("RegisterBuild", registration())
        with pytest.raises(ForbiddenError, match="may not promote"):
            await registry.promote("org/one", "v1")
        with pytest.raises(ForbiddenError, match="may not alias"):
            await registry.alias("name", "org/one")
        registry.key = promote
        await registry.promote("org/one", "v1")


async def test_a_key_that_may_not_promote_does_not_do_so_by_registering(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock, development=False) as registry:
        registry.key = await publishing_key(store, "ci", Scope.PUBLISH)
        with pytest.raises(ForbiddenError, match="may not promote"):
            await registry.register("org/one")
        with pytest.raises(NotFoundError):
            await registry.call("GetBuild", pb.GetBuildRequest(build="org/one"))


async def test_a_key_is_revoked_by_its_label_and_both_are_on_record(
    store: PostgresStore, clock: FakeClock
) -> None:
    keys = PublishingKeys(store, clock)
    async with served(store, clock, development=False) as registry:
        await keys.keep("dbp-one", "ci", [Scope.PUBLISH], replace=False)
        registry.key = "dbp-one"
        await registry.call("RegisterBuild", registration())
        with pytest.raises(ConflictError, match="replace it expressly"):
            await keys.keep("dbp-two", "ci", [Scope.PUBLISH], replace=False)
        await registry.call("RegisterBuild", registration())

        await keys.revoke("ci")
        with pytest.raises(UnauthenticatedError):
            await registry.call("RegisterBuild", registration())
        with pytest.raises(NotFoundError):
            await keys.revoke("ci")
        # Nobody takes over the name of one who has left, either.
        with pytest.raises(ConflictError):
            await keys.keep("dbp-two", "ci", [Scope.PUBLISH], replace=False)
        await keys.keep("dbp-two", "ci", [Scope.PUBLISH], replace=True)
        registry.key = "dbp-two"
        await registry.call("RegisterBuild", registration())
        changes = (await registry.call("ListChanges", pb.ListChangesRequest())).changes

    found = [(row.actor, row.action, row.subject) for row in changes]
    assert found == [
        ("owner", "key", "ci"),
        ("owner", "key_revoked", "ci"),
        ("ci", "register", "org/one"),
        ("owner", "key", "ci"),
    ]
    assert json.loads(changes[0].detail_json) == {"scopes": ["publish"], "replaced": True}
    assert "dbp-" not in str(changes)


@pytest.mark.parametrize("label", ["development", "rollout", "owner", "", " ci", "a\nb", "x" * 129])
async def test_no_key_calls_itself_what_the_registry_does(
    store: PostgresStore, clock: FakeClock, label: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        await PublishingKeys(store, clock).keep("dbp-x", label, [Scope.ALIAS], replace=True)


async def test_a_key_from_before_its_label_was_reserved_is_not_believed(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock, development=False) as registry:
        registry.key = await publishing_key(store, "development", *Scope)
        refused = await registry.refused("RegisterBuild", registration())
        assert isinstance(refused, UnauthenticatedError)


async def test_every_write_is_on_record_with_its_generation_and_its_author(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        registry.key = await publishing_key(store, "somebody", *Scope)
        await registry.register("org/one", "v1")
        await registry.register("org/one", "v1")
        await registry.register("org/one", "v2", promote=False)
        await registry.promote("org/one", "v2")
        registry.key = ""
        await registry.alias("name", "org/one")
        retire = pb.RetireVersionRequest(build="org/one", version="v1")
        for _ in range(2):
            await registry.call("RetireVersion", retire)

        first = pb.ListChangesRequest()
        first.page.page_size = 3
        newest = await registry.call("ListChanges", first)
        first.page.page_token = newest.next_page_token
        oldest = await registry.call("ListChanges", first)

    found = [*newest.changes, *oldest.changes]
    assert [row.generation for row in found] == [5, 4, 3, 2, 1]
    assert [(row.actor, row.action, row.subject) for row in found] == [
        ("development", "retire", "org/one"),
        ("development", "alias", "name"),
        ("somebody", "promote", "org/one"),
        ("somebody", "register", "org/one"),
        ("somebody", "register", "org/one"),
    ]
    assert json.loads(found[2].detail_json) == {"version": "v2", "before": "v1"}
    assert json.loads(found[1].detail_json)["after"]["desired_build"] == "org/one"
    assert oldest.next_page_token == ""


async def test_nobody_rewrites_the_record(
    store: PostgresStore, clock: FakeClock, database_url: str
) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one")
    connection = await asyncpg.connect(database_url)
    try:
        for statement in (
            "UPDATE registry.changes SET actor = 'x'",
            "DELETE FROM registry.changes",
            "TRUNCATE registry.changes",
        ):
            with pytest.raises(asyncpg.RaiseError, match="only ever added"):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_retired_version_is_accepted_nowhere_and_never_comes_back(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        first = (await registry.register("org/one", "v1")).build.weight_hash
        second = await registry.register("org/one", "v2")
        assert first in second.build.accepted_weight_hashes
        active = pb.RetireVersionRequest(build="org/one", version="v2")
        assert isinstance(await registry.refused("RetireVersion", active), PreconditionError)

        retire = pb.RetireVersionRequest(build="org/one", version="v1")
        answer = await registry.call("RetireVersion", retire)
        assert first not in answer.build.accepted_weight_hashes
        with pytest.raises(PreconditionError, match="never promoted again"):
            await registry.promote("org/one", "v1")
        missing = pb.RetireVersionRequest(build="org/one", version="v9")
        assert isinstance(await registry.refused("RetireVersion", missing), NotFoundError)


async def test_a_deprecated_build_leaves_the_catalog_and_comes_back_when_it_is_active(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register("org/one")

        async def become(
            status: catalog_pb2.BuildStatus.ValueType, date: str = ""
        ) -> pb.SetBuildStatusResponse:
            request = pb.SetBuildStatusRequest(
                build="org/one", status=status, deprecation_date=date
            )
            return await registry.call("SetBuildStatus", request)

        gone = await become(catalog_pb2.BUILD_STATUS_DEPRECATED, "2027-01-01")
        assert gone.build.deprecation_date == "2027-01-01"
        assert (await store.catalog()).builds == ()
        again = await become(catalog_pb2.BUILD_STATUS_DEPRECATED, "2027-01-01")
        assert again.generation == gone.generation
        await become(catalog_pb2.BUILD_STATUS_ACTIVE)
        assert [build.facts.id for build in (await store.catalog()).builds] == ["org/one"]

        unset = pb.SetBuildStatusRequest(build="org/one")
        assert isinstance(await registry.refused("SetBuildStatus", unset), InvalidArgumentError)
        with pytest.raises(InvalidArgumentError):
            await become(catalog_pb2.BUILD_STATUS_RETIRED, "soon")

        await registry.register("org/two")
        await registry.alias("name", "org/one")
        start = pb.StartRolloutRequest(request_id="r", alias="name", to_build="org/two")
        await registry.call("StartRollout", start)
        with pytest.raises(PreconditionError, match="a rollout moves a name"):
            await become(catalog_pb2.BUILD_STATUS_RETIRED)


async def test_a_page_token_that_is_none_of_ours_is_refused(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        request = pb.ListChangesRequest()
        for token in ("-", "YWJj", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5"):
            request.page.page_token = token
            assert isinstance(await registry.refused("ListChanges", request), InvalidArgumentError)


async def test_what_consumers_get_is_decided_by_two_keys(
    store: PostgresStore, clock: FakeClock
) -> None:
    keys = {name: await publishing_key(store, name, *Scope) for name in ("ann", "bob")}
    async with served(store, clock, two_keys=True) as registry:

        async def asks(who: str, method: str, request: Any) -> Any:
            registry.key = keys[who]
            try:
                return await registry.call(method, request)
            except PreconditionError as error:
                if "another key" in error.message:
                    return None
                raise

        for version in ("v1", "v2"):
            registry.key = keys["ann"]
            await registry.register("org/model", version, promote=False)
        promote = pb.PromoteVersionRequest(build="org/model", version="v1")
        assert await asks("ann", "PromoteVersion", promote) is None
        assert await asks("ann", "PromoteVersion", promote) is None
        other = pb.PromoteVersionRequest(build="org/model", version="v2")
        assert await asks("bob", "PromoteVersion", other) is None
        clock.jump(3500)
        done = await asks("bob", "PromoteVersion", promote)
        assert done.build.active_version == "v1"
        (change,) = (await registry.call("ListChanges", pb.ListChangesRequest())).changes[:1]
        assert (change.action, change.actor) == ("promote", "ann, bob")

        clock.jump(3700)
        assert await asks("ann", "PromoteVersion", other) is None
        assert await asks("bob", "PromoteVersion", other) is not None

        parameters = catalog_pb2.Build(id="org/model", runtime_parameters_json='{"a": 1}')
        deciding = FieldMask(paths=["description", "runtime_parameters_json"])
        update = pb.UpdateBuildRequest(build=parameters, update_mask=deciding)
        assert await asks("ann", "UpdateBuild", update) is None
        updated = await asks("bob", "UpdateBuild", update)
        assert updated.build.runtime_parameters_json == '{"a": 1}'
        words = pb.UpdateBuildRequest(
            build=catalog_pb2.Build(id="org/model", description="one key's own words"),
            update_mask=FieldMask(paths=["description"]),
        )
        assert await asks("ann", "UpdateBuild", words) is not None

        registry.key = keys["ann"]
        await registry.register("org/next", promote=False)
        promoted = pb.PromoteVersionRequest(build="org/next", version="v1")
        alias = catalog_pb2.Alias(alias_id="name", desired_build="org/model", active=True)
        for method, request in (
            ("PromoteVersion", promoted),
            ("UpsertAlias", pb.UpsertAliasRequest(alias=alias)),
        ):
            assert await asks("ann", method, request) is None
            assert await asks("bob", method, request) is not None
        start = {"alias": "name", "to_build": "org/next"}
        first = pb.StartRolloutRequest(request_id="drawn by ann", **start)
        second = pb.StartRolloutRequest(request_id="drawn by bob", **start)
        assert await asks("ann", "StartRollout", first) is None
        rollout_id = (await asks("bob", "StartRollout", second)).rollout.rollout_id
        stop = pb.ChangeRolloutRequest(rollout_id=rollout_id, action=pb.ROLLOUT_ACTION_PAUSE)
        on = pb.ChangeRolloutRequest(rollout_id=rollout_id, action=pb.ROLLOUT_ACTION_RESUME)
        assert await asks("ann", "ChangeRollout", stop) is not None
        assert await asks("ann", "ChangeRollout", on) is None
        back = pb.ChangeRolloutRequest(rollout_id=rollout_id, action=pb.ROLLOUT_ACTION_REVERT)
        assert await asks("bob", "ChangeRollout", back) is not None
