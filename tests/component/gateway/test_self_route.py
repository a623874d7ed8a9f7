"""The caller's own machines: who may serve, what it costs, and what is said when nobody can."""

from typing import Any

import httpx
import pytest
from darkbloom.billing.v1.ledger_pb2 import HoldResult
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.price_pb2 import PriceRow
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb
from darkbloom_edge.signatures import P256Signer
from google.protobuf.duration_pb2 import Duration

from tests.component.gateway.harness import BEARER, Harness
from tests.component.gateway.neighbours import PRICE
from tests.component.gateway.test_refusals import CHAT, HI, error
from tests.fakes.router import Script, scripted

OWN = Script(trust_level="none", admission="owner")
FOREIGN = Script()
EXCLUSIVE, PREFER = lane_pb.OWNER_POLICY_EXCLUSIVE, lane_pb.OWNER_POLICY_PREFER


async def ask(
    mesh: Harness, *headers: tuple[str, str], key: str | None = None, **changes: Any
) -> httpx.Response:
    bearer = BEARER["authorization"] if key is None else f"Bearer {key}"
    body = {"model": "tiny", "messages": HI, **changes}
    return await mesh.http.post(CHAT, json=body, headers=[("authorization", bearer), *headers])


def own(mesh: Harness, account_id: str = "acct_test") -> None:
    """Link the fake provider's machine to an account."""
    mesh.billing.machines[account_id] = [mesh.router.identity.public]


@pytest.mark.parametrize("value", ["self", "SELF", "Self"])
async def test_self_costs_nothing_and_needs_no_money(mesh: Harness, value: str) -> None:
    own(mesh)
    mesh.router.default = OWN
    mesh.billing.refusal = HoldResult(refusal=ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS)

    response = await ask(mesh, ("x-darkbloom-route", value))

    assert response.status_code == 200
    assert response.json()["receipt"]
    assert response.headers["x-hold-micro-usd"] == "0"
    assert [opened.owner_policy for opened in mesh.router.seen.opens] == [EXCLUSIVE]
    assert mesh.router.seen.opens[0].account_id == "acct_test"
    await mesh.worker.ledger.flushed()
    assert not mesh.billing.holds
    assert not mesh.billing.releases
    # Its receipt is kept for the owner all the same.
    assert len(mesh.billing.receipts) == 1
    assert mesh.billing.free == ["acct_test"]


async def test_self_streams_as_well(mesh: Harness) -> None:
    own(mesh)
    mesh.router.default = OWN

    response = await ask(mesh, ("x-darkbloom-route", "self"), stream=True)

    assert response.text.endswith("data: [DONE]\n\n")
    assert not mesh.billing.holds


async def test_self_is_never_sealed_to_a_strangers_machine(mesh: Harness) -> None:
    mesh.billing.machines["acct_test"] = [P256Signer.generate().public]
    mesh.router.default = FOREIGN

    response = await ask(mesh, ("x-darkbloom-route", "self"))

    assert error(response)[:2] == (503, "service_unavailable")
    assert not mesh.router.seen.requests
    await mesh.router.until(lambda: mesh.router.seen.abandons)
    assert set(mesh.router.seen.abandons) == {lane_pb.ABANDON_REASON_VERDICT_REFUSED}


async def test_a_machine_that_was_linked_a_moment_ago_counts(mesh: Harness) -> None:
    mesh.billing.machines["acct_test"] = [P256Signer.generate().public]
    mesh.router.default = OWN
    await ask(mesh, ("x-darkbloom-route", "self"))
    own(mesh)

    assert (await ask(mesh, ("x-darkbloom-route", "self"))).status_code == 200


async def test_who_is_asked_for_machines_is_remembered(mesh: Harness) -> None:
    own(mesh)
    mesh.router.default = OWN
    for _ in range(3):
        assert (await ask(mesh, ("x-darkbloom-route", "self"))).status_code == 200

    assert mesh.billing.link_reads == 1


async def test_an_account_without_machines_is_409(mesh: Harness) -> None:
    response = await ask(mesh, ("x-darkbloom-route", "self"))

    assert error(response) == (409, "no_linked_machine", "no_linked_machine", None, False)
    assert not mesh.router.seen.opens


@pytest.mark.parametrize("headers", [[], [("x-darkbloom-route", "prefer")]])
async def test_a_key_that_may_only_self_route_cannot_escape(
    mesh: Harness, headers: list[tuple[str, str]]
) -> None:
    own(mesh)
    mesh.billing.add_key("sk-db-own", self_route_only=True)
    mesh.router.default = OWN

    assert (await ask(mesh, *headers, key="sk-db-own")).status_code == 200

    assert [opened.owner_policy for opened in mesh.router.seen.opens] == [EXCLUSIVE]
    assert not mesh.billing.holds


async def test_prefer_holds_up_front_and_takes_the_own_machine(mesh: Harness) -> None:
    own(mesh)
    mesh.router.default = OWN

    response = await ask(mesh, ("x-darkbloom-route", "prefer"))

    assert response.status_code == 200
    assert [opened.owner_policy for opened in mesh.router.seen.opens] == [PREFER]
    assert len(mesh.billing.holds) == 1
    assert response.headers["x-hold-micro-usd"] == "1000"
    await mesh.billing.until(lambda: mesh.billing.receipts)


async def test_prefer_falls_back_to_a_machine_that_satisfies_everybody(mesh: Harness) -> None:
    mesh.billing.machines["acct_test"] = [P256Signer.generate().public]
    mesh.router.scripts = [OWN, scripted("paid")]

    response = await ask(mesh, ("x-darkbloom-route", "prefer"))

    # The owner-only offer of somebody else is not taken.
    assert response.json()["choices"][0]["message"]["content"] == "paid"
    await mesh.router.until(lambda: mesh.router.seen.abandons)
    assert mesh.router.seen.abandons == [lane_pb.ABANDON_REASON_VERDICT_REFUSED]


