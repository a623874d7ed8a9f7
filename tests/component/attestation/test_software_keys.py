"""Whatever a software key says and in whatever order: never above `self_signed`, never public.

Also not with evidence that others have made: minted under other roots, or by a genuine Mac of the
same serial about its own keys.
"""

from typing import Any

import asyncpg
import pytest
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1.attestation_pb2 import DeviceEvidence
from darkbloom_attestation.apple import PinnedVerifier
from darkbloom_edge.attestation import Challenge
from darkbloom_edge.signatures import to_base64
from darkbloom_edge.verdict import trust_level_rank
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.component.attestation.harness import (
    APP,
    Attestation,
    Provider,
    read_verdict,
    served,
    verify_request,
    violation,
)
from tests.component.attestation.macs import APPLE, STRANGER, Mac

CLAIMS = st.fixed_dictionaries(
    {
        name: st.booleans()
        for name in (
            "secure_enclave_available",
            "sip_enabled",
            "secure_boot_enabled",
            "authenticated_root_enabled",
            "rdma_disabled",
        )
    },
    optional={
        "serial_number": st.just("C02XYZ123456"),
        "runtime_capabilities": st.just(["hardware", "public"]),
    },
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from([True, False, None])
        for name in ("sip_enabled", "secure_boot_enabled", "rdma_disabled")
    },
)
MINTED = st.fixed_dictionaries(
    {"app": st.booleans(), "chain": st.booleans()},
    optional={"encryption_key": st.just(to_base64(bytes(32)))},
)
"""Evidence under roots that nobody trusts: worth as much as software."""
RELAYED = st.fixed_dictionaries(
    {"statement": st.sampled_from(["its own", "mine"]), "chain": st.booleans()}
)
"""What a genuine Mac of the same serial would show, for its own keys."""
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), ANSWERS),
        st.tuples(st.just("replay"), st.none()),
        st.tuples(st.just("garbage"), st.binary(max_size=64)),
        st.tuples(st.just("mint"), MINTED),
        st.tuples(st.just("relay"), RELAYED),
        st.tuples(st.just("timeout"), st.none()),
        st.tuples(st.just("reconnect"), CLAIMS),
        st.tuples(st.just("violate"), st.none()),
        st.tuples(st.just("wait"), st.integers(0, 600)),
    ),
    min_size=1,
    max_size=10,
)


