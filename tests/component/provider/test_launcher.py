"""The launcher's protocol: with a launcher in small, and as two real processes."""

import asyncio
import hashlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from darkbloom.attestation.v1.attestation_pb2 import DeviceEvidence
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import CodeAttestationResponse, CodeResumeChallenge
from darkbloom_edge.apple.app_attest import AppAttestPolicy, verify_attestation
from darkbloom_edge.apple.assertion import verify_assertion
from darkbloom_edge.attestation import Challenge, RegistrationBlob
from darkbloom_edge.boxes import KeyPair, new_key_pair
from darkbloom_edge.code_identity import (
    CodeAnswer,
    CodeChallenge,
    SealedChallenge,
    seal_code_challenge,
    verify_code_answer,
)
from darkbloom_edge.device_statement import client_data_hash, verify_statement
from darkbloom_edge.documents import decode_document, rfc3339
from darkbloom_edge.signatures import P256Signer, from_base64, parse_p256_public, to_base64
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.testing import serve_ephemeral
from darkbloom_provider.app import inherited_socket
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.device_key import SoftwareKey
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.mac import launcher as launcher_module
from darkbloom_provider.mac.errors import LauncherError
from darkbloom_provider.mac.frames import MAX_MESSAGE_BYTES, encode_message
from darkbloom_provider.mac.launcher import Launcher
from darkbloom_provider.mac.posture import Posture
from darkbloom_provider.witness import Witness

from tests.component.provider.harness import staged
from tests.component.provider.test_process import Process, process
from tests.fakes.apple_service import NOW
from tests.fakes.launcher import APP_ID, PUSH_TOKEN, SERIAL, FakeLauncher
from tests.fakes.provider_router import FakeLink, FakeRouter

K = new_key_pair()
KEY = SoftwareKey(P256Signer.generate())
ASKED = {
    "provider_id": "prov_" + "0" * 32,
    "nonce": to_base64(bytes(32)),
    "timestamp": "2026-01-31T12:00:00Z",
}


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Launcher, FakeLauncher, "asyncio.Task[None]"]]:
    ours, theirs = socket.socketpair()
    fake = FakeLauncher(theirs)
    serving = asyncio.create_task(fake.run())
    launcher = await Launcher.connect(ours)
    reading = asyncio.create_task(launcher.run())
    try:
        async with asyncio.timeout(20):
            yield launcher, fake, reading
    finally:
        for task in (reading, serving):
            task.cancel()
        await asyncio.gather(reading, serving, return_exceptions=True)


async def refusal(call: Any) -> str:
    with pytest.raises(LauncherError) as refused:
        await call
    return refused.value.reason


async def test_the_first_evidence_attests_a_key_and_the_next_ones_use_it() -> None:
    async with connected() as (launcher, fake, _):
        hello = await launcher.greet(K.public, KEY)
        assert hello.app_attest
        first = await launcher.evidence(**ASKED)
        second = await launcher.evidence(**ASKED)
        assert first.attestation
        assert not first.assertion
        assert second.assertion
        assert not second.attestation

        statement = from_base64(first.statement)
        outcome = verify_statement(
            statement,
            challenge=Challenge(ASKED["nonce"], ASKED["timestamp"], ASKED["provider_id"]),
            identity_key=KEY.public,
            encryption_key=K.public,
            serial=SERIAL,
            salt=from_base64(first.serial_salt),
        )
        assert outcome.fault is None
        key = verify_attestation(
            from_base64(first.attestation),
            key_id=first.key_id,
            client_data_hash=client_data_hash(statement),
            policy=AppAttestPolicy.for_app(APP_ID),
            roots=fake.apple.roots,
            now=NOW,
        )
        said = verify_assertion(
            from_base64(second.assertion),
            client_data_hash=client_data_hash(from_base64(second.statement)),
            public_key=key.public_key,
            app_id_hash=hashlib.sha256(APP_ID.encode()).digest(),
            previous_counter=0,
        )
        assert said.counter == 1
        assert SERIAL not in repr(first)


