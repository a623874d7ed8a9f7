"""What `hardware` stands on, and every way to have one leg only."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_edge.device_statement import serial_commitment
from darkbloom_edge.signatures import P256Signer, to_base64
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.harness import read_verdict, violation
from tests.component.attestation.macs import SALT, STRANGER, home, why
from tests.fakes.apple_ca import Profile
from tests.stores import Postgres


@pytest.fixture(scope="module")
def database_url(cluster: Postgres, template: str) -> Iterator[str]:
    """One database for this module: every Mac has keys and a serial of its own."""
    with cluster.database(template) as url:
        yield url


async def test_a_statement_of_an_attested_app_and_a_posture_of_its_device_are_hardware(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac, response = await place.proven()
        verdict = read_verdict(response, clock)
        assert (verdict.trust_level, verdict.admission) == ("hardware", "public")
        assert [name.split("_")[0] for name in verdict.evidence] == ["reg", "chal", "app", "mda"]
        assert why(response) == ["hardware_proven"]
        # Later challenges need a new statement, not a new key and not a new posture.
        clock.jump(300)
        again = await place.show(mac)
        assert again.trust_level == "hardware"
        assert list(again.evidence_findings) == []


async def test_what_strangers_see_of_it_names_no_serial(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        clock.jump(300)
        await place.show(mac)
        listed = await place.attestation.call(
            "ListEvidence", pb.ListEvidenceRequest(provider_ids=[mac.provider_id])
        )
        [provider] = listed.providers
        by_kind = {shown.kind: shown for shown in provider.evidence}
        app, device = by_kind["app_attest"], by_kind["mda"]
        assert app.backing == attestation_pb2.EVIDENCE_BACKING_STRANGER
        assert all((app.document, app.signature, app.attestation, app.attestation_document))
        assert app.environment == "production"
        assert device.backing == attestation_pb2.EVIDENCE_BACKING_OPERATOR_ASSERTED
        assert device.document == b""
        assert mac.serial.encode() not in listed.SerializeToString()


@pytest.mark.parametrize(
    ("app", "posture", "reason"),
    [
        (True, False, "posture_missing"),
        (False, True, "key_proof_missing"),
        (False, False, "key_proof_missing"),
    ],
)
async def test_one_leg_is_self_signed_and_says_which_is_missing(
    database: Database, clock: FakeClock, app: bool, posture: bool, reason: str
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac, owner_account_id="acct_1")
        response = await place.show(mac, app=app, chain=mac.chain() if posture else None)
        assert (response.trust_level, response.admission) == ("self_signed", "owner")
        assert why(response) == [reason, "challenge_passed"]


ANOTHER = P256Signer.generate()


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ({"encryption_key": to_base64(bytes(32))}, "statement_wrong_encryption_key"),
        ({"identity_key": to_base64(ANOTHER.public)}, "statement_wrong_identity"),
        ({"provider_id": f"prov_{'0' * 32}"}, "statement_wrong_provider"),
        ({"nonce": to_base64(bytes(32))}, "statement_wrong_nonce"),
        (
            {"serial_commitment": serial_commitment("ABCDEFGH12", SALT)},
            "statement_wrong_serial",
        ),
    ],
)
async def test_a_statement_relayed_from_elsewhere_proves_nothing(
    database: Database, clock: FakeClock, statement: dict[str, Any], finding: str
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        response = await place.show(mac, chain=mac.chain(), statement=statement)
        assert response.trust_level == "self_signed"
        assert list(response.evidence_findings) == [finding]
        assert why(response)[0] == "key_proof_rejected"


async def test_evidence_of_another_apple_is_worth_as_much_as_software(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac(apple=STRANGER)
        await place.join(mac)
        response = await place.show(mac, chain=mac.chain())
        assert response.trust_level == "self_signed"
        assert list(response.evidence_findings) == ["mda_chain_root", "app_attest_chain_root"]


async def test_the_serial_shown_must_be_the_one_in_the_signed_blob(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac(serial="ABCDEFGH12")
        mac.serial = "JKLMNPQR34"
        await place.join(mac)
        response = await place.show(mac, chain=mac.chain())
        assert response.trust_level == "self_signed"
        assert list(response.evidence_findings) == ["serial_not_in_blob"]


@pytest.mark.parametrize("offset", [0, -1])
async def test_a_counter_that_has_not_risen_is_a_clone(
    database: Database, clock: FakeClock, offset: int
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        for _ in range(2):
            clock.jump(200)
            assert (await place.show(mac)).trust_level == "hardware"
        clock.jump(1000)
        mac.counter += offset - 1
        response = await place.show(mac, chain=mac.chain())
        assert response.trust_level == "self_signed"
        assert list(response.evidence_findings) == ["app_attest_counter_replay"]


async def test_a_key_of_another_account_is_a_clone(database: Database, clock: FakeClock) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac, owner_account_id="acct_1")
        assert (await place.show(mac, chain=mac.chain())).trust_level == "hardware"
        mac.reconnect()
        await place.join(mac, owner_account_id="acct_2")
        response = await place.show(mac)
        assert list(response.evidence_findings) == ["app_attest_key_of_another_account"]
        assert response.trust_level == "self_signed"


async def test_a_key_goes_with_its_machine_to_the_first_account_that_links_it(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        for owner, level in (("acct_1", "hardware"), ("", "hardware"), ("acct_2", "self_signed")):
            mac.reconnect()
            await place.join(mac, owner_account_id=owner)
            response = await place.show(mac)
            assert response.trust_level == level, (owner, response.evidence_findings)


async def test_an_assertion_of_a_key_that_nobody_attested_proves_nothing(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        mac.proof(b"{}")
        await place.join(mac)
        response = await place.show(mac, chain=mac.chain())
        assert list(response.evidence_findings) == ["app_attest_key_unknown"]


async def test_a_chain_for_another_enclave_key_is_no_posture_of_this_one(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        response = await place.show(mac, chain=mac.chain(signer=ANOTHER))
        assert response.trust_level == "self_signed"
        assert list(response.evidence_findings) == ["mda_freshness_mismatch"]
        assert why(response)[0] == "posture_rejected"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sip": 1}, "posture_mismatch"),
        ({"secure_boot": "Reduced Security"}, "posture_mismatch"),
        ({"secure_boot": "Permissive Security"}, "posture_mismatch"),
        ({"kernel_extensions": 1}, "posture_mismatch"),
        ({"serial": "ABCDEFGH12"}, "mda_serial_mismatch"),
    ],
)
async def test_a_device_that_contradicts_its_registration_is_untrusted_for_good(
    database: Database, clock: FakeClock, changes: dict[str, Any], reason: str
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        clock.jump(300)
        response = await place.show(mac, chain=mac.chain(**changes))
        assert (response.passed, response.untrust) == (False, True)
        assert response.failure == reason
        refused = await place.attestation.refused(
            "CreateChallenge", pb.CreateChallengeRequest(provider_id=mac.provider_id)
        )
        assert refused.reason_name == "EVIDENCE_REJECTED"


async def test_a_chain_without_posture_is_refused(database: Database, clock: FakeClock) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        response = await place.show(mac, chain=mac.chain(sip=None))
        assert list(response.evidence_findings) == ["mda_posture_missing"]
        assert response.trust_level == "self_signed"


async def test_a_posture_from_before_this_session_is_stale(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        chain = mac.chain()
        clock.jump(100)
        await place.join(mac)
        response = await place.show(mac, chain=chain)
        assert (response.trust_level, why(response)[0]) == ("self_signed", "posture_stale")


async def test_a_verdict_ends_with_its_first_piece_of_evidence(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        made = clock.now()
        ends = made + timedelta(minutes=5)
        brief = mac.chain(profile=Profile(not_before=made, not_after=ends))
        response = await place.show(mac, chain=brief)
        assert response.trust_level == "hardware"
        assert response.expire_time.ToDatetime(made.tzinfo) == ends
        clock.jump(301)
        later = await place.show(mac)
        assert (later.trust_level, why(later)[0]) == ("self_signed", "posture_stale")


async def test_a_day_after_its_posture_was_seen_it_is_not_hardware_any_more(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        clock.jump(86_400 - 10)
        response = await place.show(mac)
        assert (response.trust_level, why(response)[0]) == ("self_signed", "posture_stale")
        fresh = await place.show(mac, chain=mac.chain())
        assert fresh.trust_level == "hardware"


async def test_unknown_code_is_not_hardware_whatever_the_device_proves(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        response = await place.show(mac, chain=mac.chain(), runtime_hash="f" * 64)
        assert not response.HasField("verdict")
        assert why(response)[0] == "code_unknown"


async def test_unreadable_evidence_counts_as_none(database: Database, clock: FakeClock) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac, owner_account_id="acct_1")
        for junk in (b"\xff", bytes(200_000), b"\x0a\x03abc"):
            challenge = await place.attestation.challenge(mac)
            response = await place.attestation.answer(mac, challenge, evidence=junk)
            assert (response.passed, response.trust_level) == (True, "self_signed")


async def test_a_violation_takes_hardware_from_every_stream_of_the_machine(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        first = mac.provider_id
        mac.reconnect()
        await place.join(mac)
        second = await place.show(mac)
        assert (second.trust_level, why(second)) == ("hardware", ["hardware_proven", "same_binary"])
        watch = place.attestation.watch()
        guilty = place.mac()
        guilty.provider_id = first
        await place.attestation.call("ReportViolation", violation(guilty))
        seen = {(await watch.read()).revocation.document for _ in range(2)}
        assert len(seen) == 2

        # The other stream is alive, but proves nothing with evidence from before.
        after = await place.show(mac)
        assert after.trust_level == "self_signed"