async def test_prefer_without_money_is_402(mesh: Harness) -> None:
    own(mesh)
    mesh.billing.refusal = HoldResult(refusal=ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS)

    response = await ask(mesh, ("x-darkbloom-route", "prefer"))

    assert error(response)[:3] == (402, "insufficient_funds", "insufficient_quota")


async def test_an_own_machines_price_raises_no_hold(mesh: Harness) -> None:
    own(mesh)
    dear = PriceRow()
    dear.CopyFrom(PRICE)
    dear.price_id, dear.output_micros = "p2", 900_000
    mesh.router.default = Script(price=dear)

    assert (await ask(mesh, ("x-darkbloom-route", "prefer"))).status_code == 200
    assert not mesh.billing.extensions


@pytest.mark.parametrize("value", ["", "public", "selfish", "none"])
async def test_other_values_mean_everybody(mesh: Harness, value: str) -> None:
    assert (await ask(mesh, ("x-darkbloom-route", value))).status_code == 200
    assert mesh.router.seen.opens[0].owner_policy == lane_pb.OWNER_POLICY_PUBLIC
    assert len(mesh.billing.holds) == 1


async def test_an_owners_machine_is_not_for_the_public(mesh: Harness) -> None:
    own(mesh)
    mesh.router.default = OWN

    assert error(await ask(mesh))[:2] == (503, "service_unavailable")


async def test_a_named_machine_goes_to_the_router(mesh: Harness) -> None:
    own(mesh)
    mesh.router.default = OWN

    named = ("x-darkbloom-machine", mesh.router.provider_id)
    assert (await ask(mesh, ("x-darkbloom-route", "self"), named)).status_code == 200

    assert mesh.router.seen.opens[0].machine == mesh.router.provider_id


@pytest.mark.parametrize(
    "headers",
    [
        [("x-darkbloom-machine", "prov_1")],
        [("x-darkbloom-route", "prefer"), ("x-darkbloom-machine", "prov_1")],
        [("x-darkbloom-route", "self"), ("x-darkbloom-machine", "")],
        [("x-darkbloom-route", "self"), ("x-darkbloom-machine", "x" * 257)],
        [
            ("x-darkbloom-route", "self"),
            ("x-darkbloom-machine", "prov_1"),
            ("x-darkbloom-machine", "prov_2"),
        ],
    ],
)
async def test_a_machine_named_badly_or_outside_self_route_is_400(
    mesh: Harness, headers: list[tuple[str, str]]
) -> None:
    own(mesh)
    invalid = "invalid_request_error"

    kinds = error(await ask(mesh, *headers))

    assert kinds == (400, invalid, invalid, "X-Darkbloom-Machine", False)
    assert not mesh.router.seen.opens
    assert not mesh.billing.holds


@pytest.mark.parametrize(
    ("status", "kind", "code", "retry_s"),
    [
        (503, "machine_offline", "machine_offline", 30),
        (503, "model_not_loaded", "model_not_loaded", 15),
        (503, "model_unavailable", "model_capability_unsupported", None),
        (429, "machine_busy", "machine_busy", 2),
        (404, "machine_not_found", "machine_not_found", None),
    ],
)
async def test_what_the_router_says_of_own_machines_is_rendered(
    mesh: Harness, status: int, kind: str, code: str, retry_s: int | None
) -> None:
    own(mesh)
    refused = lane_pb.Refused(http_status=status, type=kind, code=code, message="no")
    if retry_s is not None:
        refused.retry_after.CopyFrom(Duration(seconds=retry_s))
    mesh.router.scripts = [Script(refused=refused)]

    response = await ask(mesh, ("x-darkbloom-route", "self"))

    assert error(response) == (status, kind, code, None, retry_s is not None)
    assert response.headers.get("retry-after") == (str(retry_s) if retry_s else None)
    assert not mesh.billing.releases


@pytest.mark.parametrize("narrow", [False, True])
async def test_the_list_of_models_is_that_of_the_own_machines(mesh: Harness, narrow: bool) -> None:
    allowed = ["other"] if narrow else []
    mesh.billing.add_key("sk-db-own", self_route_only=True, allowed_models=allowed)
    only = {"authorization": "Bearer sk-db-own"}
    asked = {**BEARER, "x-darkbloom-route": "self"}

    async def names(headers: dict[str, str]) -> list[str]:
        answer = await mesh.http.get("/v1/models", headers=headers)
        assert answer.status_code == 200
        return [row["id"] for row in answer.json()["data"]]

    everybody = await names(BEARER)
    assert everybody
    assert await names(asked) == []
    kinds = error(await mesh.http.get("/v1/models/tiny", headers=asked))
    assert kinds == (404, "model_not_found", "model_not_found", "model", False)

    own(mesh, "acct_test")
    mesh.worker.stage.owners._known.clear()
    assert await names(asked) == ["tiny"]
    assert await names(only) == ([] if narrow else ["tiny"])
    assert (await mesh.http.get("/v1/models/tiny", headers=asked)).status_code == 200


async def test_without_billing_self_is_503_and_prefer_waits_for_its_hold(mesh: Harness) -> None:
    await ask(mesh)
    mesh.billing.store_down = True

    for value in ("self", "prefer"):
        kinds = error(await ask(mesh, ("x-darkbloom-route", value)))
        assert kinds == (503, "service_unavailable", "service_unavailable", None, True)