async def test_keys_are_bound_once_and_only_by_who_holds_them() -> None:
    async with connected() as (launcher, fake, _):
        assert await refusal(launcher.evidence(**ASKED)) == "not_bound"
        fake.nonce, told = bytes(32), fake.nonce
        fake.overrides["hello"] = {"nonce": to_base64(told)}
        assert await refusal(launcher.greet(K.public, KEY)) == "bad_signature"
        fake.overrides.clear()
        await launcher.greet(K.public, KEY)
        assert await refusal(launcher.greet(new_key_pair().public, KEY)) == "already_bound"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"protocol": 2}, "protocol_unsupported"),
        ({"protocol": "1"}, "malformed_message"),
        ({"nonce": "%"}, "malformed_message"),
        ({"ok": False, "error": "serial_unreadable"}, "serial_unreadable"),
        ({"ok": False, "error": "/Users/canary"}, "refused"),
        ({"ok": False, "error": ["x"]}, "refused"),
        ({"ok": "yes"}, "refused"),
    ],
)
async def test_a_launcher_that_answers_wrongly_is_refused_by_a_closed_word(
    said: dict[str, Any], reason: str
) -> None:
    async with connected() as (launcher, fake, _):
        fake.overrides["hello"] = said
        assert await refusal(launcher.greet(K.public, KEY)) == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"), "message_too_large"),
        (b"\x00\x00\x00\x02[]", "malformed_message"),
        (b'\x00\x00\x00\x0d{"a":1,"a":2}', "malformed_message"),
        (b"\x00\x00\x00\x02\xff\xff", "malformed_message"),
        (encode_message({"event": "push_token", "token": "x"}), "malformed_message"),
        (
            encode_message({"event": "code_challenge", "ephemeral_public_key": 1}),
            "malformed_message",
        ),
    ],
)
async def test_broken_messages_end_the_connection_and_everything_that_waits(
    data: bytes, reason: str
) -> None:
    async with connected() as (launcher, fake, reading):
        await launcher.greet(K.public, KEY)
        fake.silent.add("evidence")
        waiting = asyncio.create_task(launcher.evidence(**ASKED))
        while fake.asked[-1]["op"] != "evidence":
            await SystemClock().sleep(0.01)
        await fake.send_bytes(data)
        assert await refusal(waiting) == reason
        assert await refusal(reading) == reason
        assert await refusal(launcher.evidence(**ASKED)) == reason


async def test_a_message_that_is_cut_off_is_no_end() -> None:
    async with connected() as (launcher, fake, reading):
        await launcher.greet(K.public, KEY)
        await fake.send_bytes(b"\x00\x00\x00\x10{")
        fake.close()
        assert await refusal(reading) == "cut_off"


async def test_without_the_launcher_the_agent_may_not_go_on() -> None:
    async with connected() as (launcher, fake, reading):
        await launcher.greet(K.public, KEY)
        fake.close()
        assert await refusal(reading) == "gone"
        assert await refusal(launcher.evidence(**ASKED)) == "gone"


async def test_a_launcher_that_says_nothing_is_given_up_and_its_late_answer_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected() as (launcher, fake, reading):
        await launcher.greet(K.public, KEY)
        fake.silent.add("evidence")
        monkeypatch.setattr(launcher_module, "EVIDENCE_S", 0.05)
        assert await refusal(launcher.evidence(**ASKED)) == "timeout"
        await fake.send({"id": fake.asked[-1]["id"], "ok": True})
        await fake.send({"id": "x", "ok": True})
        await fake.send({"event": "of a later version"})
        monkeypatch.undo()
        fake.silent.clear()
        assert (await launcher.evidence(**ASKED)).key_id
        assert not reading.done()


