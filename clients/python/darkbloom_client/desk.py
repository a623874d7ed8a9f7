"""What is known beyond one request: keys, the log, machines; and how it is asked for.

Everything comes from the gateway that is not trusted, and counts only as far as pins, the log's
proofs and signatures carry it. Shared by all requests of a transport, from any thread.
"""

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final
from urllib.parse import urlencode

import msgspec
from darkbloom_edge.bundle import BundledProvider, BundledSigned
from darkbloom_edge.documents import convert_document
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.log import Entry, LogHead
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.strict_json import parse_json_object

from darkbloom_client.clock import Clock
from darkbloom_client.evidence import Machine, check_machine, check_verdict
from darkbloom_client.log_view import LogView, Shown, check_release, gateway_key
from darkbloom_client.offered import Offered
from darkbloom_client.policy import Policy
from darkbloom_client.refusal import Reason, RefusedError
from darkbloom_client.steps import MAX_REPLY_BYTES, Call, Flow, Reply, Wait

MAX_MACHINES = 64
"""Verdicts whose evidence is remembered."""
_PAGES = 8
"""Most pages of entries about one subject."""
_LOOKS = 4
"""How often a head is read that does not cover an entry yet."""
_LOOK_AGAIN_S = 0.5
_OK = 200
Shape = TypeVar("Shape")


class _Entries(msgspec.Struct):
    entries: list[dict[str, Any]]
    next: int | None = None


class _Head(msgspec.Struct):
    head: BundledSigned


class _Path(msgspec.Struct):
    path: list[str]


class _Page(msgspec.Struct):
    providers: list[dict[str, Any]]


