"""Code identity from the first push to the key proof (spec/security.md §10).

After a passed challenge the app is asked: over the stream where a recent push allows it, otherwise
by a push within the budgets. What counts is the answer, judged against what the session is then; it
becomes a key proof like that of App Attest, and a posture has to join it for `hardware`.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, final

import structlog
from darkbloom_edge.boxes import new_key_pair
from darkbloom_edge.code_identity import (
    CodeAnswer,
    CodeChallenge,
    CodeIdentityRejected,
    SealedChallenge,
    code_statement,
    seal_code_challenge,
    verify_code_answer,
)
from darkbloom_edge.errors import EnvelopeError
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import StoreUnavailableError

from darkbloom_attestation.apns.budget import PushBudget
from darkbloom_attestation.apns.model import (
    Push,
    PushAddress,
    PushEnvironment,
    PushMode,
    PushResult,
    PushToken,
)
from darkbloom_attestation.apns.payload import challenge_push
from darkbloom_attestation.apns.ports import Pusher
from darkbloom_attestation.apns.proofs import PROOF_LIFE, Asked, CodeProof, Resume, may_resume
from darkbloom_attestation.errors import PushTokenError, SessionNotFoundError
from darkbloom_attestation.evidence import KeyProof, KeyProofKind
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.model import Registration
from darkbloom_attestation.ports import Store, Transaction

RENEW = timedelta(minutes=11)
"""A proof with less than this left is renewed: two challenges fit, five minutes apart."""
MAX_WAITING = 1024
"""Pushes that wait to be sent; what comes on top is asked again at the next challenge."""
SENDERS = 4
_NONCE_BYTES = 32
_BOX_NONCE_BYTES = 24
UNKNOWN = "code_challenge_unknown"
UNTRUSTED = "session_untrusted"
NO_SERIAL = "serial_missing"

_log = structlog.get_logger()


def _unheard(_result: PushResult) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class _Asking:
    registration: Registration
    address: PushAddress
    series: str


@final
class CodeIdentity:
    """Asks and judges; all state but the budget and what waits to be sent is in the store.

    Without a pusher nobody is asked, and nothing that was pushed by others counts less.
    """

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        clock: Clock,
        *,
        pusher: Pusher | None,
        budget: PushBudget,
        mode: PushMode = PushMode.BACKGROUND,
        development: bool,
        pushed: Callable[[PushResult], None] = _unheard,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._pusher = pusher
        self._budget = budget
        self._mode = mode
        self._development = development
        self._pushed = pushed
        self._waiting: asyncio.Queue[Push] = asyncio.Queue(MAX_WAITING)

    async def registered(self, registration: Registration, token: str, environment: str) -> None:
        """Keep where a push reaches a session; what is no address is as good as none."""
        if not token or not registration.accepted:
            return
        try:
            address = PushAddress(PushToken(token), PushEnvironment(environment))
        except (PushTokenError, ValueError):
            return
        try:
            async with self._store.transaction() as change:
                await change.codes.put_address(registration.presented.provider_id, address)
        except StoreUnavailableError:
            # The registration is written; without an address it is only never pushed.
            _log.warning("push_address_lost")

    async def passed(self, provider_id: str) -> bytes:
        """Ask a session that has passed a challenge, where it is time to.

        Returns:
            A sealed challenge for its stream; empty where it is pushed, or nothing is asked.
        """
        if self._pusher is None:
            return b""
        try:
            return await self._ask(provider_id)
        except StoreUnavailableError:
            # The pass itself is written and must be told; this is asked again after the next one.
            _log.warning("code_challenge_postponed")
            return b""

    async def _ask(self, provider_id: str) -> bytes:
        async with self._store.transaction() as change:
            asking = await self._due(change, provider_id)
            if asking is None:
                return b""
            resume = await self._may_resume(change, asking)
            if not resume and not self._in_budget(asking):
                return b""
            challenge = self._challenge(asking, "resume" if resume else "apns")
            try:
                sealed = seal_code_challenge(
                    challenge, new_key_pair(), self._issuer.entropy(_BOX_NONCE_BYTES)
                )
            except EnvelopeError:
                # A K that is no key: nobody could answer.
                return b""
            await change.codes.ask(challenge)

        if resume:
            return sealed.to_bytes()
        self._enqueue(asking.address, sealed)
        return b""

    async def answer(self, provider_id: str, answer: CodeAnswer) -> str:
        """Judge an answer; return why it proves nothing, empty where it is a key proof now.

        Raises:
            SessionNotFoundError: no such session.
        """
        now = self._clock.now()
        async with self._store.transaction() as change:
            session = await change.sessions.lock(provider_id)
            if session is None:
                raise SessionNotFoundError("no such session")
            registration = session.registration
            challenge = await change.codes.consume(provider_id, answer.nonce)
            if challenge is None:
                return UNKNOWN
            if session.standing.untrusted or not registration.accepted:
                return UNTRUSTED
            if not registration.serial_hash:
                return NO_SERIAL

            address = await change.codes.address(provider_id)
            try:
                verify_code_answer(
                    answer,
                    challenge,
                    encryption_key=registration.presented.encryption_key,
                    identity_key=registration.identity_key,
                    push_token_hash="" if address is None else address.token.digest,
                    now=now,
                )
            except CodeIdentityRejected as error:
                return error.reason.value
            await self._keep(change, registration, challenge, answer)

        return ""

    async def run(self) -> None:
        """Send what waits, for ever."""
        async with asyncio.TaskGroup() as senders:
            for number in range(SENDERS):
                senders.create_task(self._send(), name=f"apns.send.{number}")

    async def _send(self) -> None:
        while self._pusher is not None:
            push = await self._waiting.get()
            outcome = await self._pusher.push(push)
            self._pushed(outcome.result)
            _log.info("push_ended", result=outcome.result.value, reason=outcome.reason)
            if outcome.result is not PushResult.TOKEN_GONE:
                continue
            try:
                async with self._store.transaction() as change:
                    await change.codes.forget_token(push.token)
            except StoreUnavailableError:
                _log.warning("push_token_kept")

    async def _due(self, change: Transaction, provider_id: str) -> _Asking | None:
        now = self._clock.now()
        registration = await change.lives.registration(provider_id)
        if registration is None or registration.trust_level == "none":
            # What reports no clean posture cannot be `hardware`, whatever the app proves.
            return None
        address = await change.codes.address(provider_id)
        if address is None or not registration.serial_hash:
            return None
        proof = await change.evidence.proof_of(provider_id, now)
        if proof is not None and proof.expire_time - now >= RENEW:
            return None
        asked = await change.codes.outstanding(provider_id)
        if asked is not None and now <= asked.create_time + asked.max_age:
            # A second nonce would make the first one, which may be on its way, worthless.
            return None

        # A renewal is a series of its own.
        return _Asking(
            registration, address, f"{provider_id}:{'' if proof is None else proof.evidence_id}"
        )

    async def _may_resume(self, change: Transaction, asking: _Asking) -> bool:
        registration = asking.registration
        proof = await change.codes.proof_of(registration.identity_key)
        if proof is None:
            return False
        version = registration.presented.version
        blessed = {
            one.version for one in await change.releases.active(development=self._development)
        }
        found = may_resume(
            proof,
            Asked(
                identity_key=registration.identity_key,
                encryption_key=registration.presented.encryption_key,
                push_token_hash=asking.address.token.digest,
                version=version,
            ),
            self._clock.now(),
            transition_approved={proof.version, version} <= blessed,
        )

        return found is not Resume.PUSH

    def _in_budget(self, asking: _Asking) -> bool:
        device = hashlib.sha256(asking.registration.identity_key).hexdigest()
        denied = self._budget.take(device, asking.series, self._mode, self._clock.monotonic())

        return denied is None

    def _challenge(self, asking: _Asking, channel: Literal["apns", "resume"]) -> CodeChallenge:
        registration = asking.registration

        return CodeChallenge(
            nonce=self._issuer.entropy(_NONCE_BYTES),
            provider_id=registration.presented.provider_id,
            encryption_key=registration.presented.encryption_key,
            identity_key=registration.identity_key,
            push_token_hash=asking.address.token.digest,
            channel=channel,
            create_time=self._clock.now(),
        )

    def _enqueue(self, address: PushAddress, sealed: SealedChallenge) -> None:
        push = challenge_push(sealed, address.token, address.environment, self._mode)
        try:
            self._waiting.put_nowait(push)
        except asyncio.QueueFull:
            _log.warning("push_dropped")

    async def _keep(
        self,
        change: Transaction,
        registration: Registration,
        challenge: CodeChallenge,
        answer: CodeAnswer,
    ) -> None:
        now = self._clock.now()
        await change.evidence.add_proof(
            KeyProof(
                evidence_id=self._issuer.new_id("code"),
                kind=KeyProofKind.APNS,
                provider_id=challenge.provider_id,
                identity_key=challenge.identity_key,
                encryption_key=challenge.encryption_key,
                serial_hash=registration.serial_hash,
                document=code_statement(challenge),
                signature=answer.signature,
                key_id=None,
                observe_time=now,
                expire_time=now + PROOF_LIFE,
            )
        )
        if challenge.channel == "apns":
            await change.codes.put_proof(
                CodeProof(
                    identity_key=challenge.identity_key,
                    encryption_key=challenge.encryption_key,
                    push_token_hash=challenge.push_token_hash,
                    version=registration.presented.version,
                    prove_time=now,
                    last_seen_time=now,
                ),
                challenge.provider_id,
            )
