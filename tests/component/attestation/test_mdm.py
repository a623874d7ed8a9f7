"""Asking devices: who is worth a question, what is asked, and what the server may answer."""

import asyncio
import base64
import json
import plistlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from darkbloom_attestation.mdm import push_certificate
from darkbloom_attestation.mdm.asker import AGAIN_S, MAX_WAITING, Asker
from darkbloom_attestation.mdm.client import ManagerUnavailableError, MicroMdm
from darkbloom_attestation.mdm.push_certificate import PushCertificate
from darkbloom_attestation.store import PostgresStore
from darkbloom_edge.apple.mda import key_freshness
from darkbloom_mesh.config import Secret
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock, settle

from tests.component.attestation.macs import Mac, home, why
from tests.component.attestation.test_lives import UDID, recorded, report
from tests.stores import Postgres


@pytest.fixture(scope="module")
def database_url(cluster: Postgres, template: str) -> Iterator[str]:
    """One database for this module: every Mac has keys and a serial of its own."""
    with cluster.database(template) as url:
        yield url


@dataclass
class Manager:
    """A device management server that knows its devices."""

    enrolled: dict[str, str] = field(default_factory=dict)
    commands: list[dict[str, Any]] = field(default_factory=list)
    pushes: list[str] = field(default_factory=list)
    status: int = 200
    answer: bytes | None = None
    certificate: bytes = b""
    """With which it wakes devices, DER."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"].startswith("Basic ")
        path = request.url.path
        if self.status != 200 or self.answer is not None:
            return httpx.Response(self.status, content=self.answer or b"")
        if path == "/v1/config/certificate":
            return httpx.Response(200, json={"cert": base64.b64encode(self.certificate).decode()})
        if path == "/v1/devices":
            wanted = json.loads(request.content)["filter_serial"]
            rows = [
                {"serial_number": serial, "udid": udid, "enrollment_status": True}
                for serial, udid in self.enrolled.items()
                if serial in wanted
            ]
            return httpx.Response(200, json={"devices": rows})
        if path.startswith("/v1/commands/"):
            self.commands.append(plistlib.loads(request.content))
        else:
            self.pushes.append(path)
        return httpx.Response(200, json={})

    def client(self) -> MicroMdm:
        transport = httpx.MockTransport(self)
        return MicroMdm("http://mdm.invalid", Secret("key"), transport=transport)


def asker(
    database: Database,
    clock: FakeClock,
    manager: Manager,
    heard: Callable[[str], None] = lambda _outcome: None,
) -> Asker:
    ids = iter(range(1, 100))

    def entropy(size: int) -> bytes:
        return next(ids).to_bytes(size, "big")

    return Asker(PostgresStore(database), manager.client(), clock, entropy, heard)


async def test_an_attested_app_has_its_device_asked_and_the_answer_makes_it_hardware(
    database: Database, clock: FakeClock
) -> None:
    manager = Manager()
    async with home(database, clock) as place:
        mac: Mac = place.mac()
        manager.enrolled[mac.serial] = UDID
        await place.join(mac)
        assert why(await place.show(mac))[0] == "posture_missing"
        assert await asker(database, clock, manager).ask(mac.provider_id) == 2

        security, device = manager.commands
        assert security["Command"] == {"RequestType": "SecurityInfo"}
        assert device["Command"]["DeviceAttestationNonce"] in key_freshness(mac.signer.public)
        assert manager.pushes == [f"/push/{UDID}"] * 2
        assert (await recorded(place, report(security["CommandUUID"]))).recorded
        response = await place.show(mac)
        assert (response.trust_level, response.admission) == ("hardware", "public")


async def test_a_device_that_is_not_enrolled_is_not_asked(
    database: Database, clock: FakeClock
) -> None:
    manager = Manager(enrolled={"OTHER1234": UDID})
    async with home(database, clock) as place:
        mac = place.mac()
        await place.join(mac)
        heard = list[str]()
        assert await asker(database, clock, manager, heard.append).ask(mac.provider_id) == 0
        assert manager.commands == []
        assert heard == ["not_enrolled"]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, b""),
        (302, b""),
        (200, b"not json"),
        (200, b"[]"),
        (200, b'{"devices":[{"serial_number":"C02XYZ123456","enrollment_status":true}]}'),
        (200, bytes(70_000)),
    ],
)
async def test_a_server_that_does_not_answer_as_agreed_is_away(status: int, answer: bytes) -> None:
    client = Manager(status=status, answer=answer).client()
    with pytest.raises(ManagerUnavailableError) as caught:
        await client.find("C02XYZ123456")
    assert "C02" not in str(caught.value)
    await client.close()


async def test_an_impossible_device_id_never_becomes_part_of_an_address() -> None:
    client = Manager(enrolled={"C02XYZ123456": "../../v1/devices"}).client()
    with pytest.raises(ManagerUnavailableError):
        await client.find("C02XYZ123456")
    await client.close()


async def test_a_session_is_asked_once_in_two_minutes_and_the_queue_is_bounded(
    database: Database, clock: FakeClock
) -> None:
    waiting = asker(database, clock, Manager())
    for _ in range(3):
        waiting.wish("prov_1")
    assert waiting._waiting.qsize() == 1
    clock.jump(AGAIN_S)
    waiting.wish("prov_1")
    assert waiting._waiting.qsize() == 2
    for number in range(MAX_WAITING + 10):
        waiting.wish(f"prov_{number + 2}")
    assert waiting._waiting.qsize() == MAX_WAITING


def certificate(end: datetime) -> bytes:
    """Sign a certificate that ends then."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "APSP:test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(end - timedelta(days=365))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


async def test_the_end_of_the_managers_push_certificate_is_told_and_kept() -> None:
    first = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    clock, manager = FakeClock(), Manager(certificate=certificate(first))
    told: list[float] = []
    watch = PushCertificate(manager.client(), clock, told.append)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watch.run())
        await settle()
        assert told == [first.timestamp()]
        manager.status = 503
        await clock.advance(push_certificate.EVERY_S)
        await settle()
        assert told == [first.timestamp()]
        manager.status, manager.certificate = 200, certificate(first + timedelta(days=365))
        await clock.advance(push_certificate.AGAIN_S)
        await settle()
        assert told[1:] == [(first + timedelta(days=365)).timestamp()]
        running.cancel()


@pytest.mark.parametrize(
    "answer", [b"{}", b"[]", b'{"cert": ""}', b'{"cert": "eA=="}', b"\xff", b'{"cert": 7}']
)
async def test_a_manager_that_shows_no_certificate_is_no_crash(answer: bytes) -> None:
    with pytest.raises(ManagerUnavailableError):
        await Manager(answer=answer).client().push_certificate_end()
