"""Releases are offered ring by ring, and held by themselves where their machines do badly."""

import asyncio
import json
from typing import Any

import pytest
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_attestation.cli import cli
from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError, PreconditionError
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock
from typer.testing import CliRunner

from tests.component.attestation.harness import RUNTIME, Attestation, Provider, served

NEXT = "b" * 64
NAME = f"sha256:{NEXT}"
DAY_S = 86_400.0
MINUTE_S = 60.0


async def change(attestation: Attestation, action: str, **fields: Any) -> Any:
    return (await attestation.call("ChangeReleaseOffer", wish(action, **fields))).release.offer


def wish(action: str, **fields: Any) -> pb.ChangeReleaseOfferRequest:
    number = pb.ReleaseOfferAction.Value(f"RELEASE_OFFER_ACTION_{action}")
    return pb.ChangeReleaseOfferRequest(**{"code_release": NAME, "action": number, **fields})


async def progress(attestation: Attestation) -> Any:
    return await attestation.call("GetReleaseOffer", pb.GetReleaseOfferRequest(code_release=NAME))


async def joined(attestation: Attestation, provider: Provider, version: str = "1.0.0") -> None:
    """Register and pass a challenge, as a machine of a release."""
    runtime = RUNTIME if version == "1.0.0" else NEXT
    provider.reconnect()
    await attestation.register(provider, version=version, runtime_hash=runtime)
    assert (await attestation.passed(provider, runtime_hash=runtime)).passed


async def released(attestation: Attestation, machines: int) -> list[Provider]:
    """A fleet on the first release, and a second release that was just blessed."""
    first = (await attestation.bless()).release
    assert (first.offer.percent, first.offer.held) == (100, "")
    fleet = [Provider() for _ in range(machines)]
    for one in fleet:
        await joined(attestation, one)
    await attestation.clock.advance(MINUTE_S)
    second = (await attestation.bless(runtime=NEXT, version="1.1.0")).release
    assert (second.offer.percent, second.offer.held) == (1, "")
    await attestation.clock.advance(MINUTE_S)
    return fleet