async def test_only_so_many_questions_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (launcher, fake, _):
        await launcher.greet(K.public, KEY)
        fake.silent.add("evidence")
        monkeypatch.setattr(launcher_module, "EVIDENCE_S", 0.5)
        calls = [launcher.evidence(**ASKED) for _ in range(launcher_module.MAX_PENDING + 1)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        reasons = [end.reason for end in ends if isinstance(end, LauncherError)]
        assert reasons.count("busy") == 1
        assert reasons.count("timeout") == launcher_module.MAX_PENDING


def sealed_to(
    pair: KeyPair, provider_id: str, channel: Any
) -> tuple[CodeChallenge, SealedChallenge]:
    asked = CodeChallenge(
        nonce=bytes(range(32)),
        provider_id=provider_id,
        encryption_key=pair.public,
        identity_key=bytes(65),
        push_token_hash="",
        channel=channel,
        create_time=SystemClock().now(),
    )
    return asked, seal_code_challenge(asked, new_key_pair(), bytes(24))


async def code_answer(link: FakeLink) -> CodeAnswer:
    frame = await link.take(FrameKind.FRAME_KIND_CODE_ATTESTATION_RESPONSE)
    message = CodeAttestationResponse.FromString(frame.payload)
    return CodeAnswer(nonce=message.nonce, signature=message.signature)


async def test_a_challenge_is_answered_with_what_was_measured_and_what_the_app_signed(
    tmp_path: Path,
) -> None:
    posture = Posture(
        sip_enabled=True,
        secure_boot_enabled=True,
        authenticated_root_enabled=True,
        rdma_disabled=True,
        serial_number=SERIAL,
    )
    async with connected() as (launcher, fake, _):
        witness = Witness(launcher, lambda: posture)
        async with staged(tmp_path, witness=witness) as stage:
            desk = stage.agent._desk
            await launcher.greet(desk.key_pair.public, SoftwareKey(P256Signer.generate()))
            link = await stage.router.next_link()
            register = await link.registration()
            blob = decode_document(register.attestation_blob, RegistrationBlob)
            assert (blob.sip_enabled, blob.secure_boot_enabled) == (True, True)
            assert blob.serial_number == SERIAL
            assert not blob.secure_enclave_available

            link.challenge(**{key: ASKED[key] for key in ("nonce", "timestamp")})
            response = await link.response()
            assert json.loads(response.status)["sip_enabled"] is True
            evidence = DeviceEvidence.FromString(response.device_evidence)
            assert evidence.serial_number == SERIAL
            assert evidence.app_attest.attestation
            assert json.loads(evidence.statement)["provider_id"] == link.provider_id

            link.challenge(**{key: ASKED[key] for key in ("nonce", "timestamp")})
            response = await link.response()
            evidence = DeviceEvidence.FromString(response.device_evidence)
            assert evidence.app_attest.assertion

            link.trust("none", reason="key_proof_rejected")
            while stage.agent.standing.trust_reason != "key_proof_rejected":
                await SystemClock().sleep(0.01)
            link.challenge(**{key: ASKED[key] for key in ("nonce", "timestamp")})
            response = await link.response()
            renewed = DeviceEvidence.FromString(response.device_evidence)
            assert renewed.app_attest.attestation
            assert renewed.app_attest.key_id != evidence.app_attest.key_id

            fake.refuses["evidence"] = "apple_unavailable"
            link.challenge(**{key: ASKED[key] for key in ("nonce", "timestamp")})
            response = await link.response()
            assert response.status_signature
            assert response.device_evidence == b""


async def test_a_code_challenge_is_answered_whichever_way_it_comes(tmp_path: Path) -> None:
    async with connected() as (launcher, fake, _):
        witness = Witness(launcher)
        async with staged(tmp_path, witness=witness) as stage:
            desk, link = stage.agent._desk, await stage.router.next_link()
            await link.registration()
            await stage.agent.registered.wait()
            public = desk.signer.public
            for channel in ("resume", "apns"):
                asked, sealed = sealed_to(desk.key_pair, link.provider_id, channel)
                if channel == "resume":
                    message = CodeResumeChallenge(sealed_nonce=sealed.to_bytes())
                    link.send(FrameKind.FRAME_KIND_CODE_RESUME_CHALLENGE, 0, message)
                else:
                    await fake.send(
                        {
                            "event": "code_challenge",
                            "ephemeral_public_key": to_base64(sealed.ephemeral_public_key),
                            "ciphertext": to_base64(sealed.ciphertext),
                        }
                    )
                answer = await code_answer(link)
                verify_code_answer(
                    answer,
                    CodeChallenge(
                        **{
                            **{f: getattr(asked, f) for f in CodeChallenge.__slots__},
                            "identity_key": public,
                        }
                    ),
                    encryption_key=desk.key_pair.public,
                    identity_key=public,
                    push_token_hash="",
                    now=SystemClock().now(),
                )


async def test_other_things_sealed_to_k_are_not_opened_for_whoever_asks(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        link = await stage.router.next_link()
        await link.registration()
        await stage.agent.registered.wait()
        other, _ = new_key_pair(), None
        _, foreign = sealed_to(other, link.provider_id, "resume")
        _, stale = sealed_to(stage.agent._desk.key_pair, "prov_other", "resume")
        for data in (b"", bytes(100), foreign.to_bytes(), stale.to_bytes()):
            message = CodeResumeChallenge(sealed_nonce=data)
            link.send(FrameKind.FRAME_KIND_CODE_RESUME_CHALLENGE, 0, message)
        asked, good = sealed_to(stage.agent._desk.key_pair, link.provider_id, "resume")
        message = CodeResumeChallenge(sealed_nonce=good.to_bytes())
        link.send(FrameKind.FRAME_KIND_CODE_RESUME_CHALLENGE, 0, message)
        assert (await code_answer(link)).nonce == asked.nonce
        kind = FrameKind.FRAME_KIND_CODE_ATTESTATION_RESPONSE
        assert link.kinds(0).count(kind) == 1


class LaunchedProcess(Process):
    """`darkbloom start` as the launcher starts it."""

    async def start(self, *flags: str) -> None:
        with self.log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.fakes.launcher"),
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
                env=self._environment,
                stdout=log,
                stderr=log,
            )


async def test_two_real_processes_make_evidence_that_names_the_registered_keys(
    tmp_path: Path,
) -> None:
    router = FakeRouter()
    async with serve_ephemeral(router.register) as target, process(tmp_path, target) as plain:
        agent = LaunchedProcess(plain.home, plain._environment)
        plain._child = None
        await agent.start()
        try:
            link = await router.next_link()
            await agent.ready()
            register = link.register_frame
            assert register is not None
            assert register.apns_device_token == PUSH_TOKEN
            link.challenge(to_base64(bytes(32)), rfc3339(SystemClock().now()))
            response = await link.response()
            evidence = DeviceEvidence.FromString(response.device_evidence)
            blob = decode_document(register.attestation_blob, RegistrationBlob)
            outcome = verify_statement(
                evidence.statement,
                challenge=Challenge(
                    to_base64(bytes(32)),
                    json.loads(response.status)["timestamp"],
                    link.provider_id,
                ),
                identity_key=parse_p256_public(blob.public_key),
                encryption_key=register.encryption_key,
                serial=evidence.serial_number,
                salt=evidence.serial_salt,
            )
            assert outcome.fault is None
            assert await agent.stop() == 0
        finally:
            if agent.child.returncode is None:
                agent.child.kill()
                await agent.child.wait()
        log = agent.log.read_text()
        assert SERIAL not in log
        assert PUSH_TOKEN not in log


async def test_a_descriptor_that_is_no_socket_stops_the_start(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        config = ProviderConfig(launcher_fd=file.fileno())
        with pytest.raises(ProviderError, match="is no socket") as refused:
            inherited_socket(config)
    assert "LAUNCHER_FD" in refused.value.remedy
    assert inherited_socket(ProviderConfig()) is None
