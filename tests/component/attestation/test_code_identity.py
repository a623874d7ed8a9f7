"""Code identity over pushes: the other way to prove that the signed app holds K."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_attestation.apns.model import Push, PushOutcome, PushResult
from darkbloom_edge.boxes import KeyPair, new_key_pair
from darkbloom_edge.code_identity import SealedChallenge, answer_code_challenge
from darkbloom_edge.signatures import P256Signer
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.macs import Home, Mac, home, why

PATIENCE_S = 20


class FakePusher:
    """Takes pushes as Apple does."""

    def __init__(self) -> None:
        self.result = PushResult.DELIVERED
        self.pushed: asyncio.Queue[Push] = asyncio.Queue()

    async def push(self, push: Push) -> PushOutcome:
        self.pushed.put_nowait(push)
        return PushOutcome(result=self.result)

    async def next(self) -> SealedChallenge:
        async with asyncio.timeout(PATIENCE_S):
            push = await self.pushed.get()
        carried = orjson.loads(push.payload)["code_challenge"]
        return SealedChallenge(**{name: base64.b64decode(value) for name, value in carried.items()})


class PushedMac(Mac):
    """A Mac whose app receives pushes and holds K."""

    def __init__(self, clock: FakeClock, **claims: Any) -> None:
        super().__init__(clock, **claims)
        self.pair = new_key_pair()
        self.k = self.pair.public
        self.token = base64.b16encode(self.pair.public).decode()

    @property
    def where(self) -> dict[str, str]:
        return {"apns_device_token": self.token, "apns_environment": "production"}

    def opened(
        self,
        sealed: SealedChallenge,
        *,
        pair: KeyPair | None = None,
        signer: P256Signer | None = None,
        **changes: Any,
    ) -> pb.AnswerCodeChallengeRequest:
        """What the app answers."""
        answer = answer_code_challenge(
            sealed,
            provider_id=self.provider_id,
            key_pair=pair or self.pair,
            signer=signer or self.signer,
        )
        fields = {"nonce": answer.nonce, "signature": answer.signature, **changes}
        return pb.AnswerCodeChallengeRequest(provider_id=self.provider_id, **fields)


@pytest.fixture
def pusher() -> FakePusher:
    return FakePusher()


@pytest.fixture
async def here(database: Database, clock: FakeClock, pusher: FakePusher) -> AsyncIterator[Home]:
    async with home(database, clock, pusher=pusher) as found:
        yield found


async def asked(here: Home, pusher: FakePusher, **claims: Any) -> tuple[PushedMac, SealedChallenge]:
    """A Mac with a good posture that has just been pushed."""
    mac = PushedMac(here.clock, **claims)
    await here.join(mac, **mac.where)
    response = await here.show(mac, app=False, chain=mac.chain())
    assert response.trust_level == "self_signed"
    assert "key_proof_missing" in why(response)
    assert response.code_challenge == b""
    return mac, await pusher.next()


async def answered(here: Home, request: Any) -> str:
    response = await here.attestation.call("AnswerCodeChallenge", request)
    assert response.accepted is not bool(response.finding)
    return str(response.finding)


async def test_an_answered_push_and_a_posture_are_hardware(here: Home, pusher: FakePusher) -> None:
    mac, sealed = await asked(here, pusher)
    request = mac.opened(sealed)
    assert await answered(here, request) == ""
    # Once.
    assert await answered(here, request) == "code_challenge_unknown"
    response = await here.show(mac, app=False)
    assert (response.trust_level, why(response)) == ("hardware", ["hardware_proven"])
    page = await here.attestation.call(
        "ListEvidence", pb.ListEvidenceRequest(provider_ids=[mac.provider_id])
    )
    shown = page.SerializeToString()
    assert mac.token.lower().encode() not in shown
    assert mac.serial.encode() not in shown


async def test_every_other_answer_proves_nothing(here: Home, pusher: FakePusher) -> None:
    mac, sealed = await asked(here, pusher)
    assert await answered(here, mac.opened(sealed, nonce=bytes(32))) == "code_challenge_unknown"
    stranger = mac.opened(sealed, signer=P256Signer.generate())
    assert await answered(here, stranger) == "signature_failed"
    # It was consumed: there is no second guess.
    assert await answered(here, mac.opened(sealed)) == "code_challenge_unknown"
    assert (await here.show(mac, app=False)).trust_level == "self_signed"


async def test_an_answer_of_another_session_or_too_late_proves_nothing(
    here: Home, pusher: FakePusher, clock: FakeClock
) -> None:
    mac, sealed = await asked(here, pusher)
    elsewhere = mac.opened(sealed)
    other = PushedMac(here.clock)
    await here.join(other)
    elsewhere.provider_id = other.provider_id
    assert await answered(here, elsewhere) == "code_challenge_unknown"
    await clock.advance(301)
    assert await answered(here, mac.opened(sealed)) == "expired"

    mac, sealed = await asked(here, pusher)
    await here.attestation.call(
        "ReportViolation",
        pb.ReportViolationRequest(
            report_id="rep_1", provider_id=mac.provider_id, attempt_id="att_1", kind="header"
        ),
    )
    assert await answered(here, mac.opened(sealed)) == "session_untrusted"


async def test_a_proof_is_renewed_over_the_stream_and_not_by_another_push(
    here: Home, pusher: FakePusher, clock: FakeClock
) -> None:
    mac, sealed = await asked(here, pusher)
    assert await answered(here, mac.opened(sealed)) == ""
    response = await here.show(mac, app=False)
    assert response.code_challenge == b""
    await clock.advance(timedelta(minutes=20).total_seconds())
    response = await here.show(mac, app=False)
    assert response.trust_level == "hardware"
    assert pusher.pushed.empty()
    over_stream = SealedChallenge.from_bytes(response.code_challenge)
    assert await answered(here, mac.opened(over_stream)) == ""


async def test_a_recent_push_lets_a_reconnected_process_be_asked_over_its_stream(
    here: Home, pusher: FakePusher
) -> None:
    mac, sealed = await asked(here, pusher)
    assert await answered(here, mac.opened(sealed)) == ""
    mac.reconnect()
    await here.join(mac, **mac.where)
    response = await here.show(mac, app=False, chain=mac.chain())
    # Stored proofs authorise the question, never the grant.
    assert response.trust_level == "self_signed"
    over_stream = SealedChallenge.from_bytes(response.code_challenge)
    assert await answered(here, mac.opened(over_stream)) == ""
    assert (await here.show(mac, app=False)).trust_level == "hardware"


async def test_another_k_or_token_has_to_be_pushed(
    here: Home, pusher: FakePusher, clock: FakeClock
) -> None:
    mac, sealed = await asked(here, pusher)
    assert await answered(here, mac.opened(sealed)) == ""
    mac.reconnect()
    mac.pair = new_key_pair()
    mac.k = mac.pair.public
    await here.join(mac, **mac.where)
    response = await here.show(mac, app=False)
    # The device was pushed a moment ago: its budget holds, and nothing goes over the stream.
    assert response.code_challenge == b""
    assert pusher.pushed.empty()
    await clock.advance(1200)
    await here.show(mac, app=False)
    assert await answered(here, mac.opened(await pusher.next())) == ""


async def test_an_open_challenge_is_not_replaced_while_its_answer_may_be_on_its_way(
    here: Home, pusher: FakePusher
) -> None:
    mac, sealed = await asked(here, pusher)
    await here.show(mac, app=False)
    assert pusher.pushed.empty()
    assert await answered(here, mac.opened(sealed)) == ""


async def test_a_token_that_apple_does_not_know_is_forgotten(
    here: Home, pusher: FakePusher, clock: FakeClock
) -> None:
    pusher.result = PushResult.TOKEN_GONE
    mac, _ = await asked(here, pusher)
    # The sender forgets it a moment after the push, long before the third round.
    for _ in range(3):
        await clock.advance(1300)
        await here.show(mac, app=False)
    while not pusher.pushed.empty():
        pusher.pushed.get_nowait()
    await clock.advance(1300)
    await here.show(mac, app=False)
    assert pusher.pushed.empty()


async def test_who_cannot_be_reached_or_cannot_be_hardware_is_not_pushed(
    here: Home, pusher: FakePusher
) -> None:
    for changes in (
        {"apns_device_token": ""},
        {"apns_device_token": "../../3/device/x"},
        {"apns_environment": "staging"},
    ):
        mac = PushedMac(here.clock)
        await here.join(mac, **{**mac.where, **changes})
        await here.show(mac, app=False)
    mac = PushedMac(here.clock, sip_enabled=False)
    await here.join(mac, **mac.where)
    await here.attestation.passed(mac)
    assert pusher.pushed.empty()
