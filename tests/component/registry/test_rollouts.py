"""Rollouts over a real store: the name moves, reports are counted once, a bad build comes back."""

import json
from typing import Any

import pytest
from darkbloom.registry.v1 import catalog_pb2, rollout_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError, PreconditionError
from darkbloom_mesh.testing import FakeClock
from darkbloom_registry.changes import Scope
from darkbloom_registry.store import PostgresStore

from tests.component.registry.harness import Registry, publishing_key, served

OLD, NEW, NAME = "org/old", "org/new", "name"


async def start(registry: Registry, request_id: str = "req_1", **fields: Any) -> Any:
    gates = rollout_pb2.RolloutGates(min_requests=2)
    gates.soak.FromSeconds(60)
    request = pb.StartRolloutRequest(
        request_id=request_id, alias=NAME, to_build=NEW, steps=[10, 100], gates=gates, **fields
    )
    return await registry.call("StartRollout", request)


async def report(
    registry: Registry, sequence: int, *, session: str = "r1", generation: int = 0, **counts: int
) -> None:
    row = pb.BuildReport(
        build=NEW, counts=rollout_pb2.RolloutCounts(**counts), catalog_generation=generation
    )
    request = pb.ReportModelStatesRequest(session=session, sequence=sequence, builds=[row])
    await registry.call("ReportModelStates", request)


async def shown(registry: Registry, rollout_id: str) -> rollout_pb2.Rollout:
    answer = await registry.call("GetRollout", pb.GetRolloutRequest(rollout_id=rollout_id))
    found: rollout_pb2.Rollout = answer.rollout
    return found


async def name(store: PostgresStore) -> tuple[str, str, int | None]:
    (alias,) = (await store.catalog()).aliases
    return alias.desired_build, alias.previous_build, alias.traffic_percent


async def prepared(registry: Registry) -> None:
    await registry.register(OLD)
    await registry.register(NEW)
    await registry.alias(NAME, OLD)