async def test_an_offer_widens_step_by_step_when_a_day_and_a_good_machine_speak_for_it(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        fleet = await released(attestation, 2)
        too_young = await attestation.refused("ChangeReleaseOffer", wish("WIDEN"))
        assert isinstance(too_young, PreconditionError)
        await clock.advance(DAY_S)
        nobody = await attestation.refused("ChangeReleaseOffer", wish("WIDEN"))
        assert isinstance(nobody, PreconditionError)

        await joined(attestation, fleet[0], "1.1.0")
        shown = await progress(attestation)
        assert (shown.ring.machines, shown.ring.bad) == (1, 0)
        assert (await change(attestation, "WIDEN", actor="ann")).percent == 10
        unsaid = await attestation.refused("ChangeReleaseOffer", wish("WIDEN", force=True))
        assert isinstance(unsaid, InvalidArgumentError)
        forced = await change(attestation, "WIDEN", force=True, reason="a hole", actor="ann")
        assert forced.percent == 100
        last = await attestation.refused("ChangeReleaseOffer", wish("WIDEN"))
        assert isinstance(last, PreconditionError)

        record = [
            (one.actor, one.action, one.percent, one.reason)
            for one in (await progress(attestation)).changes
        ]
        assert record == [
            ("operator", "begun", 1, "blessed"),
            ("ann", "widened", 10, ""),
            ("ann", "widened", 100, "a hole"),
        ]


async def test_machines_that_get_no_verdict_hold_the_offer_and_nothing_else(
    database: Database, clock: FakeClock
) -> None:
    """As when a release measured otherwise than what was blessed took a fleet out of routing."""
    async with served(database, clock) as attestation:
        fleet = await released(attestation, 5)
        for one in fleet[:2]:
            one.reconnect()
            await attestation.register(one, version="1.1.0", runtime_hash="c" * 64)
        await clock.advance(5 * MINUTE_S)
        await attestation.offering.look()
        assert not (await progress(attestation)).release.offer.held

        for one in fleet[2:]:
            await joined(attestation, one)
        await clock.advance(6 * MINUTE_S)
        await attestation.offering.look()
        seen = await progress(attestation)
        assert (seen.ring.machines, seen.ring.bad, seen.ring.unrouted) == (2, 2, 2)
        assert (seen.rest.machines, seen.rest.bad) == (5, 0)
        assert "2 unrouted" in seen.release.offer.held
        assert seen.release.active
        assert seen.changes[-1].actor == "attestation"

        refused = await attestation.refused("ChangeReleaseOffer", wish("WIDEN"))
        assert isinstance(refused, PreconditionError)
        await attestation.offering.look()
        assert len((await progress(attestation)).changes) == len(seen.changes)

        resumed = await change(attestation, "RESUME", reason="measured anew", actor="ann")
        assert (resumed.percent, resumed.held) == (1, "")
        await clock.advance(MINUTE_S)
        await attestation.offering.look()
        assert not (await progress(attestation)).release.offer.held


async def test_machines_that_keep_dying_and_go_back_hold_the_offer(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        fleet = await released(attestation, 4)
        for one in fleet[:2]:
            for _ in range(3):
                await joined(attestation, one, "1.1.0")
                await clock.advance(MINUTE_S)
            await joined(attestation, one)
        await attestation.offering.look()
        seen = await progress(attestation)
        assert (seen.ring.bad, seen.ring.returned, seen.ring.restarting) == (2, 2, 0)
        assert "2 returned" in seen.release.offer.held


async def test_lost_trust_counts_and_strangers_who_came_for_it_do_not(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        fleet = await released(attestation, 3)
        strangers = [Provider() for _ in range(5)]
        for one in [*strangers, fleet[0]]:
            await joined(attestation, one, "1.1.0")
            await attestation.call(
                "ReportViolation",
                pb.ReportViolationRequest(
                    report_id=one.provider_id,
                    provider_id=one.provider_id,
                    attempt_id="att_1",
                    kind="unopenable",
                ),
            )
        await attestation.offering.look()
        seen = await progress(attestation)
        assert (seen.ring.machines, seen.ring.bad, seen.ring.untrusted) == (1, 1, 1)
        assert not seen.release.offer.held


async def test_trouble_of_the_whole_fleet_holds_nothing(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        fleet = await released(attestation, 6)
        for one in fleet:
            version = "1.1.0" if one in fleet[:2] else "1.0.0"
            for _ in range(4):
                await joined(attestation, one, version)
        await attestation.offering.look()
        seen = await progress(attestation)
        assert (seen.ring.restarting, seen.rest.restarting) == (2, 4)
        assert not seen.release.offer.held


async def test_the_commands_show_and_move_an_offer(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        await released(attestation, 1)

        async def run(*arguments: str) -> Any:
            done = await asyncio.to_thread(
                CliRunner().invoke, cli, ["release", *arguments, "--target", attestation.target]
            )
            if done.exit_code:
                return done.exit_code
            # The library of calls may log beside it: two event loops share this process.
            begins = done.stdout.index("{\n")
            return json.JSONDecoder().raw_decode(done.stdout, begins)[0]

        assert (await run("hold", NAME, "--reason", "odd"))["offered_percent"] == 0
        assert await run("widen", NAME) == 1
        assert (await run("resume", NAME, "--reason", "not odd"))["offered_percent"] == 1
        assert await run("widen", NAME) == 1
        forced = await run("widen", NAME, "--force", "--reason", "a hole")
        assert (forced["offered_percent"], forced["held"]) == (10, None)
        shown = await run("progress", NAME)
        assert shown["ring"]["machines"] == shown["rest"]["bad"] == 0
        assert shown["rest"]["machines"] == 1
        assert [one["action"] for one in shown["changes"]] == [
            "begun",
            "held",
            "resumed",
            "widened",
        ]


async def test_a_person_holds_with_a_reason_and_the_record_cannot_be_rewritten(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        await released(attestation, 0)
        for wanted in (
            wish("HOLD"),
            wish("RESUME"),
            wish("UNSPECIFIED"),
            wish("HOLD", reason="\n"),
        ):
            refused = await attestation.refused("ChangeReleaseOffer", wanted)
            assert isinstance(refused, InvalidArgumentError)
        unknown = wish("HOLD", reason="x", code_release="sha256:" + "d" * 64)
        assert isinstance(await attestation.refused("ChangeReleaseOffer", unknown), NotFoundError)
        for _ in range(2):
            assert (await change(attestation, "HOLD", reason="odd logs")).held == "odd logs"
        assert [one.action for one in (await progress(attestation)).changes] == ["begun", "held"]
        with pytest.raises(Exception, match="append-only"):
            async with database.acquire() as connection:
                await connection.execute("DELETE FROM attestation.offer_changes")
        await attestation.call(
            "DeactivateCodeRelease", pb.DeactivateCodeReleaseRequest(code_release=NAME)
        )
        gone = await attestation.refused("ChangeReleaseOffer", wish("RESUME", reason="x"))
        assert isinstance(gone, PreconditionError)
