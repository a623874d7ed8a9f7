"""Who is asked how it stands, when, and by which command.

Only sessions that have shown a key proof are worth a command: whoever merely names a serial cannot
make its Mac busy. What was asked is written down before it is sent, so no answer is faster than
the question.
"""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import final

import structlog
from darkbloom_edge.apple.mdm_commands import (
    device_attestation_command,
    device_attestation_nonce,
    security_info_command,
)
from darkbloom_edge.apple.mdm_webhook import OutstandingCommand, RequestType
from darkbloom_edge.documents import decode_document
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.registration import RegistrationBlob
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_attestation.evidence import PostureKind
from darkbloom_attestation.mdm.client import DeviceManager
from darkbloom_attestation.model import Registration
from darkbloom_attestation.ports import Store

WORKERS = 12
"""Questions under way at a time."""
MAX_WAITING = 4096
"""Sessions that wait to be asked; one more is dropped and asked after its next challenge."""
AGAIN_S = 120.0
"""Least time between two questions to one session."""
CHAIN_EVERY = timedelta(days=7)
"""Apple signs a fresh statement about a device about as often."""
_UUID_BYTES = 16

_log = structlog.get_logger()


def _unheard(_outcome: str) -> None:
    """Nobody counts."""


@final
class Asker:
    """Asks devices, a bounded number at a time.

    Args:
        store: keeps what was asked.
        manager: brings commands to devices.
        clock: time.
        entropy: returns this many random bytes.
        heard: hears a closed word for every session.
    """

    def __init__(
        self,
        store: Store,
        manager: DeviceManager,
        clock: Clock,
        entropy: Callable[[int], bytes],
        heard: Callable[[str], None] = _unheard,
    ) -> None:
        self._heard = heard
        self._store = store
        self._manager = manager
        self._clock = clock
        self._entropy = entropy
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._asked: OrderedDict[str, float] = OrderedDict()

    def wish(self, provider_id: str) -> None:
        """Have a session's device asked, unless it was a moment ago."""
        now = self._clock.monotonic()
        last = self._asked.get(provider_id)
        if (last is not None and now - last < AGAIN_S) or self._waiting.full():
            return
        self._asked[provider_id] = now
        self._asked.move_to_end(provider_id)
        while len(self._asked) > MAX_WAITING:
            self._asked.popitem(last=False)
        self._waiting.put_nowait(provider_id)

    async def run(self) -> None:
        """Ask for as long as the room lives."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                tasks.create_task(self._work(), name=f"mdm-{number}")

    async def _work(self) -> None:
        while True:
            provider_id = await self._waiting.get()
            try:
                asked = await self.ask(provider_id)
            except MeshError as error:
                # Asked again after the next challenge.
                self._heard("unavailable")
                _log.warning("device_not_asked", reason=error.reason_name)
            else:
                _log.info("device_asked", provider_id=provider_id, commands=asked)

    async def ask(self, provider_id: str) -> int:
        """Ask one session's device; return how many commands were sent.

        Raises:
            ManagerUnavailableError: the server did not answer.
            StoreUnavailableError: nothing could be written, so nothing was sent.
        """
        async with self._store.transaction() as change:
            registration = await change.lives.registration(provider_id)
            if registration is None or not registration.serial_hash:
                self._heard("not_asked")
                return 0
            postures = await change.evidence.postures_of(
                registration.identity_key, registration.serial_hash
            )
        serial, key_text = _claims(registration)
        udid = await self._manager.find(serial)
        if udid is None:
            self._heard("not_enrolled")
            return 0

        now = self._clock.now()
        kinds = [RequestType.SECURITY_INFO]
        if not any(
            posture.kind is PostureKind.MDA and now - posture.observe_time < CHAIN_EVERY
            for posture in postures
        ):
            kinds.append(RequestType.DEVICE_INFORMATION)
        for kind in kinds:
            command_uuid = str(uuid.UUID(bytes=self._entropy(_UUID_BYTES), version=4)).upper()
            async with self._store.transaction() as change:
                await change.commands.ask(
                    OutstandingCommand(
                        command_uuid=command_uuid,
                        udid=udid,
                        request_type=kind,
                        provider_id=provider_id,
                        create_time=now,
                    )
                )
            await self._manager.send(udid, _command(kind, command_uuid, key_text))

        self._heard("asked")
        return len(kinds)


def _claims(registration: Registration) -> tuple[str, str]:
    """Return serial and enclave key as the accepted blob spells them."""
    try:
        blob = decode_document(registration.presented.blob, RegistrationBlob)
    except MalformedError:
        raise RuntimeError("an accepted blob cannot be read") from None
    if blob.serial_number is None:
        raise RuntimeError("an accepted blob lost its serial")

    return blob.serial_number, blob.public_key


def _command(kind: RequestType, command_uuid: str, key_text: str) -> bytes:
    if kind is RequestType.SECURITY_INFO:
        return security_info_command(command_uuid)

    return device_attestation_command(command_uuid, device_attestation_nonce(key_text))