class Story:
    """One provider's life; checks every answer that it ever gets."""

    def __init__(self, attestation: Attestation, provider: Provider, owner: str) -> None:
        self.attestation = attestation
        self.provider = provider
        self.owner = owner
        self.last: Challenge | None = None
        self.counterfeit = Mac(attestation.clock, apple=STRANGER)
        """Mints for the provider's own keys."""
        self.genuine = Mac(attestation.clock)
        """Has all that it takes, and signs nothing but its own keys."""
        self.verdicts = 0

    async def begin(self) -> None:
        """Register."""
        found = await self.attestation.register(self.provider, owner_account_id=self.owner)
        assert trust_level_rank(found.trust_level) <= trust_level_rank("self_signed")

    async def step(self, kind: str, value: Any) -> None:
        """Do one thing; refusals are fine, too much trust is not."""
        provider, clock = self.provider, self.attestation.clock
        if kind == "wait":
            clock.jump(value)
        elif kind == "reconnect":
            provider.claims = value
            provider.reconnect()
            await self.begin()
        elif kind == "violate":
            await self.attestation.call(
                "ReportViolation", violation(provider, f"report-{provider.provider_id}")
            )
        elif kind == "replay" and self.last is not None:
            self.check(await self.attestation.answer(provider, self.last))
        elif kind in {"mint", "relay"}:
            await self.shows(kind, value)
        elif kind in {"answer", "garbage", "timeout"}:
            await self.challenged(kind, value)

    async def shows(self, kind: str, value: Any) -> None:
        """Answer well, and attach evidence that somebody else has made."""
        provider = self.provider
        self.last = await self.attestation.challenge(provider)
        if kind == "mint":
            forger = self.counterfeit
            forger.signer, forger.k = provider.signer, provider.k
            chain = forger.chain(serial=self.serial) if value["chain"] else None
            changes = {name: value[name] for name in value if name == "encryption_key"}
        else:
            forger = self.genuine
            chain = forger.chain(serial=self.serial) if value["chain"] else None
            mine = {
                "identity_key": to_base64(provider.signer.public),
                "encryption_key": to_base64(provider.k),
            }
            changes = {} if value["statement"] == "its own" else mine
        forger.serial = self.serial
        shown = DeviceEvidence.FromString(
            forger.evidence(self.last, app=value.get("app", True), chain=chain, **changes)
        )
        if kind == "relay" and value["statement"] == "mine":
            # A genuine app signs only what it measured itself; the words are put in its mouth.
            honest = forger.statement(self.last)
            shown.app_attest.CopyFrom(forger.proof(honest))
        self.check(
            await self.attestation.answer(provider, self.last, evidence=shown.SerializeToString())
        )

    @property
    def serial(self) -> str:
        """The serial that the provider claims."""
        return str(self.provider.claims.get("serial_number", "C02XYZ123456"))

    async def challenged(self, kind: str, value: Any) -> None:
        """Be challenged, and answer, babble or be silent."""
        provider = self.provider
        self.last = await self.attestation.challenge(provider)
        if kind == "answer":
            self.check(await self.attestation.answer(provider, self.last, **value))
        elif kind == "garbage":
            request = verify_request(
                provider, self.last.nonce, value, provider.signer.sign_raw(value)
            )
            self.check(await self.attestation.call("VerifyChallenge", request))
        else:
            await self.attestation.call(
                "ReportChallengeTimeout",
                pb.ReportChallengeTimeoutRequest(
                    provider_id=provider.provider_id, nonce=self.last.nonce
                ),
            )

    def check(self, response: Any) -> None:
        """No answer and no verdict may say too much."""
        assert trust_level_rank(response.trust_level) <= trust_level_rank("self_signed")
        assert response.admission != "public"
        if response.HasField("verdict"):
            verdict = read_verdict(response, self.attestation.clock)
            assert trust_level_rank(verdict.trust_level) <= trust_level_rank("self_signed")
            assert verdict.admission == self.admitted_as()
            self.verdicts += 1

    def admitted_as(self) -> str:
        """The only admission that this mesh may give."""
        return "owner"


class DevelopmentStory(Story):
    """The same in a mesh of development."""

    def admitted_as(self) -> str:
        """The only admission that this mesh may give."""
        return "development"


@pytest.mark.parametrize("development", [False, True])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(claims=CLAIMS, steps=STEPS, owner=st.sampled_from(["", "acct_1"]))
async def test_no_sequence_of_messages_earns_more_than_self_signed(
    database_url: str, development: bool, claims: Any, steps: Any, owner: str
) -> None:
    database, clock = await Database.connect(database_url), FakeClock()
    apple = PinnedVerifier(APPLE.roots, APP)
    async with served(database, clock, development=development, apple=apple) as attestation:
        await attestation.bless()
        kind = DevelopmentStory if development else Story
        story = kind(attestation, Provider(**claims), owner)
        await story.begin()
        for step in steps:
            try:
                await story.step(*step)
            except MeshError:
                continue
        if not development and not owner:
            assert story.verdicts == 0
    await database.close()


WITH_IDS = (
    "key_proof_id = 'kpr_1', posture_id = 'pos_1', identity_key = 'a', encryption_key = 'b',"
    " serial_hash = 'c', posture_good = true"
)


@pytest.mark.parametrize(
    "changes",
    [
        "trust_level = 'hardware'",
        "trust_level = 'hardware', admission = 'public'",
        "admission = 'public'",
        f"trust_level = 'hardware', {WITH_IDS}",
    ],
)
async def test_not_even_the_tables_can_hold_more_without_both_kinds_of_evidence(
    database: Database, clock: FakeClock, changes: str
) -> None:
    async with served(database, clock) as attestation:
        await attestation.bless()
        provider = Provider()
        await attestation.register(provider)
        response, _ = await attestation.verdict(provider)
    async with database.acquire() as connection:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.execute(
                f"UPDATE attestation.verdicts SET {changes} WHERE verdict_id = $1",  # noqa: S608 - from the list above
                response.verdict_id,
            )
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("UPDATE attestation.registrations SET trust_level='hardware'")
