import asyncio

import pytest
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_edge.revocation import verify_revocation
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.errors import (
    ConflictError,
    DrainingError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    from_rpc_error,
)
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.harness import (
    KEYS,
    RUNTIME,
    Attestation,
    Provider,
    next_event,
    next_revocation,
    release_request,
    served,
    violation,
)


async def admitted(attestation: Attestation) -> tuple[Provider, str]:
    """A provider with a verdict in force."""
    provider = Provider()
    await attestation.bless()
    await attestation.register(provider)
    response, _ = await attestation.verdict(provider)
    return provider, response.verdict_id


async def test_a_violation_revokes_every_verdict_of_the_session_and_untrusts_for_good(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider, first = await admitted(attestation)
        second = (await attestation.passed(provider)).verdict_id
        watch = attestation.watch()
        pending = await attestation.challenge(provider)
        answer = await attestation.call("ReportViolation", violation(provider))

        revoked = set()
        for _ in range(2):
            signed = (await next_revocation(watch)).revocation
            found = verify_revocation(signed.document, signed.signature, signed.key_id, KEYS)
            revoked.add(found.verdict_id)
            assert found.reason == "violation_unopenable"
        assert revoked == {first, second}
        assert answer.HasField("revocation")

        # Not even a challenge that was already under way gives it a verdict back.
        late = await attestation.answer(provider, pending)
        assert (late.passed, late.untrust, late.HasField("verdict")) == (False, True, False)


async def test_a_violation_touches_no_other_session(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        guilty, _ = await admitted(attestation)
        innocent, _ = await admitted(attestation)
        await attestation.call("ReportViolation", violation(guilty))
        assert (await attestation.passed(innocent)).HasField("verdict")


async def test_the_same_report_again_changes_nothing(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider, _ = await admitted(attestation)
        first = await attestation.call("ReportViolation", violation(provider))
        again = await asyncio.gather(
            *(attestation.call("ReportViolation", violation(provider)) for _ in range(4))
        )
        assert all(answer == first for answer in again)
        error = await attestation.refused("ReportViolation", violation(provider, kind="credit"))
        assert isinstance(error, ConflictError)


async def test_a_violation_without_a_verdict_in_force_untrusts_too(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = Provider()
        await attestation.register(provider)
        answer = await attestation.call("ReportViolation", violation(provider))
        assert not answer.HasField("revocation")
        error = await attestation.refused(
            "CreateChallenge", pb.CreateChallengeRequest(provider_id=provider.provider_id)
        )
        assert isinstance(error, PreconditionError)


async def test_a_report_about_nobody_is_not_found(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        error = await attestation.refused("ReportViolation", violation(Provider()))
        assert isinstance(error, NotFoundError)


async def test_a_new_watcher_gets_what_still_matters_and_then_the_mark(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        watch = attestation.watch()
        synced = await next_event(watch)
        assert (synced.HasField("synced"), synced.generation) == (True, 0)

        provider, _ = await admitted(attestation)
        await attestation.call("ReportViolation", violation(provider))
        seen = await next_revocation(watch)
        late = attestation.watch()
        assert (await next_event(late)).revocation == seen.revocation
        assert (await next_event(late)).HasField("synced")


async def test_a_watcher_goes_on_where_it_was(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        watch = attestation.watch()
        for number in range(2):
            provider, _ = await admitted(attestation)
            await attestation.call("ReportViolation", violation(provider, f"report-{number}"))
            await next_revocation(watch)
        again = attestation.watch(after=1)
        assert (await next_event(again)).generation == 2
        assert (await next_event(again)).HasField("synced")
        # A generation of another database means nothing here: send all.
        stranger = attestation.watch(after=99)
        assert (await next_event(stranger)).generation == 1


async def test_a_revocation_of_an_expired_verdict_is_forgotten(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider, _ = await admitted(attestation)
        watch = attestation.watch()
        await attestation.call("ReportViolation", violation(provider))
        await next_revocation(watch)
        clock.jump(19 * 60)
        async with served(database, clock) as other:
            first = await next_event(other.watch())
            assert (first.HasField("synced"), first.generation) == (True, 1)


async def test_a_revocation_at_one_replica_reaches_the_watchers_of_another(
    database: Database, database_url: str, clock: FakeClock
) -> None:
    other = await Database.connect(database_url)
    async with served(database, clock) as attestation, served(other, clock) as replica:
        watch = replica.watch()
        await next_event(watch)
        provider, _ = await admitted(attestation)
        await attestation.call("ReportViolation", violation(provider))
        assert (await next_revocation(watch)).generation == 1
    await other.close()


async def test_a_draining_replica_sends_its_watchers_away(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        watch = attestation.watch()
        await next_event(watch)
        await attestation.feed.close()
        with pytest.raises(Exception, match="leaving") as caught:
            await next_event(watch)
        assert isinstance(from_rpc_error(caught.value), DrainingError)


async def test_a_release_taken_back_revokes_what_rests_on_it(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider, verdict_id = await admitted(attestation)
        watch = attestation.watch()
        request = pb.DeactivateCodeReleaseRequest(code_release=f"sha256:{RUNTIME}")
        for _ in range(2):
            answer = await attestation.call("DeactivateCodeRelease", request)
            assert not answer.release.active
        event = await next_revocation(watch)
        assert verdict_id.encode() in event.revocation.document

        response = await attestation.passed(provider)
        assert (response.passed, response.HasField("verdict")) == (True, False)
        # Blessing the same bytes again does not bring it back.
        assert not (await attestation.bless()).release.active


async def test_a_release_has_the_name_of_its_hash_and_keeps_it(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        first = await attestation.bless()
        assert await attestation.bless() == first
        changed = await attestation.refused("RegisterCodeRelease", release_request(python="f" * 64))
        assert isinstance(changed, ConflictError)
        for request in (
            release_request(code_release="sha256:" + "0" * 64),
            release_request(runtime="ABC"),
            release_request(python=""),
            release_request(template_hashes={"chat": "x"}),
        ):
            error = await attestation.refused("RegisterCodeRelease", request)
            assert isinstance(error, InvalidArgumentError)


async def test_a_development_tree_is_whatever_it_is_now(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        await attestation.bless(development=True)
        changed = await attestation.bless(development=True, python="f" * 64)
        assert changed.release.python_hash == "f" * 64


async def test_production_blesses_no_development_tree_and_trusts_none_that_is_there(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock, development=True) as attestation:
        await attestation.bless(development=True)
    async with served(database, clock, development=False) as attestation:
        error = await attestation.refused("RegisterCodeRelease", release_request(development=True))
        assert isinstance(error, PreconditionError)
        provider = Provider()
        found = await attestation.register(provider, owner_account_id="acct_1")
        assert not found.runtime_verified
        assert not (await attestation.passed(provider)).HasField("verdict")


async def test_releases_are_listed_with_and_without_the_inactive(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        await attestation.bless()
        await attestation.bless(runtime="e" * 64)
        await attestation.call(
            "DeactivateCodeRelease",
            pb.DeactivateCodeReleaseRequest(code_release="sha256:" + "e" * 64),
        )
        for inactive, count in ((False, 1), (True, 2)):
            request = pb.ListCodeReleasesRequest(include_inactive=inactive)
            assert len((await attestation.call("ListCodeReleases", request)).releases) == count


async def test_receipt_keys_are_published_and_stay_after_their_retirement(
    database: Database, clock: FakeClock
) -> None:
    signer = Ed25519Signer.generate()
    key = attestation_pb2.SigningKey(key_id=signer.key_id, public_key=signer.public)
    async with served(database, clock) as attestation:
        for _ in range(2):
            await attestation.call(
                "RegisterReceiptKey", pb.RegisterReceiptKeyRequest(key=key, gateway="gateway-0")
            )
        error = await attestation.refused(
            "RegisterReceiptKey", pb.RegisterReceiptKeyRequest(key=key, gateway="gateway-1")
        )
        assert isinstance(error, ConflictError)

        key.retire_time.FromDatetime(clock.now())
        await attestation.call(
            "RegisterReceiptKey", pb.RegisterReceiptKeyRequest(key=key, gateway="gateway-0")
        )
        (listed,) = (await attestation.call("ListReceiptKeys", pb.ListReceiptKeysRequest())).keys
        assert listed.public_key == signer.public
        assert listed.HasField("retire_time")
