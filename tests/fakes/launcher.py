"""The signed launcher in small: speaks its protocol, and mints what Apple would (README there).

As a program it plays the launcher's whole part: `python -m tests.fakes.launcher COMMAND…` makes a
socketpair, starts the agent with its end, and serves until the agent leaves.
"""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from darkbloom_edge.device_statement import (
    DeviceStatement,
    build_statement,
    client_data_hash,
    serial_commitment,
)
from darkbloom_edge.errors import SignatureRejected
from darkbloom_edge.signatures import from_base64, to_base64, verify_p256
from darkbloom_provider.mac.frames import encode_message, read_message
from darkbloom_provider.mac.launcher import BIND_KIND, PROTOCOL

from tests.fakes.apple_service import AppleService, MintedKey

APP_ID = "TEAM123456.io.darkbloom.provider"
SERIAL = "C02CANARY9"
PUSH_TOKEN = "ab" * 32


class FakeLauncher:
    """One launcher: derives what it signs by itself, and signs for one pair of keys only."""

    def __init__(self, mine: socket.socket, apple: AppleService | None = None) -> None:
        self.apple = apple or AppleService()
        self.nonce = secrets.token_bytes(32)
        self.bound: tuple[str, str] | None = None
        self.asked: list[dict[str, Any]] = []
        self.refuses: dict[str, str] = {}
        self.silent: set[str] = set()
        self.overrides: dict[str, dict[str, Any]] = {}
        self.pushes = False
        self._socket = mine
        self._writer: asyncio.StreamWriter | None = None
        self._key: MintedKey | None = None
        self._counter = 0

    async def run(self) -> None:
        self._socket.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        try:
            if self.pushes:
                await self.send(
                    {"event": "push_token", "token": PUSH_TOKEN, "environment": "production"}
                )
            while (message := await read_message(reader)) is not None:
                self.asked.append(message)
                operation = message["op"]
                if operation in self.silent:
                    continue
                if operation in self.refuses:
                    said: dict[str, Any] = {"ok": False, "error": self.refuses[operation]}
                else:
                    said = {**self._answer(message), **self.overrides.get(operation, {})}
                await self.send({"id": message["id"], **said})
        except ConnectionError:
            pass
        finally:
            self._writer.close()

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.send_bytes(encode_message(dict(message)))

    async def send_bytes(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        assert self._writer is not None
        self._writer.close()

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["op"]:
            case "hello":
                return {
                    "ok": True,
                    "protocol": PROTOCOL,
                    "nonce": to_base64(self.nonce),
                    "app_version": "1.2.3",
                    "app_attest": True,
                    "push": self.pushes,
                }
            case "bind":
                return self._bind(message)
            case "evidence":
                return self._evidence(message)
            case "renew_key":
                self._key = None
                return {"ok": True}
        return {"ok": False, "error": "unknown_operation"}

    def _bind(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.bound is not None:
            return {"ok": False, "error": "already_bound"}
        signed = self.nonce + from_base64(message["encryption_key"])
        try:
            verify_p256(
                message["identity_key"], BIND_KIND, signed, from_base64(message["signature"])
            )
        except SignatureRejected:
            return {"ok": False, "error": "bad_signature"}
        self.bound = (message["encryption_key"], message["identity_key"])
        return {"ok": True}

    def _evidence(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.bound is None:
            return {"ok": False, "error": "not_bound"}
        salt = secrets.token_bytes(32)
        document = build_statement(
            DeviceStatement(
                provider_id=message["provider_id"],
                nonce=message["nonce"],
                timestamp=message["timestamp"],
                encryption_key=self.bound[0],
                identity_key=self.bound[1],
                serial_commitment=serial_commitment(SERIAL, salt),
                app_version="1.2.3",
                os_version="27.0",
            )
        )
        digest = client_data_hash(document)
        said = {
            "ok": True,
            "statement": to_base64(document),
            "serial_number": SERIAL,
            "serial_salt": to_base64(salt),
        }
        if self._key is None:
            self._key = self.apple.attest(APP_ID, client_data_hash=digest)
            return {
                **said,
                "key_id": self._key.key_id,
                "attestation": to_base64(self._key.attestation),
            }
        self._counter += 1
        assertion = self._key.assertion(digest, counter=self._counter)
        return {**said, "key_id": self._key.key_id, "assertion": to_base64(assertion)}


async def main(command: list[str]) -> int:
    mine, theirs = socket.socketpair()
    launcher = FakeLauncher(mine)
    launcher.pushes = True
    child = await asyncio.create_subprocess_exec(
        *command,
        pass_fds=(theirs.fileno(),),
        env={**os.environ, "DARKBLOOM_PROVIDER_LAUNCHER_FD": str(theirs.fileno())},  # noqa: TID251 - what a launcher hands on
    )
    theirs.close()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, child.terminate)
    serving = asyncio.create_task(launcher.run())
    try:
        return await child.wait()
    finally:
        serving.cancel()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
