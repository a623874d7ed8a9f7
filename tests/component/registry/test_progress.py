"""Who goes by a change, how far machines are with a build, and what may change about one."""

import json
from datetime import timedelta

import pytest
from darkbloom.registry.v1 import catalog_pb2, rollout_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_mesh.errors import (
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)
from darkbloom_mesh.telemetry import Metrics
from darkbloom_mesh.testing import FakeClock
from darkbloom_registry.cli.desk import in_words
from darkbloom_registry.progress.following import Following, Gauges
from darkbloom_registry.progress.readers import LIFETIME, LIVE
from darkbloom_registry.store import PostgresStore
from google.protobuf.field_mask_pb2 import FieldMask
from prometheus_client import generate_latest

from tests.component.registry.harness import Registry, facts, manifest, served

BUILD = "org/model"


async def confirm(
    registry: Registry, replica: str, generation: int, *holdings: pb.BuildHolding, life: str = "1"
) -> None:
    request = pb.ConfirmCatalogRequest(
        session=f"{replica} {life}",
        room="router",
        replica=replica,
        generation=generation,
        holdings=holdings,
    )
    await registry.call("ConfirmCatalog", request)


async def leave(registry: Registry, replica: str) -> None:
    request = pb.ConfirmCatalogRequest(
        session=f"{replica} 1", room="router", replica=replica, leaving=True
    )
    await registry.call("ConfirmCatalog", request)


async def propagation(registry: Registry, generation: int = 0) -> pb.GetPropagationResponse:
    answer = await registry.call("GetPropagation", pb.GetPropagationRequest(generation=generation))
    assert isinstance(answer, pb.GetPropagationResponse)
    return answer


async def progress(registry: Registry, build: str = BUILD) -> pb.GetBuildProgressResponse:
    answer = await registry.call("GetBuildProgress", pb.GetBuildProgressRequest(build=build))
    assert isinstance(answer, pb.GetBuildProgressResponse)
    return answer


