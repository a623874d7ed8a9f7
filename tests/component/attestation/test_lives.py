"""Sessions that follow each other, serials that two claim, devices that report, and tombstones."""

import asyncio
import base64
import json
import plistlib
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_attestation.store import PostgresStore
from darkbloom_edge.apple.mdm_webhook import OutstandingCommand, RequestType
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.harness import next_revocation, violation
from tests.component.attestation.macs import Home, Mac, home, why
from tests.stores import Postgres

UDID = "00006030-000651690A84001C"


@pytest.fixture(scope="module")
def database_url(cluster: Postgres, template: str) -> Iterator[str]:
    """One database for this module: every Mac has keys and a serial of its own."""
    with cluster.database(template) as url:
        yield url


def report(command_uuid: str, *, udid: str = UDID, sip: bool = True, boot: str = "full") -> bytes:
    """What a device manager calls back with."""
    answer = {
        "CommandUUID": command_uuid,
        "UDID": udid,
        "Status": "Acknowledged",
        "SecurityInfo": {
            "SystemIntegrityProtectionEnabled": sip,
            "SecureBoot": {"SecureBootLevel": boot},
        },
    }
    event = {
        "udid": udid,
        "command_uuid": command_uuid,
        "status": "Acknowledged",
        "raw_payload": base64.b64encode(plistlib.dumps(answer)).decode(),
    }
    return json.dumps({"topic": "mdm.Connect", "acknowledge_event": event}).encode()


async def asked(
    database: Database, mac: Mac, command_uuid: str, kind: RequestType = RequestType.SECURITY_INFO
) -> None:
    """Have the device manager ask a Mac something."""
    async with PostgresStore(database).transaction() as change:
        await change.commands.ask(
            OutstandingCommand(
                command_uuid=command_uuid,
                udid=UDID,
                request_type=kind,
                provider_id=mac.provider_id,
                create_time=mac.clock.now(),
            )
        )


async def recorded(place: Home, body: bytes) -> pb.RecordPostureResponse:
    answer: pb.RecordPostureResponse = await place.attestation.call(
        "RecordPosture", pb.RecordPostureRequest(webhook=body)
    )
    return answer


async def reason_of(place: Home, verdict_id: str) -> str:
    """Why a verdict was revoked, as watchers hear it."""
    watch = place.attestation.watch()
    while True:
        revoked = json.loads((await next_revocation(watch)).revocation.document)
        if revoked["verdict_id"] == verdict_id:
            return str(revoked["reason"])


