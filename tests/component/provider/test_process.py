"""The agent as the owner starts it: a real process, real signals, real files, real TLS."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.options import server_options
from darkbloom_mesh.testing import serve_ephemeral

from tests.component.provider.models import BUILD, place_model
from tests.fakes.provider_router import PATIENCE_S, FakeRouter

CANARY = "canary-51c0de"


class Process:
    """A running `darkbloom start`."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.ready_file = home.parent / "ready.json"
        self.log = home.parent / "log"
        self._environment = environment
        self._child: asyncio.subprocess.Process | None = None

    @property
    def child(self) -> asyncio.subprocess.Process:
        assert self._child is not None
        return self._child

    async def start(self, *flags: str, **more: str) -> None:
        with self.log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "darkbloom_provider",
                    "start",
                    "--foreground",
                    "--engine",
                    "scripted",
                ),
                *flags,
                env={**self._environment, **more},
                stdout=log,
                stderr=log,
            )

    async def ready(self) -> dict[str, object]:
        async with asyncio.timeout(PATIENCE_S * 2):
            while not self.ready_file.exists():
                assert self.child.returncode is None, self.log.read_text()
                await SystemClock().sleep(0.02)
        return dict(json.loads(self.ready_file.read_text()))

    async def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            return await self.child.wait()

    def state(self) -> dict[str, object]:
        return dict(json.loads((self.home / "daemon-state.json").read_text()))


@asynccontextmanager
async def process(tmp_path: Path, target: str, **more: str) -> AsyncIterator[Process]:
    home = tmp_path / "home"
    place_model(home / "models")
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - for a real child
        "DARKBLOOM_ENV": "development",
        "DARKBLOOM_PROVIDER_HOME": str(home),
        "DARKBLOOM_PROVIDER_COORDINATOR": target,
        "DARKBLOOM_PROVIDER_COORDINATOR_TLS": "false",
        "DARKBLOOM_PROVIDER_READY_FILE": str(tmp_path / "ready.json"),
        "LD_AUDIT": "",
        **more,
    }
    running = Process(home, environment)
    try:
        yield running
    finally:
        if running._child is not None and running.child.returncode is None:
            running.child.kill()
            await running.child.wait()


def now_ms() -> int:
    return int(SystemClock().now().timestamp() * 1000)


async def test_a_real_process_serves_drains_on_sigterm_and_leaves_no_trace_of_content(tmp_path):
    router = FakeRouter()
    async with serve_ephemeral(router.register) as target, process(tmp_path, target) as agent:
        await agent.start("--name", "my mac")
        link = await router.next_link()
        ready = await agent.ready()
        assert ready["pid"] == agent.child.pid
        assert ready["provider_id"] == link.provider_id
        assert ready["accepted_models"] == [BUILD]

        register = link.register_frame
        assert register.name == "my mac"
        if sys.platform == "linux":
            assert register.privacy.core_dumps_disabled
            assert register.privacy.anti_debug_enabled
            assert register.privacy.env_scrubbed
        assert not register.privacy.sip_enabled

        script = json.dumps({"text": f"{CANARY} is what you said"})
        answer = await link.ask(f"/script {script}", now_ms=now_ms()).send().answer()
        assert CANARY in answer.text

        slow = json.dumps({"text": f"{CANARY} slow " * 10, "interval_s": 0.05})
        ask = link.ask(f"/script {slow}", now_ms=now_ms()).send()
        await ask.delta()
        assert await agent.stop() == 0
        # What was accepted before the signal was finished and settled.
        while (await ask.delta())[0].finish_reason is None:
            pass
        assert (await ask.terminal()).outcome == "completed"
        await link.ended.wait()
        assert link.end.clean
    assert agent.state()["connection"] == "stopped"
    assert agent.state()["requests_served"] == 2
    assert not agent.ready_file.exists()
    written = [agent.log, *agent.home.rglob("*")]
    assert all(CANARY.encode() not in p.read_bytes() for p in written if p.is_file())
    assert b"link_ended" in agent.log.read_bytes()


async def test_sigterm_ends_an_agent_whose_router_is_away(tmp_path):
    async with process(tmp_path, "127.0.0.1:1") as agent:
        await agent.start()
        async with asyncio.timeout(PATIENCE_S):
            while not (agent.home / "daemon-state.json").exists():
                await SystemClock().sleep(0.02)
        assert await agent.stop() == 0
        assert agent.state()["connection"] == "stopped"


async def test_a_killed_agent_starts_again_with_its_identity_and_a_new_k(tmp_path):
    router = FakeRouter()
    async with serve_ephemeral(router.register) as target, process(tmp_path, target) as agent:
        await agent.start()
        first = await router.next_link()
        await first.registration()
        agent.child.kill()
        await agent.child.wait()
        await agent.start()
        second = await router.next_link()
        await second.registration()
        assert await agent.stop() == 0
    one, two = (json.loads(link.register_frame.attestation_blob) for link in (first, second))
    assert one["publicKey"] == two["publicKey"]
    assert one["encryptionPublicKey"] != two["encryptionPublicKey"]


class Authority:
    """A throw-away CA and one certificate for this host."""

    def __init__(self) -> None:
        self.key, now = ec.generate_private_key(ec.SECP256R1()), datetime(2020, 1, 1, tzinfo=UTC)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")])
        self._begin, self._end = now, now + timedelta(days=36_500)
        self.root = self._sign(self._name, self.key.public_key(), ca=True)

    @property
    def pem(self) -> bytes:
        return self.root.public_bytes(serialization.Encoding.PEM)

    def server(self) -> grpc.ServerCredentials:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        leaf = self._sign(name, key.public_key(), ca=False)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain = leaf.public_bytes(serialization.Encoding.PEM)
        return grpc.ssl_server_credentials([(private, chain)])

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._begin)
            .not_valid_after(self._end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )


@pytest.mark.parametrize("trusted", [True, False])
async def test_production_dials_with_tls_and_only_to_roots_that_it_trusts(tmp_path, trusted):
    router, authority = FakeRouter(), Authority()
    server = grpc.aio.server(options=server_options())
    router.register(server)
    port = server.add_secure_port("localhost:0", authority.server())
    await server.start()
    roots = tmp_path / "roots.pem"
    roots.write_bytes((authority if trusted else Authority()).pem)
    try:
        async with process(
            tmp_path,
            f"localhost:{port}",
            DARKBLOOM_ENV="production",
            DARKBLOOM_PROVIDER_COORDINATOR_TLS="true",
            DARKBLOOM_PROVIDER_COORDINATOR_CA_FILE=str(roots),
        ) as agent:
            await agent.start()
            if trusted:
                link = await router.next_link()
                await link.registration()
                answer = await link.ask("hello", now_ms=now_ms()).send().answer()
                assert answer.terminal.outcome == "completed"
            else:
                async with asyncio.timeout(PATIENCE_S):
                    while not (
                        (agent.home / "daemon-state.json").exists() and agent.state()["last_error"]
                    ):
                        await SystemClock().sleep(0.02)
                assert router.calls == 0
            assert await agent.stop() == 0
    finally:
        await server.stop(None)