async def test_a_good_build_goes_on_step_by_step_and_is_done(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        begun = (await start(registry, actor="somebody")).rollout
        assert await name(store) == (NEW, OLD, 10)

        clock.jump(60)
        await report(registry, 1, successes=2)
        assert await name(store) == (NEW, OLD, 100)
        clock.jump(60)
        await report(registry, 2, successes=2)
        assert await name(store) == (NEW, OLD, None)

        ended = await shown(registry, begun.rollout_id)
        assert ended.state == rollout_pb2.ROLLOUT_STATE_DONE
        assert ended.actor == "somebody"
        assert (await start(registry)).rollout == ended


async def test_a_bad_build_comes_back_at_its_first_step_with_the_reason(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        begun = await start(registry)
        await report(registry, 1, failures=1)

        assert await name(store) == (OLD, "", None)
        ended = await shown(registry, begun.rollout.rollout_id)
        assert ended.state == rollout_pb2.ROLLOUT_STATE_REVERTED
        assert ended.step == 0
        assert ended.reason.startswith("step 1 (10 %): success: 1 of 1")
        assert (await store.generation()) == begun.generation + 1

        # The name is free again, and a new rollout is another one.
        assert (await start(registry, "req_2")).rollout.rollout_id != begun.rollout.rollout_id
        listed = await registry.call("ListRollouts", pb.ListRolloutsRequest(alias=NAME))
        assert len(listed.rollouts) == 2


async def test_a_report_that_comes_twice_counts_once_and_of_each_router(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        begun = (await start(registry)).rollout
        for _ in range(2):
            await report(registry, 1, successes=3)
        await report(registry, 1, session="r2", successes=4)
        assert (await shown(registry, begun.rollout_id)).counts.successes == 7


async def test_a_paused_rollout_waits_and_a_reverted_one_never_wakes(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        rollout_id = (await start(registry)).rollout.rollout_id

        async def do(action: pb.RolloutAction.ValueType) -> pb.ChangeRolloutRequest:
            return pb.ChangeRolloutRequest(rollout_id=rollout_id, action=action, reason="why not")

        await registry.call("ChangeRollout", await do(pb.ROLLOUT_ACTION_PAUSE))
        clock.jump(600)
        await report(registry, 1, successes=9)
        assert (await shown(registry, rollout_id)).step == 0
        await registry.call("ChangeRollout", await do(pb.ROLLOUT_ACTION_REVERT))
        assert await name(store) == (OLD, "", None)
        resume = await registry.refused("ChangeRollout", await do(pb.ROLLOUT_ACTION_RESUME))
        assert isinstance(resume, PreconditionError)


async def test_nobody_else_moves_a_name_that_a_rollout_moves(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        await start(registry)
        with pytest.raises(PreconditionError, match="revert it first"):
            await registry.alias(NAME, OLD)
        with pytest.raises(PreconditionError, match="moves this alias already"):
            await start(registry, "req_2")


async def test_what_cannot_be_rolled_out_is_refused(store: PostgresStore, clock: FakeClock) -> None:
    async with served(store, clock) as registry:
        with pytest.raises(NotFoundError):
            await start(registry)
        await prepared(registry)
        await registry.register("org/waiting", promote=False)
        for fields in ({"to_build": OLD}, {"to_build": "org/none"}, {"to_build": "org/waiting"}):
            request = pb.StartRolloutRequest(request_id="r", alias=NAME, **fields)
            assert isinstance(await registry.refused("StartRollout", request), InvalidArgumentError)
        missing = pb.GetRolloutRequest(rollout_id="roll_none")
        assert isinstance(await registry.refused("GetRollout", missing), NotFoundError)
        unknown = pb.ChangeRolloutRequest(rollout_id="roll_none")
        assert isinstance(await registry.refused("ChangeRollout", unknown), InvalidArgumentError)


async def test_a_split_made_by_hand_is_not_rolled_over(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        await registry.register("org/older")
        await registry.alias(NAME, OLD, "org/older", traffic_percent=10)
        with pytest.raises(PreconditionError, match="split by hand"):
            await start(registry)
        assert await name(store) == (OLD, "org/older", 10)
        await registry.alias(NAME, OLD, "org/older", traffic_percent=100)
        await start(registry)


async def test_a_rollout_that_turns_back_restores_what_stood_behind_the_name(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        await registry.register("org/older")
        await registry.alias(NAME, OLD, "org/older")
        await start(registry)
        assert await name(store) == (NEW, OLD, 10)
        await report(registry, 1, load_failures=1)
        assert await name(store) == (OLD, "org/older", None)
        (alias,) = (await store.catalog()).aliases
        assert alias.retired_builds == (NEW,)

        # But never what was just found bad.
        await registry.alias(NAME, OLD, NEW)
        await start(registry, "req_2")
        await report(registry, 2, load_failures=1)
        assert await name(store) == (OLD, "", None)


async def test_every_act_of_an_operator_on_a_rollout_is_on_record_with_his_name(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        rollout_id = (await start(registry)).rollout.rollout_id
        registry.key = await publishing_key(store, "somebody", Scope.ALIAS)
        for action in (pb.ROLLOUT_ACTION_PAUSE, pb.ROLLOUT_ACTION_RESUME, pb.ROLLOUT_ACTION_REVERT):
            request = pb.ChangeRolloutRequest(rollout_id=rollout_id, action=action, reason="so")
            for _ in range(2):
                await registry.call("ChangeRollout", request)
        changes = (await registry.call("ListChanges", pb.ListChangesRequest())).changes

    found = [(row.actor, json.loads(row.detail_json)["did"]) for row in changes[:4]]
    assert found == [
        ("somebody", "revert"),
        ("somebody", "resume"),
        ("somebody", "pause"),
        ("development", "start"),
    ]
    assert json.loads(changes[2].detail_json)["reason"] == "so"


async def test_a_request_id_names_one_rollout_and_no_other(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        await registry.alias("other", OLD)
        begun = (await start(registry)).rollout
        assert (await start(registry)).rollout == begun
        gates = begun.gates
        for fields in (
            {"alias": "other", "to_build": NEW, "steps": [10, 100], "gates": gates},
            {"alias": NAME, "to_build": OLD, "steps": [10, 100], "gates": gates},
            {"alias": NAME, "to_build": NEW, "steps": [20, 100], "gates": gates},
            {"alias": NAME, "to_build": NEW, "steps": [10, 100]},
        ):
            request = pb.StartRolloutRequest(request_id="req_1", **fields)
            refused = await registry.refused("StartRollout", request)
            assert isinstance(refused, InvalidArgumentError)
            assert "began another rollout" in refused.message


async def test_nobody_promotes_other_bytes_into_a_running_rollout(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        await registry.register(NEW, "v2", promote=False)
        rollout_id = (await start(registry)).rollout.rollout_id
        with pytest.raises(PreconditionError, match="a rollout moves a name"):
            await registry.promote(NEW, "v2")
        with pytest.raises(PreconditionError, match="a rollout moves a name"):
            await registry.register(NEW, "v3")
        # What changes nothing for consumers may come meanwhile; a repeated promotion, too.
        await registry.register(NEW, "v3", promote=False)
        await registry.promote(NEW, "v1")
        revert = pb.ChangeRolloutRequest(
            rollout_id=rollout_id, action=pb.ROLLOUT_ACTION_REVERT, reason="first"
        )
        await registry.call("ChangeRollout", revert)
        await registry.promote(NEW, "v2")


async def test_a_rollout_begins_only_where_it_can_come_back_to(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        status = pb.SetBuildStatusRequest(build=OLD, status=catalog_pb2.BUILD_STATUS_DEPRECATED)
        await registry.call("SetBuildStatus", status)
        with pytest.raises(PreconditionError, match="not routable"):
            await start(registry)
        await registry.alias(NAME, NEW)


async def test_what_was_seen_before_a_step_is_not_counted_in_it(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        await prepared(registry)
        before = await store.generation()
        begun = await start(registry)
        await report(registry, 1, generation=before, load_failures=1)
        clock.jump(60)
        await report(registry, 2, generation=begun.generation, successes=2)
        # A report of the first step that was long on its way.
        clock.jump(60)
        await report(registry, 3, generation=begun.generation, successes=2, failures=1)
        second = await shown(registry, begun.rollout.rollout_id)
        assert (second.state, second.step) == (rollout_pb2.ROLLOUT_STATE_RUNNING, 1)
        assert (second.counts.successes, second.counts.failures) == (0, 0)
        await report(registry, 4, generation=begun.generation + 1, successes=2)
        ended = await shown(registry, begun.rollout.rollout_id)
        assert ended.state == rollout_pb2.ROLLOUT_STATE_DONE


async def test_states_of_machines_are_kept_by_build_and_the_newest_wins(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        for sequence, (machine, done) in enumerate([("p2", 1), ("p1", 2), ("p2", 3)], start=1):
            state = rollout_pb2.ModelState(
                provider_id=machine,
                build=NEW,
                stage=rollout_pb2.MODEL_STAGE_DOWNLOADING,
                bytes_done=done,
                bytes_total=9,
            )
            request = pb.ReportModelStatesRequest(session="s", sequence=sequence, states=[state])
            await registry.call("ReportModelStates", request)
        request = pb.ListModelStatesRequest(build=NEW)
        request.page.page_size = 1
        first = await registry.call("ListModelStates", request)
        request.page.page_token = first.next_page_token
        second = await registry.call("ListModelStates", request)

    found = [(row.provider_id, row.bytes_done) for row in (*first.states, *second.states)]
    assert found == [("p1", 2), ("p2", 3)]
    assert second.next_page_token == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"sequence": 1},
        {"session": "s"},
        {"session": "s", "sequence": 1, "states": [rollout_pb2.ModelState(build="b")]},
        {
            "session": "s",
            "sequence": 1,
            "builds": [pb.BuildReport(build=NEW, counts=rollout_pb2.RolloutCounts(failures=-1))],
        },
        {
            "session": "s",
            "sequence": 1,
            "builds": [
                pb.BuildReport(build=NEW, counts=rollout_pb2.RolloutCounts(ttft_buckets=[1]))
            ],
        },
    ],
    ids=["no session", "no sequence", "no stage", "negative", "buckets"],
)
async def test_a_report_that_cannot_be_read_is_refused(
    store: PostgresStore, clock: FakeClock, fields: dict[str, Any]
) -> None:
    async with served(store, clock) as registry:
        request = pb.ReportModelStatesRequest(**fields)
        assert isinstance(
            await registry.refused("ReportModelStates", request), InvalidArgumentError
        )