async def test_a_reconnect_within_the_window_needs_no_new_posture_but_a_new_statement(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        clock.jump(280)
        mac.reconnect()
        await place.join(mac)
        silent = await place.attestation.passed(mac)
        assert why(silent)[0] == "key_proof_missing"
        response = await place.show(mac)
        assert response.trust_level == "hardware"
        assert why(response) == ["hardware_proven", "same_binary"]


async def test_a_gap_is_short_only_if_the_router_saw_the_stream_until_then(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        clock.jump(1000)
        await place.attestation.call(
            "TouchSessions", pb.TouchSessionsRequest(provider_ids=[mac.provider_id])
        )
        clock.jump(90)
        mac.reconnect()
        await place.join(mac)
        response = await place.show(mac)
        assert why(response) == ["hardware_proven", "continuity"]

        clock.jump(1000)
        mac.reconnect()
        await place.join(mac)
        assert why(await place.show(mac))[0] == "posture_stale"


async def test_an_enclave_key_of_somebody_else_cannot_go_on_with_a_serial(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        thief = place.mac(serial=mac.serial)
        await place.join(thief)
        assert why(await place.show(thief))[0] == "posture_missing"


async def test_what_was_shown_before_a_tombstone_counts_no_more(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        chain = mac.chain()
        assert (await place.show(mac, chain=chain)).trust_level == "hardware"
        await place.attestation.call("ReportViolation", violation(mac, mac.provider_id))
        mac.reconnect()
        await place.join(mac)
        # Neither the posture on file nor the same chain again.
        assert why(await place.show(mac))[0] == "posture_missing"
        assert why(await place.show(mac, chain=chain))[0] == "posture_missing"
        clock.jump(1)
        assert (await place.show(mac, chain=mac.chain())).trust_level == "hardware"


async def test_a_second_enclave_key_for_a_serial_in_use_is_not_hardware(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        owner, _ = await place.proven()
        second = place.mac(serial=owner.serial)
        await place.join(second)
        response = await place.show(second, chain=second.chain())
        assert (response.trust_level, why(response)[0]) == ("self_signed", "serial_in_use")
        # The owner lost nothing, and once he is gone the second may have it.
        assert (await place.show(owner)).trust_level == "hardware"
        clock.jump(91)
        assert (await place.show(second)).trust_level == "hardware"


async def test_better_evidence_takes_a_serial_from_a_mere_report(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        claimed = place.mac()
        await place.join(claimed)
        await asked(database, claimed, "command-better-1")
        assert (await recorded(place, report("command-better-1"))).recorded
        response = await place.show(claimed)
        assert response.trust_level == "hardware"

        genuine = place.mac(serial=claimed.serial)
        await place.proven(genuine)
        assert await reason_of(place, response.verdict_id) == "serial_taken"
        assert why(await place.show(claimed))[0] == "serial_in_use"


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (report("command-nobody"), "command_unknown"),
        (report("{uuid}", udid="00006030-FFFFFFFFFFFFFFFF"), "device_mismatch"),
        (b"{}", "malformed_webhook"),
        (b'{"topic":"mdm.CheckIn"}', "not_acknowledged"),
    ],
)
async def test_a_report_that_nobody_asked_for_counts_for_nothing(
    database: Database, clock: FakeClock, body: bytes, finding: str
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        uuid = f"command-{mac.serial}"
        await asked(database, mac, uuid)
        if finding == "device_mismatch":
            body = report(uuid, udid="00006030-FFFFFFFFFFFFFFFF")
        assert (await recorded(place, body)).finding == finding
        # The right answer may still come, once.
        assert (await recorded(place, report(uuid))).recorded
        assert (await recorded(place, report(uuid))).finding == "command_unknown"
        assert (await place.show(mac)).trust_level == "hardware"


async def test_a_report_that_comes_too_late_counts_for_nothing(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        await asked(database, mac, "command-late-1")
        clock.jump(31 * 60)
        assert (await recorded(place, report("command-late-1"))).finding == "command_expired"


@pytest.mark.parametrize("changes", [{"sip": False}, {"boot": "reduced"}])
async def test_a_bad_report_untrusts_every_stream_of_the_device_at_once(
    database: Database, clock: FakeClock, changes: dict[str, Any]
) -> None:
    async with home(database, clock) as place:
        mac, response = await place.proven()
        uuid = f"command-{mac.serial}"
        await asked(database, mac, uuid)
        assert (await recorded(place, report(uuid, **changes))).recorded
        assert await reason_of(place, response.verdict_id) == "posture_mismatch"
        refused = await place.attestation.refused(
            "CreateChallenge", pb.CreateChallengeRequest(provider_id=mac.provider_id)
        )
        assert refused.reason_name == "EVIDENCE_REJECTED"
        mac.reconnect()
        await place.join(mac)
        assert (await place.show(mac)).trust_level == "self_signed"


async def test_a_tombstone_wins_over_every_grant_that_races_it(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        for _ in range(12):
            mac, _ = await place.proven()
            twin = place.mac()
            twin.signer, twin.serial, twin.claims = mac.signer, mac.serial, mac.claims
            twin.key, twin.counter, twin.k = mac.key, mac.counter, mac.k
            await place.join(twin)
            await asyncio.gather(
                place.show(twin),
                place.attestation.call("ReportViolation", violation(mac, mac.provider_id)),
            )
            async with database.acquire() as connection:
                standing = await connection.fetchval(
                    "SELECT count(*) FROM attestation.verdicts v WHERE identity_key = $1"
                    " AND NOT EXISTS (SELECT FROM attestation.revocations r"
                    " WHERE r.verdict_id = v.verdict_id)",
                    mac.signer.public,
                )
            assert standing == 0
            assert (await place.show(twin)).trust_level == "self_signed"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE attestation.key_proofs SET expire_time = expire_time + interval '1 hour'",
        "UPDATE attestation.postures SET observe_time = observe_time + interval '1 hour'",
        "UPDATE attestation.app_attest_keys SET counter = counter - 1 WHERE counter > 0",
        "UPDATE attestation.subjects SET tombstone_seq = 0 WHERE tombstone_seq > 0",
    ],
)
async def test_evidence_counters_and_tombstones_cannot_be_turned_back(
    database: Database, clock: FakeClock, statement: str
) -> None:
    async with home(database, clock) as place:
        mac, _ = await place.proven()
        await place.show(mac)
        await place.attestation.call("ReportViolation", violation(mac, mac.provider_id))
    async with database.acquire() as connection:
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute(statement)


async def test_a_verdict_that_names_evidence_of_another_session_is_refused_by_the_tables(
    database: Database, clock: FakeClock
) -> None:
    async with home(database, clock) as place:
        one, first = await place.proven()
        two, second = await place.proven()
    columns = ("key_proof_id", "posture_id", "identity_key", "encryption_key", "serial_hash")
    async with database.acquire() as connection:
        for column in columns:
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await connection.execute(
                    f"UPDATE attestation.verdicts v SET {column} = o.{column}"  # noqa: S608 - names from the list above
                    " FROM attestation.verdicts o"
                    " WHERE v.verdict_id = $1 AND o.verdict_id = $2",
                    first.verdict_id,
                    second.verdict_id,
                )
    assert one.provider_id != two.provider_id
