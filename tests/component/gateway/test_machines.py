"""What an owner sees of machines: linked or not, connected or not, and what they serve."""

import pytest
from darkbloom.attestation.v1.attestation_pb2 import CodeRelease, ReleaseOffer
from darkbloom.router.v1.fleet_pb2 import Explanation
from darkbloom.router.v1.provider_link_pb2 import GateReason
from darkbloom_edge.signatures import to_base64

from tests.component.gateway.harness import BEARER, Harness
from tests.component.gateway.neighbours import BUILD
from tests.component.gateway.test_refusals import error
from tests.fakes.identity import LOGIN_TOKEN
from tests.fakes.reports import MACHINE

LOGIN = {"authorization": f"Bearer {LOGIN_TOKEN}"}
VERSIONS = ("latest_provider_version", "min_provider_version")


def release(
    version: str,
    *,
    development: bool = False,
    staged: bool = False,
    offer: ReleaseOffer | None = None,
) -> CodeRelease:
    return CodeRelease(
        offer=offer,
        code_release=f"sha256:{version}",
        version=version,
        active=not staged,
        staged=staged,
        development=development,
    )


async def test_a_connected_machine_is_shown_with_what_it_runs_and_has_earned(mesh: Harness) -> None:
    mesh.billing.identity.add_login()
    mesh.billing.reports.machine = mesh.router.identity.public
    (row,) = (await mesh.http.get("/v1/me/providers", headers=LOGIN)).json()["data"]
    assert row["machine_key"] == to_base64(mesh.router.identity.public)
    assert (row["name"], row["status"], row["models"]) == ("mac", "online", [BUILD])
    assert row["provider_id"] == mesh.router.provider_id
    assert (row["earnings_micro_usd"], row["jobs"]) == (1_000, 2)
    assert (row["has_verdict"], row["blockers"]) == (True, [])

    (model,) = (await mesh.http.get("/v1/me/self-route-models", headers=LOGIN)).json()["data"]
    assert (model["id"], model["machines"]) == (BUILD, [mesh.router.provider_id])
    assert "tiny" in model["names"]


async def test_a_shut_gate_is_named_with_what_was_compared_and_what_to_do(mesh: Harness) -> None:
    mesh.billing.identity.add_login()
    mesh.billing.reports.machine = mesh.router.identity.public
    mesh.router.explanations = [
        Explanation(build="open", eligible=True),
        Explanation(
            build="shut",
            reason=GateReason.GATE_REASON_TRUST_FLOOR,
            evidence="level none, floor hardware",
            remedy="enrol the machine",
        ),
    ]
    (row,) = (await mesh.http.get("/v1/me/providers", headers=LOGIN)).json()["data"]

    assert row["blockers"] == [
        {
            "id": "trust_floor",
            "model": "shut",
            "evidence": "level none, floor hardware",
            "remedy": "enrol the machine",
        }
    ]


async def test_a_machine_that_is_away_is_offline_and_serves_nothing(mesh: Harness) -> None:
    mesh.billing.identity.add_login()
    (row,) = (await mesh.http.get("/v1/me/providers", headers=LOGIN)).json()["data"]
    assert (row["machine_key"], row["status"]) == (to_base64(MACHINE), "offline")
    assert "provider_id" not in row
    assert "blockers" not in row
    models = (await mesh.http.get("/v1/me/self-route-models", headers=LOGIN)).json()
    assert models == {"object": "list", "data": []}


@pytest.mark.parametrize("path", ["/v1/me/providers", "/v1/me/self-route-models"])
async def test_machines_are_shown_to_a_person_only(mesh: Harness, path: str) -> None:
    assert error(await mesh.http.get(path, headers=BEARER))[:2] == (403, "forbidden")
    assert error(await mesh.http.get(path))[:2] == (401, "authentication_error")


@pytest.mark.parametrize("path", ["/v1/me/providers", "/v1/me/summary"])
@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([], ("", "")),
        ([release("0.1.0", development=True)], ("0.1.0", "0.1.0")),
        (
            [release(v) for v in ("1.9.2", "1.10.0")]
            + [release("9.0.0", staged=True), release("0.1.0", development=True)],
            ("1.10.0", "1.9.2"),
        ),
        # Who is not in its ring could not get it, and a held one nobody gets.
        (
            [
                release("1.9.2", offer=ReleaseOffer(percent=100)),
                release("1.10.0", offer=ReleaseOffer(percent=10)),
                release("1.11.0", offer=ReleaseOffer(percent=100, held="restarting")),
            ],
            ("1.9.2", "1.9.2"),
        ),
    ],
)
async def test_versions_are_those_of_blessed_code(
    mesh: Harness, path: str, known: list[CodeRelease], expected: tuple[str, str]
) -> None:
    mesh.billing.identity.add_login()
    mesh.attestation.releases = known
    body = (await mesh.http.get(path, headers=LOGIN)).json()
    assert tuple(body[name] for name in VERSIONS) == expected


async def test_without_attestation_the_versions_are_not_known(mesh: Harness) -> None:
    mesh.billing.identity.add_login()
    mesh.attestation.down = True
    body = (await mesh.http.get("/v1/me/providers", headers=LOGIN)).json()
    assert [body[name] for name in VERSIONS] == ["", ""]
    assert len(body["data"]) == 1
