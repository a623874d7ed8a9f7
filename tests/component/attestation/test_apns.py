"""The push client against a real HTTP/2 server: what is sent, and what each answer means."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from darkbloom_attestation.apns import client as apns_client
from darkbloom_attestation.apns.client import ApnsClient
from darkbloom_attestation.apns.credentials import ProviderToken
from darkbloom_attestation.apns.model import (
    Push,
    PushEnvironment,
    PushMode,
    PushResult,
    PushToken,
)
from darkbloom_attestation.apns.payload import challenge_push
from darkbloom_edge.boxes import new_key_pair
from darkbloom_edge.code_identity import SealedChallenge
from darkbloom_mesh.testing import FakeClock

from tests.fakes.apns import FakeApple, running
from tests.fakes.apns import tls as apple_tls

TOKEN = PushToken("0123456789abcdef" * 4)
TOPIC = "io.darkbloom.provider"
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return apple_tls(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture
async def apple(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[FakeApple]:
    async with running(tls[0]) as server:
        yield server


@pytest.fixture
async def client(
    apple: FakeApple, tls: tuple[ssl.SSLContext, ssl.SSLContext], clock: FakeClock
) -> AsyncIterator[ApnsClient]:
    pem = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    credentials = ProviderToken.load(pem, key_id="ABC123DEFG", team_id="TEAM123456", clock=clock)
    origins = dict.fromkeys(PushEnvironment, apple.origin)
    async with ApnsClient(
        credentials, topic=TOPIC, clock=clock, tls=tls[1], origins=origins
    ) as made:
        yield made


def push(mode: PushMode = PushMode.BACKGROUND) -> Push:
    sealed = SealedChallenge(
        ephemeral_public_key=new_key_pair().public, ciphertext=bytes(24 + 16 + 32)
    )
    return challenge_push(sealed, TOKEN, PushEnvironment.PRODUCTION, mode)


async def test_a_push_arrives_as_apple_wants_it(
    client: ApnsClient, apple: FakeApple, clock: FakeClock
) -> None:
    outcome = await client.push(push())
    assert (outcome.result, outcome.reason) == (PushResult.DELIVERED, "")
    (request,) = apple.received
    assert request.path == f"/3/device/{TOKEN.text}"
    head = request.headers
    assert head[":method"] == "POST"
    assert head["apns-topic"] == TOPIC
    assert (head["apns-push-type"], head["apns-priority"]) == ("background", "5")
    assert int(head["apns-expiration"]) == int(clock.now().timestamp()) + 300
    body = orjson.loads(request.body)
    assert body["aps"] == {"content-available": 1}
    assert set(body["code_challenge"]) == {"ephemeral_public_key", "ciphertext"}

    scheme, _, token = head["authorization"].partition(" ")
    assert scheme == "bearer"
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "ABC123DEFG"}
    claims = jwt.decode(
        token, KEY.public_key(), algorithms=["ES256"], options={"verify_iat": False}
    )
    assert claims == {"iss": "TEAM123456", "iat": int(clock.now().timestamp())}


async def test_an_alert_is_urgent_and_says_only_fixed_words(
    client: ApnsClient, apple: FakeApple
) -> None:
    await client.push(push(PushMode.ALERT))
    (request,) = apple.received
    assert request.headers["apns-push-type"] == "alert"
    assert request.headers["apns-priority"] == "10"
    assert set(orjson.loads(request.body)["aps"]) == {"content-available", "alert"}


async def test_one_connection_carries_many_pushes(client: ApnsClient, apple: FakeApple) -> None:
    await client.push(push())
    outcomes = await asyncio.gather(*(client.push(push()) for _ in range(20)))
    assert {outcome.result for outcome in outcomes} == {PushResult.DELIVERED}
    assert (apple.connections, len(apple.received)) == (1, 21)


@pytest.mark.parametrize(
    ("status", "reason", "result"),
    [
        (400, "BadDeviceToken", PushResult.TOKEN_GONE),
        (400, "DeviceTokenNotForTopic", PushResult.TOKEN_GONE),
        (410, "Unregistered", PushResult.TOKEN_GONE),
        (410, "", PushResult.TOKEN_GONE),
        (403, "InvalidProviderToken", PushResult.CREDENTIALS),
        (403, "", PushResult.CREDENTIALS),
        (429, "TooManyRequests", PushResult.THROTTLED),
        (429, "", PushResult.THROTTLED),
        (400, "BadTopic", PushResult.REJECTED),
        (413, "PayloadTooLarge", PushResult.REJECTED),
        (404, "", PushResult.REJECTED),
        (302, "", PushResult.REJECTED),
        (500, "InternalServerError", PushResult.UNAVAILABLE),
        (503, "Shutdown", PushResult.UNAVAILABLE),
        (502, "", PushResult.UNAVAILABLE),
    ],
)
async def test_each_answer_has_its_meaning(
    client: ApnsClient, apple: FakeApple, status: int, reason: str, result: PushResult
) -> None:
    apple.status, apple.reason = status, reason
    outcome = await client.push(push())
    assert (outcome.result, outcome.reason) == (result, reason)


@pytest.mark.parametrize("text", ["<script>", "x" * 5000])
async def test_words_that_are_not_apples_go_no_further(
    client: ApnsClient, apple: FakeApple, text: str
) -> None:
    apple.status, apple.reason = 400, text
    assert (await client.push(push())).reason == ""
    apple.raw_answer = text.encode()
    assert (await client.push(push())).reason == ""


async def test_a_pause_that_apple_asks_for_is_told_and_bounded(
    client: ApnsClient, apple: FakeApple
) -> None:
    apple.status = 429
    for said, heard in (("17", 17.0), ("999999", 3600.0), ("-1", None), ("soon", None)):
        apple.headers = {"retry-after": said}
        assert (await client.push(push())).retry_after_s == heard


async def test_an_expired_token_is_replaced_but_not_too_often(
    client: ApnsClient, apple: FakeApple, clock: FakeClock
) -> None:
    apple.status, apple.reason = 403, "ExpiredProviderToken"
    for _ in range(3):
        assert (await client.push(push())).result is PushResult.CREDENTIALS
    assert len({request.headers["authorization"] for request in apple.received}) == 1
    await clock.advance(1201)
    await client.push(push())
    assert len({request.headers["authorization"] for request in apple.received}) == 2


async def test_a_server_that_hangs_up_or_is_gone_is_unavailable(
    client: ApnsClient, apple: FakeApple
) -> None:
    apple.hangs_up = True
    assert (await client.push(push())).result is PushResult.UNAVAILABLE
    apple.hangs_up = False
    assert (await client.push(push())).result is PushResult.DELIVERED


async def test_a_server_that_says_nothing_is_given_up(
    client: ApnsClient, apple: FakeApple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apns_client, "TIMEOUT_S", 0.2)
    apple.silent = True
    assert (await client.push(push())).result is PushResult.UNAVAILABLE


async def test_a_server_of_another_certificate_gets_nothing(
    apple: FakeApple, clock: FakeClock
) -> None:
    pem = KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    credentials = ProviderToken.load(pem, key_id="ABC123DEFG", team_id="TEAM123456", clock=clock)
    origins = dict.fromkeys(PushEnvironment, apple.origin)
    async with ApnsClient(credentials, topic=TOPIC, clock=clock, origins=origins) as stranger:
        assert (await stranger.push(push())).result is PushResult.UNAVAILABLE
    assert apple.received == []


async def test_nothing_that_is_logged_names_a_device(
    client: ApnsClient, apple: FakeApple, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await client.push(push())
    apple.hangs_up = True
    await client.push(push())
    assert apple.received
    assert TOKEN.text not in caplog.text
    assert TOKEN.text not in repr(push())
