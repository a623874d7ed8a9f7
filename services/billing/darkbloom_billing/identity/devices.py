"""Device login: a machine shows a code, its owner approves it, the machine gets a token, once."""

import hashlib
import re
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

import structlog
from darkbloom_edge.ids import id_text
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, NotFoundError, OverloadedError

from darkbloom_billing.identity.errors import CodeExpiredError, CodeUsedError, SlowDownError
from darkbloom_billing.identity.model import CodeState, NewDeviceCode, Poll, TypedCode, Verdict
from darkbloom_billing.identity.ports import DeviceStore

LIFE_S = 900
INTERVAL_S = 5
GUESS_WINDOW_S = 900
"""Typed codes that do not exist are counted for this long."""
PURGE_PERIOD_S = 300.0
TOKEN_PREFIX = "dbp-"  # noqa: S105 - the public part
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_HALF = 4
_TRIES = 4
_SECRET_BYTES = 32
# The network's jitter must not make an honest poller slow down.
_TOLERANCE_S = 0.5
_TYPED = re.compile(rf"[{_ALPHABET}]{{{2 * _HALF}}}")
_log = structlog.get_logger()


def make_user_code(entropy: bytes) -> str:
    """Return a code that people can read to each other, `XXXX-XXXX`; 1 byte gives 1 letter.

    The slight bias of a byte over 31 letters costs less than half a bit of the forty.
    """
    letters = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in entropy[: 2 * _HALF])
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def read_user_code(typed: str) -> str | None:
    """Return the canonical form of what somebody typed; None: it cannot be a code."""
    squeezed = re.sub(r"[\s-]", "", typed).upper()
    if not _TYPED.fullmatch(squeezed):
        return None
    return f"{squeezed[:_HALF]}-{squeezed[_HALF:]}"


class Devices:
    """The life of device codes; secrets are kept as hashes only.

    Args:
        store: codes and tokens.
        clock: time.
        entropy: random bytes for codes and tokens.
    """

    def __init__(self, store: DeviceStore, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    async def begin(self, machine_name: str, source: bytes) -> NewDeviceCode:
        """Begin a login.

        Raises:
            SlowDownError: This source, or all together, have too many open.
        """
        device_code = self._entropy(_SECRET_BYTES).hex()
        now = self._clock.now()
        for _ in range(_TRIES):
            user_code = make_user_code(self._entropy(2 * _HALF))
            result = await self._store.open_code(
                _hash(device_code),
                user_code,
                machine_name,
                source,
                now=now,
                until=now + timedelta(seconds=LIFE_S),
                next_poll=now,
            )
            if result == "full":
                raise SlowDownError("too many device logins are open", retry_after_s=60)
            if result == "opened":
                return NewDeviceCode(device_code=device_code, user_code=user_code)
        raise OverloadedError("no free user code was found")

    async def poll(self, device_code: str) -> Poll:
        """Return what was decided; the first poll after approval carries the token.

        Raises:
            NotFoundError: No such code, or its token was handed out.
            CodeExpiredError: Its time is over.
            SlowDownError: Polled sooner than the interval.
        """
        token = TOKEN_PREFIX + self._entropy(_SECRET_BYTES).hex()
        now = self._clock.now()
        poll = await self._store.poll(
            _hash(device_code),
            id_text("ptok", self._entropy(16)),
            _hash(token),
            now=now,
            next_poll=now + timedelta(seconds=INTERVAL_S - _TOLERANCE_S),
        )
        if poll.verdict is Verdict.EARLY and poll.wait_until is not None:
            wait_s = (poll.wait_until - now).total_seconds()
            raise SlowDownError("polled too soon", retry_after_s=wait_s)
        if poll.verdict is not Verdict.KNOWN:
            _refuse(poll.verdict)
        if poll.state is not CodeState.CONSUMED:
            return poll
        return Poll(verdict=poll.verdict, state=poll.state, account_id=poll.account_id, token=token)

    async def look(self, typed: str, account_id: str) -> tuple[str, TypedCode]:
        """Return a typed code's canonical form and what it would sign in.

        Raises:
            NotFoundError: No such code.
            CodeExpiredError: Its time is over.
            SlowDownError: The account has guessed too often.
        """
        return await self._judge(typed, account_id, None)

    async def decide(self, typed: str, account_id: str, *, approve: bool) -> TypedCode:
        """Approve or deny a code for an account.

        Raises:
            CodeUsedError: It was decided on before; and as `look`.
        """
        decision = CodeState.APPROVED if approve else CodeState.DENIED
        return (await self._judge(typed, account_id, decision))[1]

    async def run_purge(self) -> None:
        """Forget what has ended, for ever."""
        while True:
            try:
                await self._store.purge(now=self._clock.now())
            except MeshError as error:
                _log.warning("device_codes_not_purged", reason=error.reason_name)
            await self._clock.sleep(PURGE_PERIOD_S)

    async def _judge(
        self, typed: str, account_id: str, decision: CodeState | None
    ) -> tuple[str, TypedCode]:
        user_code = read_user_code(typed)
        if user_code is None:
            raise NotFoundError("no such code")
        now = self._clock.now()
        found = await self._store.judge(user_code, account_id, decision, now=now)
        if found.verdict is Verdict.SLOW_DOWN and found.created_at is not None:
            over = found.created_at + timedelta(seconds=GUESS_WINDOW_S)
            wait_s = (over - now).total_seconds()
            raise SlowDownError("too many wrong codes", retry_after_s=wait_s)
        if found.verdict is not Verdict.KNOWN:
            _refuse(found.verdict)
        return user_code, found


def _refuse(verdict: Verdict) -> NoReturn:
    if verdict is Verdict.EXPIRED:
        raise CodeExpiredError("code has expired")
    if verdict is Verdict.USED:
        raise CodeUsedError("code was decided on before")
    raise NotFoundError("no such code")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
