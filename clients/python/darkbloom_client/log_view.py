"""What we have seen of the transparency log: heads that grow, and entries proven under them.

A Merkle proof shows that something is in the log, never that something is not. A withdrawal that
the gateway withholds is therefore not seen here; `Policy.allowed_releases` is for that.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import final

from darkbloom_edge.bundle import BundledSigned
from darkbloom_edge.documents import parse_rfc3339
from darkbloom_edge.errors import EdgeError, MalformedError, SignatureRejected
from darkbloom_edge.log import (
    CatalogEntry,
    Entry,
    KeyEntry,
    LogHead,
    ReleaseEntry,
    decode_entry,
    grown,
    includes,
    open_head,
)
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.verdict import Verdict

from darkbloom_client.policy import MAX_SKEW, Policy
from darkbloom_client.refusal import Reason, RefusedError

MAX_SUBJECTS = 256
"""Most subjects whose entries are remembered."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry as the gateway shows it."""

    index: int
    entry: bytes
    path: Sequence[bytes]


@final
class LogView:
    """Remembers the newest head and what was proven; safe to share between threads."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys
        self._head: LogHead | None = None
        self._proven: dict[tuple[str, str], tuple[datetime, Sequence[Entry]]] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Entries of the newest head that was accepted; 0 before the first."""
        return 0 if self._head is None else self._head.tree_size

    def read_head(self, signed: BundledSigned) -> LogHead:
        """Check a head's signature.

        Raises:
            RefusedError: not signed by a pinned key.
        """
        try:
            return open_head(signed.document, signed.signature, signed.key_id, self._keys)
        except SignatureRejected as error:
            raise RefusedError(
                Reason.LOG_UNPINNED, expected="a head signed by a pinned key", found=str(error)
            ) from None

    def accept(self, head: LogHead, path: Sequence[bytes], policy: Policy, now: datetime) -> None:
        """Take a head whose signature was checked.

        Args:
            head: the new one.
            path: consistency proof between it and the newest that was accepted; unused at first.
            policy: how old it may be.
            now: the present.

        Raises:
            RefusedError: too old, or the log was rewritten.
        """
        try:
            age = now - parse_rfc3339(head.time)
        except MalformedError:
            age = policy.max_age * 2
        if age > policy.max_age or age < -MAX_SKEW:
            raise RefusedError(
                Reason.LOG_STALE,
                expected=f"a head of at most {int(policy.max_age.total_seconds())} s",
                found=f"one of {int(age.total_seconds())} s",
            )
        with self._lock:
            known = self._head
            if known is None:
                self._head = head
                return
            old, new = sorted((known, head), key=lambda one: one.tree_size)
            try:
                held = (
                    old.root_hash == new.root_hash
                    if old.tree_size == new.tree_size
                    else grown(old, new, path)
                )
            except EdgeError:
                held = False
            if not held:
                raise RefusedError(
                    Reason.LOG_REWRITTEN,
                    expected=f"a log that grows from {old.tree_size} entries",
                    found=f"{new.tree_size} entries that do not",
                )
            self._head = new

    def take(
        self, kind: str, subject: str, head: LogHead, shown: Sequence[Shown], now: datetime
    ) -> Sequence[Entry]:
        """Remember entries that a head proves.

        Raises:
            RefusedError: one of them is not in the log of this head.
        """
        entries: list[Entry] = []
        for one in shown:
            try:
                held = includes(head, one.entry, one.index, one.path)
                entry = decode_entry(one.entry)
            except EdgeError:
                held = False
            if not held:
                raise RefusedError(
                    Reason.LOG_REWRITTEN,
                    expected=f"entry {one.index} in the log of {head.tree_size} entries",
                    found="no proof that holds",
                )
            entries.append(entry)
        if not entries:
            # Nothing proves that there is nothing; a key may be logged a second from now.
            return entries
        with self._lock:
            self._proven[kind, subject] = (now, entries)
            while len(self._proven) > MAX_SUBJECTS:
                self._proven.pop(next(iter(self._proven)))

        return entries

    def known(
        self, kind: str, subject: str, policy: Policy, now: datetime
    ) -> Sequence[Entry] | None:
        """Return what was proven about a subject, if that is recent; None else.

        Half the age that the policy allows, so that nothing is used at its very end.
        """
        found = self._proven.get((kind, subject))
        if found is None or now - found[0] > policy.max_age / 2 or now < found[0]:
            return None

        return found[1]


def check_release(entries: Sequence[Entry], verdict: Verdict, policy: Policy) -> None:
    """Check that a verdict's code was blessed in public, and not taken back.

    Raises:
        RefusedError: not in the log, withdrawn, or blessed for development only.
    """
    found = [
        entry
        for entry in entries
        if isinstance(entry, ReleaseEntry) and entry.code_release == verdict.code_release
    ]
    blessed = [entry for entry in found if entry.action == "blessed"]
    if not blessed:
        raise RefusedError(
            Reason.RELEASE_NOT_LOGGED,
            expected="an entry of the pinned log",
            found=f"none about {verdict.code_release}",
        )
    # The last word counts: what was taken back may have been blessed again.
    if found[-1].action == "withdrawn":
        raise RefusedError(
            Reason.RELEASE_WITHDRAWN,
            expected="a release in force",
            found=f"{verdict.code_release}, taken back at {found[-1].time}",
        )
    # Whoever names a release has said what it is.
    named = policy.allow_unattested or policy.allowed_releases is not None
    if blessed[-1].development and not named:
        raise RefusedError(
            Reason.RELEASE_NOT_ALLOWED,
            expected="a release for everybody",
            found=f"{verdict.code_release}, for development only",
        )


def gateway_key(entries: Sequence[Entry], key_id: str) -> bytes | None:
    """Return a gateway's receipt key, if the log's last word is that it is in use."""
    found = [
        entry
        for entry in entries
        if isinstance(entry, KeyEntry) and (entry.kind, entry.key_id) == ("receipt_key", key_id)
    ]
    if not found or found[-1].action != "published":
        return None

    return from_base64(found[-1].public_key)


def lists_weights(entries: Sequence[Entry], build: str, weight_hash: str) -> bool:
    """Tell whether a logged catalog accepts these weights for a build."""
    return any(
        isinstance(entry, CatalogEntry)
        and build in entry.builds
        and weight_hash in entry.builds[build].accepted
        for entry in entries
    )