async def test_a_write_is_durable_at_once_and_propagated_when_every_replica_goes_by_it(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        written = (await registry.register(BUILD)).generation
        found = await propagation(registry, written)
        assert (found.committed, found.propagated, list(found.readers)) == (True, False, [])

        await confirm(registry, "r-0", written)
        await confirm(registry, "r-1", written - 1)
        found = await propagation(registry, written)
        assert not found.propagated
        assert [(r.replica, r.generation) for r in found.readers] == [
            ("r-0", written),
            ("r-1", written - 1),
        ]
        await confirm(registry, "r-1", written)
        assert (await propagation(registry)).propagated

        later = await propagation(registry, written + 1)
        assert (later.committed, later.propagated) == (False, False)


async def test_a_replica_that_is_silent_and_behind_is_named_until_it_says_that_it_ends(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        written = (await registry.register(BUILD)).generation
        # Cut off, or gone: nobody knows, and it may go on with what was taken away.
        await confirm(registry, "r-0", written - 1)
        await confirm(registry, "r-2", written)
        clock.jump(LIVE.total_seconds() - 1)
        await confirm(registry, "r-1", 0)
        clock.jump(2)
        await confirm(registry, "r-1", written, life="2")
        found = await propagation(registry, written)
        assert not found.propagated
        assert [(r.replica, r.generation, r.silent) for r in found.readers] == [
            ("r-0", written - 1, True),
            ("r-1", written, False),
            ("r-2", written, True),
        ]
        assert in_words(found) == f"generation {written}, not yet at router r-0 (silent)"

        await leave(registry, "r-0")
        found = await propagation(registry, written)
        assert found.propagated
        assert in_words(found) == f"generation {written}, at all 1 replicas that follow"

        clock.jump(LIVE.total_seconds() + 1)
        found = await propagation(registry, written)
        assert not found.propagated
        assert in_words(found) == f"generation {written}, nobody follows"


async def test_a_replica_that_was_killed_while_behind_stands_in_the_way_for_minutes_only(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        written = (await registry.register(BUILD)).generation
        await confirm(registry, "killed", written - 1)
        clock.jump(LIFETIME.total_seconds())
        await confirm(registry, "r-1", written)
        assert not (await propagation(registry, written)).propagated

        clock.jump(1)
        found = await propagation(registry, written)
        assert found.propagated
        assert [reader.replica for reader in found.readers] == ["r-1"]
        # It was only cut off, and is back.
        await confirm(registry, "killed", written - 1)
        assert not (await propagation(registry, written)).propagated


async def test_what_silent_routers_held_is_not_what_is_held_now(
    store: PostgresStore, clock: FakeClock
) -> None:
    """A share of machines that nobody speaks for, or that nobody asks, is no share."""
    metrics, following = Metrics(version="test"), Following(store, clock)
    gauges = Gauges(store, following, metrics, clock)
    share = b'darkbloom_rollout_converged_ratio{model="org/next"}'
    async with served(store, clock) as registry:
        await registry.register(BUILD)
        await registry.register("org/next")
        await registry.alias("name", BUILD)
        start = pb.StartRolloutRequest(request_id="one", alias="name", to_build="org/next")
        begun = (await registry.call("StartRollout", start)).generation
        await gauges.measure()
        assert share not in generate_latest(metrics.registry)
        unasked = pb.BuildHolding(build="org/next", holding=3)
        await confirm(registry, "r-0", begun, unasked)
        await gauges.measure()
        assert share not in generate_latest(metrics.registry)
        held = pb.BuildHolding(build="org/next", wished=4, holding=5, current=2, warm=1)
        await confirm(registry, "r-0", begun, held)
        await gauges.measure()
        assert share + b" 0.5" in generate_latest(metrics.registry)
        assert (await progress(registry, "org/next")).now == held
        clock.jump(LIVE.total_seconds() + 1)
        await gauges.measure()
        assert share not in generate_latest(metrics.registry)
        assert (await progress(registry, "org/next")).now == pb.BuildHolding(build="org/next")


async def test_a_confirmation_that_cannot_be_read_is_refused(
    store: PostgresStore, clock: FakeClock
) -> None:
    good = {"room": "router", "session": "s", "replica": "r"}
    wrong = {
        "room": {"room": "kitchen"},
        "session": {"session": ""},
        "replica": {"replica": "r" * 300},
        "generation": {"generation": -1},
        "holdings": {"holdings": [pb.BuildHolding(build="b", warm=-1)]},
    }
    async with served(store, clock) as registry:
        for field, change in wrong.items():
            request = pb.ConfirmCatalogRequest(**{**good, **change})
            error = await registry.refused("ConfirmCatalog", request)
            assert isinstance(error, InvalidArgumentError)
            assert error.field == field


async def test_one_view_says_how_far_machines_are_with_a_build(
    store: PostgresStore, clock: FakeClock
) -> None:
    stages = [
        ("prov_1", "m1", rollout_pb2.MODEL_STAGE_DOWNLOADING, 10, ""),
        ("prov_2", "m2", rollout_pb2.MODEL_STAGE_DOWNLOADING, 30, ""),
        ("prov_3", "m3", rollout_pb2.MODEL_STAGE_FAILED, 0, "disk_full"),
        ("prov_4", "m4", rollout_pb2.MODEL_STAGE_VERIFIED, 0, ""),
    ]
    rows = [
        rollout_pb2.ModelState(
            provider_id=provider,
            machine=machine,
            build=BUILD,
            stage=stage,
            bytes_done=done,
            bytes_total=100 if done else 0,
            error=error,
        )
        for provider, machine, stage, done, error in stages
    ]
    async with served(store, clock) as registry:
        await registry.register(BUILD)
        await registry.call(
            "ReportModelStates", pb.ReportModelStatesRequest(session="s", sequence=1, states=rows)
        )
        # The third machine has connected again since, and is told of once.
        rows[2].provider_id, rows[2].stage = "prov_5", rollout_pb2.MODEL_STAGE_FAILED
        rows[2].error = "corrupt"
        await registry.call(
            "ReportModelStates",
            pb.ReportModelStatesRequest(session="s", sequence=2, states=[rows[2]]),
        )
        unproven = await progress(registry)
        for replica in ("r-0", "r-1"):
            held = pb.BuildHolding(build=BUILD, wished=4, holding=3, current=2, warm=1)
            await confirm(registry, replica, 1, held)
        found = await progress(registry)
        with pytest.raises(NotFoundError):
            await progress(registry, "org/none")

    assert {one.stage: one.machines for one in found.stages} == {
        rollout_pb2.MODEL_STAGE_DOWNLOADING: 2,
        rollout_pb2.MODEL_STAGE_FAILED: 1,
        rollout_pb2.MODEL_STAGE_VERIFIED: 1,
    }
    assert (found.bytes_done, found.bytes_total) == (40, 200)
    assert [(one.error, one.machines) for one in found.failures] == [("corrupt", 1)]
    assert found.now == pb.BuildHolding(build=BUILD, wished=8, holding=6, current=4, warm=2)
    assert (unproven.proven, found.proven) == (False, True)


async def test_what_is_measured_says_where_the_catalog_and_its_rollouts_are(
    store: PostgresStore, clock: FakeClock
) -> None:
    metrics, following = Metrics(version="test"), Following(store, clock)
    gauges = Gauges(store, following, metrics, clock)
    async with served(store, clock) as registry:
        await registry.register(BUILD)
        await registry.register("org/next")
        await registry.alias("name", BUILD)
        begun = await registry.call(
            "StartRollout",
            pb.StartRolloutRequest(request_id="one", alias="name", to_build="org/next"),
        )
        held = pb.BuildHolding(build="org/next", wished=4, holding=2, current=1)
        clock.jump(timedelta(minutes=45).total_seconds())
        await confirm(registry, "r-0", begun.generation, held)
        await registry.call(
            "ReportModelStates",
            pb.ReportModelStatesRequest(
                session="s",
                sequence=1,
                states=[
                    rollout_pb2.ModelState(
                        provider_id="p",
                        machine="m",
                        build="org/next",
                        stage=rollout_pb2.MODEL_STAGE_LOADED,
                    )
                ],
            ),
        )
        await gauges.measure()
    page = generate_latest(metrics.registry).decode()
    assert f"darkbloom_catalog_generation {float(begun.generation)}" in page
    assert 'darkbloom_model_prefetch_providers{model="org/next",state="loaded"} 1.0' in page
    assert 'darkbloom_model_prefetch_providers{model="org/model",state="loaded"} 0.0' in page
    assert 'darkbloom_rollout_converged_ratio{model="org/next"} 0.25' in page
    # Its soak is ten minutes of the 45.
    assert 'darkbloom_rollout_overdue_seconds{model="org/next"} 2100.0' in page


async def test_a_hash_is_what_its_version_is_now(store: PostgresStore, clock: FakeClock) -> None:
    async with served(store, clock) as registry:
        hashes = {}
        for version in ("v1", "v2", "v3"):
            answer = await registry.register(BUILD, version, promote=version != "v3")
            hashes |= {one.version: one.aggregate_sha256 for one in answer.build.versions}

        async def said(build: str, weight_hash: str) -> tuple[int, bool]:
            request = pb.CheckModelHashRequest(build=build, weight_hash=weight_hash)
            found = await registry.call("CheckModelHash", request)
            return found.state, found.accepted

        states = catalog_pb2.VersionState
        assert await said(BUILD, hashes["v2"]) == (states.VERSION_STATE_ACTIVE, True)
        assert await said(BUILD, hashes["v1"].upper()) == (states.VERSION_STATE_RETAINED, True)
        assert await said(BUILD, hashes["v3"]) == (states.VERSION_STATE_READY, False)
        await registry.call("RetireVersion", pb.RetireVersionRequest(build=BUILD, version="v1"))
        assert await said(BUILD, hashes["v1"]) == (states.VERSION_STATE_RETIRED, False)
        assert await said(BUILD, "0" * 64) == (states.VERSION_STATE_UNSPECIFIED, False)
        assert await said("org/none", hashes["v2"]) == (states.VERSION_STATE_UNSPECIFIED, False)


async def test_a_name_is_taken_away_listed_until_then_and_its_rollouts_stay_on_record(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register(BUILD)
        await registry.register("org/next")
        await registry.alias("hidden", BUILD, active=False)
        await registry.alias("name", BUILD)
        listed = await registry.call("ListAliases", pb.ListAliasesRequest())
        assert [one.alias_id for one in listed.aliases] == ["hidden", "name"]

        start = pb.StartRolloutRequest(request_id="one", alias="name", to_build="org/next")
        rollout_id = (await registry.call("StartRollout", start)).rollout.rollout_id
        delete = pb.DeleteAliasRequest(alias_id="name")
        assert isinstance(await registry.refused("DeleteAlias", delete), PreconditionError)
        revert = pb.ChangeRolloutRequest(rollout_id=rollout_id, action=pb.ROLLOUT_ACTION_REVERT)
        await registry.call("ChangeRollout", revert)

        gone = await registry.call("DeleteAlias", delete)
        assert not (await registry.catalog(gone.generation)).aliases
        assert isinstance(await registry.refused("DeleteAlias", delete), NotFoundError)
        kept = await registry.call("GetRollout", pb.GetRolloutRequest(rollout_id=rollout_id))
        assert kept.rollout.alias == "name"
        (change,) = (await registry.call("ListChanges", pb.ListChangesRequest())).changes[:1]
        assert (change.action, change.subject) == ("alias_deleted", "name")
        assert json.loads(change.detail_json)["before"]["desired_build"] == BUILD


async def test_what_is_said_about_a_build_may_change_and_what_it_is_may_not(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await registry.register(BUILD)

        async def update(**fields: object) -> catalog_pb2.Build:
            request = pb.UpdateBuildRequest(
                build=catalog_pb2.Build(**{"id": BUILD, **fields}),
                update_mask=FieldMask(paths=list(fields)),
            )
            found = await registry.call("UpdateBuild", request)
            assert isinstance(found.build, catalog_pb2.Build)
            return found.build

        await update(runtime_parameters_json='{"a": 1, "b": 2}')
        merged = await update(
            runtime_parameters_json='{"b": null, "c": 3}',
            capabilities=[" tools ", "chat", "tools", ""],
            marketplace_slug="org/slug",
        )
        assert json.loads(merged.runtime_parameters_json) == {"a": 1, "c": 3}
        assert list(merged.capabilities) == ["tools", "chat"]
        assert (merged.marketplace_slug, merged.family) == ("org/slug", "llama")
        generation = (await registry.call("ListBuilds", pb.ListBuildsRequest())).generation
        await update(marketplace_slug="org/slug")
        assert (await propagation(registry)).newest_generation == generation

        for fields in ({}, {"family": "other"}, {"min_ram_gb": 1}, {"capabilities": ["fly"]}):
            request = pb.UpdateBuildRequest(
                build=catalog_pb2.Build(**{"id": BUILD, **fields}),  # type: ignore[arg-type] # named by the test
                update_mask=FieldMask(paths=list(fields)),
            )
            assert isinstance(await registry.refused("UpdateBuild", request), InvalidArgumentError)
        none = pb.UpdateBuildRequest(
            build=facts("org/none"), update_mask=FieldMask(paths=["description"])
        )
        assert isinstance(await registry.refused("UpdateBuild", none), NotFoundError)


async def test_who_has_the_newest_generation_is_not_sent_it_again(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        generation = (await registry.register(BUILD)).generation
        for held, count in ((0, 1), (generation, 0), (generation - 1, 1)):
            listed = await registry.call("ListBuilds", pb.ListBuildsRequest(if_generation=held))
            assert (len(listed.builds), listed.generation) == (count, generation)
            one = await registry.call(
                "GetBuild", pb.GetBuildRequest(build=BUILD, if_generation=held)
            )
            assert (one.HasField("build"), one.generation) == (bool(count), generation)


async def test_every_named_stage_of_a_version_is_reached_in_its_order(
    store: PostgresStore, clock: FakeClock
) -> None:
    """Ready, active, retained, retired: the machine of spec/registry.md §11."""
    states = catalog_pb2.VersionState
    async with served(store, clock) as registry:

        async def state() -> int:
            found = await registry.call("GetBuild", pb.GetBuildRequest(build=BUILD))
            return next(v.state for v in found.build.versions if v.version == "v1")

        await registry.register(BUILD, "v1", promote=False)
        assert await state() == states.VERSION_STATE_READY
        await registry.promote(BUILD, "v1")
        assert await state() == states.VERSION_STATE_ACTIVE
        await registry.register(BUILD, "v2")
        assert await state() == states.VERSION_STATE_RETAINED
        await registry.call("RetireVersion", pb.RetireVersionRequest(build=BUILD, version="v1"))
        assert await state() == states.VERSION_STATE_RETIRED
        again = pb.RegisterBuildRequest(
            build=facts(BUILD), manifest=manifest(BUILD, "v1"), promote=True
        )
        await registry.call("RegisterBuild", again)
        assert await state() == states.VERSION_STATE_RETIRED
        error = await registry.refused(
            "PromoteVersion", pb.PromoteVersionRequest(build=BUILD, version="v1")
        )
        assert isinstance(error, PreconditionError)


async def test_only_so_many_machines_of_the_fleet_begin_to_fetch(
    store: PostgresStore, clock: FakeClock
) -> None:
    sequence = 0

    async def ask(registry: Registry, router: str, wanted: int, running: int = 0) -> int:
        nonlocal sequence
        sequence += 1
        states = [
            rollout_pb2.ModelState(
                provider_id=f"{router} {number}",
                build=BUILD,
                stage=rollout_pb2.MODEL_STAGE_DOWNLOADING,
            )
            for number in range(running)
        ]
        request = pb.ReportModelStatesRequest(
            session=router, sequence=sequence, states=states, downloads_wanted=wanted
        )
        found = int((await registry.call("ReportModelStates", request)).downloads_granted)
        assert not (await registry.call("ReportModelStates", request)).downloads_granted
        return found

    async with served(store, clock, downloads_at_once=3) as registry:
        generation = (await registry.register(BUILD)).generation
        assert (await registry.catalog(generation)).downloads_are_granted
        assert await ask(registry, "r-0", 2) == 2
        assert await ask(registry, "r-1", 5) == 1
        assert await ask(registry, "r-1", 4) == 0
        clock.jump(31)
        assert await ask(registry, "r-0", 0, running=2) == 0
        assert await ask(registry, "r-1", 4) == 1
        clock.jump(121)
        assert await ask(registry, "r-1", 4) == 3
    async with served(store, clock) as registry:
        assert not (await registry.catalog(generation)).downloads_are_granted
        assert await ask(registry, "r-1", 7) == 7
