"""`/v1/admin/rollouts`: operators look at how far names are; nobody changes anything here."""

from pathlib import Path

from darkbloom.registry.v1 import rollout_pb2

from tests.component.gateway.harness import gateway
from tests.component.gateway.people import ADMIN_KEY

OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}
PATH = "/v1/admin/rollouts"


def moving() -> rollout_pb2.Rollout:
    made = rollout_pb2.Rollout(
        rollout_id="roll_1",
        alias="name",
        from_build="org/old",
        to_build="org/new",
        steps=[1, 100],
        step=1,
        state=rollout_pb2.ROLLOUT_STATE_REVERTED,
        reason="step 2 (100 %): untrusted: 1, at most 0",
        actor="somebody",
        counts=rollout_pb2.RolloutCounts(successes=7, untrusted=1),
        gates=rollout_pb2.RolloutGates(min_requests=5),
    )
    made.counts.ttft_p95.FromMilliseconds(250)
    made.gates.soak.FromSeconds(600)
    made.create_time.FromSeconds(1_750_000_000)
    return made


async def test_an_operator_sees_where_rollouts_stand_and_why(
    tmp_path: Path, valkey_url: str
) -> None:
    key = tmp_path / "admin-key"
    key.write_text(ADMIN_KEY)
    async with gateway(valkey_url, admin_key_file=key) as mesh:
        mesh.registry.rollouts = [moving()]
        listed = await mesh.http.get(PATH, headers=OPERATOR)
        one = await mesh.http.get(f"{PATH}/roll_1", headers=OPERATOR)
        none = await mesh.http.get(f"{PATH}/roll_2", headers=OPERATOR)
        stranger = await mesh.http.get(PATH)
        write = await mesh.http.post(PATH, json={}, headers=OPERATOR)
        mesh.registry.away = True
        away = await mesh.http.get(PATH, headers=OPERATOR)

    assert listed.json() == {"rollouts": [one.json()]}
    found = one.json()
    assert (found["state"], found["step"], found["steps"]) == ("reverted", 1, [1, 100])
    assert found["reason"].startswith("step 2 (100 %)")
    assert (found["seen"]["untrusted"], found["seen"]["ttft_p95_s"]) == (1, 0.25)
    assert (found["gates"]["soak_s"], found["gates"]["max_ttft_p95_s"]) == (600, None)
    assert found["created_at"] == "2025-06-15T15:06:40Z"
    statuses = [answer.status_code for answer in (none, stranger, write, away)]
    assert statuses == [404, 403, 405, 503]


async def test_a_worker_confirms_the_catalog_that_it_goes_by(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        await mesh.until(lambda: mesh.registry.confirmed.generation == 1)
        confirmed = mesh.registry.confirmed
        assert not confirmed.leaving
    # Its last word, so that nobody takes its silence for a worker that is cut off.
    last = mesh.registry.confirmed
    assert (last.leaving, last.session) == (True, confirmed.session)
    assert (confirmed.room, bool(confirmed.session), "/" in confirmed.replica) == (
        "gateway",
        True,
        True,
    )