@final
class Desk:
    """Finds out whether an offer may be sealed to.

    Args:
        policy: what must hold.
        clock: our own.
        entropy: draws random bytes.
    """

    def __init__(
        self, policy: Policy, clock: Clock, entropy: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self.policy = policy
        self.clock = clock
        self.entropy = entropy
        self._log = LogView(policy.pins.log_keys)
        self._shown: dict[bytes, BundledProvider | None] = {}
        self._lock = threading.Lock()

    def gateway_key(self, key_id: str) -> Flow[bytes]:
        """Find a gateway's receipt key: pinned, or published in the pinned log and not retired.

        What the log says is asked for again once it is old; only a pin is for good.

        Raises:
            RefusedError: neither.
        """
        pinned = self.policy.pins.gateway_keys.get(key_id)
        if pinned is not None:
            return pinned
        entries = yield from self._about("receipt_key", key_id)
        try:
            key = gateway_key(entries, key_id)
        except MalformedError:
            key = None
        if key is None:
            raise RefusedError(
                Reason.RECEIPT_FORGED,
                expected="a gateway key that is pinned or in the pinned log",
                found="a key that is neither, or was retired",
            )

        return key

    def machine(self, offered: Offered, provider_id: str) -> Flow[Machine]:
        """Check everything that is said about a machine, and return it.

        Args:
            offered: names a verdict.
            provider_id: the machine that the offer is for.

        Raises:
            RefusedError: the policy is not satisfied.
        """
        signed, now = offered.verdict, self.clock.now()
        verdict = check_verdict(signed, self.policy, now)
        if verdict.provider_id != provider_id:
            raise RefusedError(
                Reason.KEY_SWAPPED, expected="the verdict's machine", found=provider_id
            )
        provider = yield from self._evidence(signed.document, verdict.provider_id)
        try:
            machine = check_machine(provider, verdict, signed, self.policy, self.clock.now())
        except RefusedError:
            # The gateway keeps its page for some seconds; what it showed is not worth keeping.
            self._forget(signed.document)
            raise
        entries = yield from self._about("release", verdict.code_release)
        check_release(entries, verdict, self.policy)

        return machine

    def _evidence(self, verdict: bytes, provider_id: str) -> Flow[BundledProvider | None]:
        """Read the raw evidence of a machine, once per verdict."""
        if verdict in self._shown:
            return self._shown[verdict]
        page = yield from self._read(
            "/v1/providers/attestation", _Page, provider_id=provider_id, limit=1
        )
        rows = [row for row in page.providers if row.get("provider_id") == provider_id]
        found: BundledProvider | None = None
        if rows:
            try:
                found = convert_document(rows[0], BundledProvider)
            except MalformedError as error:
                raise RefusedError(
                    Reason.EVIDENCE_FORGED, expected="evidence", found=str(error)
                ) from None
        with self._lock:
            self._shown[verdict] = found
            while len(self._shown) > MAX_MACHINES:
                self._shown.pop(next(iter(self._shown)))

        return found

    def _forget(self, verdict: bytes) -> None:
        with self._lock:
            self._shown.pop(verdict, None)

    def _about(self, kind: str, subject: str) -> Flow[Sequence[Entry]]:
        """Return what the log says of a subject, proven under a head that has only grown."""
        known = self._log.known(kind, subject, self.policy, self.clock.now())
        if known is not None:
            return known
        raw = yield from self._entries(kind, subject)
        head = yield from self._covering(max((index for index, _ in raw), default=-1))
        shown: list[Shown] = []
        for index, entry in sorted(raw):
            proof = yield from self._read(
                "/v1/log/proof/inclusion", _Path, index=index, size=head.tree_size
            )
            shown.append(Shown(index, entry, _hashes(proof.path)))

        return self._log.take(kind, subject, head, shown, self.clock.now())

    def _entries(self, kind: str, subject: str) -> Flow[list[tuple[int, bytes]]]:
        found: list[tuple[int, bytes]] = []
        start: int | None = 0
        for _ in range(_PAGES):
            page = yield from self._read(
                "/v1/log/entries", _Entries, kind=kind, subject=subject, start=start or 0
            )
            found += [_entry(row) for row in page.entries]
            start = page.next
            if start is None:
                return found

        raise _unreadable("/v1/log/entries", "more entries than one subject has")

    def _covering(self, index: int) -> Flow[LogHead]:
        """Read a head that has an entry; gateways keep one for a second."""
        for look in range(_LOOKS):
            signed = (yield from self._read("/v1/log/head", _Head)).head
            head = self._log.read_head(signed)
            if head.tree_size > index:
                path = yield from self._growth(head)
                self._log.accept(head, path, self.policy, self.clock.now())
                return head
            if look < _LOOKS - 1:
                yield Wait(_LOOK_AGAIN_S)

        raise RefusedError(
            Reason.RELEASE_NOT_LOGGED,
            expected=f"a head with entry {index}",
            found="shorter ones",
        )

    def _growth(self, head: LogHead) -> Flow[Sequence[bytes]]:
        sizes = sorted((self._log.size, head.tree_size))
        if not sizes[0] or sizes[0] == sizes[1]:
            return []
        proof = yield from self._read(
            "/v1/log/proof/consistency", _Path, first=sizes[0], second=sizes[1]
        )

        return _hashes(proof.path)

    def _read(self, path: str, shape: type[Shape], **params: str | int) -> Flow[Shape]:
        """Get a public page; nothing of the caller goes with it.

        Raises:
            RefusedError: it is not what it must be; what cannot be checked is not taken.
        """
        query = f"{path}?{urlencode(params)}" if params else path
        reply: Reply = yield Call("GET", query)
        if reply.status != _OK:
            raise _unreadable(path, f"status {reply.status}")
        try:
            fields: Mapping[str, Any] = parse_json_object(reply.content, max_bytes=MAX_REPLY_BYTES)
            return msgspec.convert(dict(fields), shape)
        except (MalformedError, msgspec.MsgspecError, ValueError, RecursionError):
            raise _unreadable(path, "something else") from None


def _entry(row: Mapping[str, Any]) -> tuple[int, bytes]:
    index, entry = row.get("index"), row.get("entry")
    if not isinstance(index, int) or not isinstance(entry, str) or index < 0:
        raise _unreadable("/v1/log/entries", "something else")
    try:
        return index, from_base64(entry)
    except MalformedError:
        raise _unreadable("/v1/log/entries", "something else") from None


def _hashes(path: Sequence[str]) -> list[bytes]:
    try:
        return [bytes.fromhex(one) for one in path]
    except ValueError:
        raise _unreadable("a proof of the log", "something else") from None


def _unreadable(path: str, found: str) -> RefusedError:
    return RefusedError(Reason.EVIDENCE_MISSING, expected=f"what {path} has to show", found=found)
