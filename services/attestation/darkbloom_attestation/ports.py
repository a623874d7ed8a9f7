"""What attestation needs from its store."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from darkbloom_edge.apple.mdm_webhook import OutstandingCommand
from darkbloom_edge.log import Entry, EntryKind
from darkbloom_edge.merkle import Node

from darkbloom_attestation.apns.ports import CodeBook
from darkbloom_attestation.evidence import (
    AttestedKey,
    Continuity,
    Grounds,
    KeyProof,
    Posture,
    PostureKind,
)
from darkbloom_attestation.figures import Compared, Figures
from darkbloom_attestation.model import (
    CodeRelease,
    Exhibit,
    IssuedChallenge,
    IssuedRevocation,
    IssuedVerdict,
    Judged,
    LoggedEntry,
    OfferChange,
    PublicKey,
    ReceiptKey,
    Registration,
    Session,
    Standing,
    Violation,
)
from darkbloom_attestation.publishing import Shown


class Sessions(Protocol):
    """Registrations, how their sessions stand, and their challenges."""

    async def add(self, registration: Registration) -> bool:
        """Write a new registration; False when its provider id is known already."""
        ...

    async def lock(self, provider_id: str) -> Session | None:
        """Return a session and keep it from changing until the end of the transaction."""
        ...

    async def stand(self, provider_id: str, standing: Standing) -> None:
        """Write how a session stands."""
        ...

    async def add_challenge(self, challenge: IssuedChallenge) -> None:
        """Write a pending challenge; the one that was pending before is superseded."""
        ...

    async def challenge(self, provider_id: str, nonce: str) -> IssuedChallenge | None:
        """Return a challenge of this session."""
        ...

    async def judge(self, challenge_id: str, judged: Judged) -> None:
        """Write what became of a challenge."""
        ...


class Lives(Protocol):
    """How sessions of one machine follow each other."""

    async def lock_holders(
        self, provider_id: str, serial_hash: bytes, now: datetime
    ) -> Sequence[Session]:
        """Lock and return a session and all whose `hardware` verdicts in force name a serial."""
        ...

    async def registration(self, provider_id: str) -> Registration | None:
        """Return a registration, which never changes, without locking its session."""
        ...

    async def begin(
        self, provider_id: str, *, posture_since: datetime, continues: str, seen_time: datetime
    ) -> None:
        """Write from when on device evidence counts for a new session."""
        ...

    async def posture_since(self, provider_id: str) -> tuple[datetime, str]:
        """Return from when on device evidence counts, and the reuse decision; empty for none."""
        ...

    async def proven(self, provider_id: str, now: datetime) -> None:
        """Note that the session has just proven `hardware`."""
        ...

    async def before(self, identity_key: bytes) -> Continuity | None:
        """Return the last session of a key that proved `hardware` after the key's tombstone."""
        ...


class EvidenceBook(Protocol):
    """Device evidence: attested keys, key proofs, postures, and tombstones over them."""

    async def key(self, key_id: bytes) -> AttestedKey | None:
        """Return an attested key."""
        ...

    async def add_key(self, key: AttestedKey) -> bool:
        """Write a new attested key; False when it is known already."""
        ...

    async def count_up(self, key_id: bytes, counter: int, owner_account_id: str) -> bool:
        """Raise a key's counter in one statement, and give a key of nobody to an account.

        False unless the counter was lower, the key is not revoked and of no other account.
        """
        ...

    async def add_proof(self, proof: KeyProof) -> None:
        """Write a key proof."""
        ...

    async def proof_of(self, provider_id: str, now: datetime) -> KeyProof | None:
        """Return the newest key proof of a session that has not expired."""
        ...

    async def add_posture(self, posture: Posture) -> None:
        """Write a posture; the same proof again changes nothing."""
        ...

    async def postures_of(self, identity_key: bytes, serial_hash: bytes) -> Sequence[Posture]:
        """Return the postures of a device that no tombstone has overtaken, newest first."""
        ...

    async def subjects(self, identity_key: bytes, serial_hash: bytes) -> None:
        """Lock an enclave key and a serial until the end of the transaction."""
        ...

    async def rivals(
        self, identity_key: bytes, serial_hash: bytes, now: datetime, seen_after: datetime
    ) -> Sequence[tuple[str, PostureKind]]:
        """Return verdict id and posture kind of other keys' live claims on a serial."""
        ...

    async def grant(self, verdict: IssuedVerdict, grounds: Grounds) -> bool:
        """Write a `hardware` verdict in one statement.

        False when a tombstone of the enclave key or the serial is newer than the session or either
        piece of evidence. A racing tombstone either sees the verdict and revokes it, or is seen.
        """
        ...

    async def bury(
        self, identity_key: bytes, serial_hash: bytes, reason: str, now: datetime
    ) -> Sequence[str]:
        """Set tombstones on a key and, unless empty, a serial; return live `hardware` verdicts."""
        ...


class Commands(Protocol):
    """What the device manager was asked to ask of devices; each answer counts once."""

    async def ask(self, command: OutstandingCommand) -> None:
        """Write an outstanding command."""
        ...

    async def consume(self, command_uuid: str) -> OutstandingCommand | None:
        """Take a command out, in one statement; None where none of this id is outstanding."""
        ...


class Verdicts(Protocol):
    """Verdicts, revocations and the violations behind some of them."""

    async def add(self, verdict: IssuedVerdict) -> None:
        """Write a verdict."""
        ...

    async def live_of_session(self, provider_id: str, now: datetime) -> Sequence[str]:
        """Return ids of verdicts in force, oldest first."""
        ...

    async def live_of_release(self, code_release: str, now: datetime) -> Sequence[str]:
        """Return ids of verdicts in force that rest on a code release, oldest first."""
        ...

    async def revoke(self, revocations: Sequence[IssuedRevocation]) -> None:
        """Write revocations, each at its own generation, and tell every watcher at commit."""
        ...

    async def violation(self, report_id: str) -> tuple[Violation, IssuedRevocation | None] | None:
        """Return a report and the last revocation that followed it."""
        ...

    async def add_violation(
        self, violation: Violation, revocation_id: str | None, time: datetime
    ) -> None:
        """Write a report."""
        ...


class Releases(Protocol):
    """Blessed code."""

    async def active(self, *, development: bool) -> Sequence[CodeRelease]:
        """Return what is blessed, kept from changing until the end of the transaction.

        Args:
            development: whether development releases count.
        """
        ...

    async def lock(self, code_release: str) -> CodeRelease | None:
        """Return a release and keep everybody else from it until the end of the transaction."""
        ...

    async def put(self, release: CodeRelease) -> None:
        """Write a release, new or not."""
        ...


class Offers(Protocol):
    """What became of offers."""

    async def add(self, change: OfferChange) -> None:
        """Write a change; it never changes."""
        ...


class LogWriter(Protocol):
    """The end of the transparency log."""

    async def append(self, entry: Entry, *, key: str | None = None) -> int:
        """Append an entry and return its index; nobody else appends until the transaction ends.

        Args:
            entry: what to say.
            key: a second entry under the same key is not written, the first one's index returned.

        Raises:
            ConflictError: the first entry under this key says something else.
        """
        ...


class Transaction(Protocol):
    """One all-or-nothing change."""

    @property
    def sessions(self) -> Sessions:
        """Registrations and challenges."""
        ...

    @property
    def verdicts(self) -> Verdicts:
        """Verdicts and revocations."""
        ...

    @property
    def releases(self) -> Releases:
        """Blessed code."""
        ...

    @property
    def offers(self) -> Offers:
        """What became of offers."""
        ...

    @property
    def log(self) -> LogWriter:
        """The transparency log."""
        ...

    @property
    def lives(self) -> Lives:
        """How sessions of one machine follow each other."""
        ...

    @property
    def commands(self) -> Commands:
        """What the device manager was asked."""
        ...

    @property
    def codes(self) -> CodeBook:
        """Code identity."""
        ...

    @property
    def evidence(self) -> EvidenceBook:
        """Device evidence."""
        ...


class Store(Protocol):
    """Where evidence is kept."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a change; rolled back by an exception."""
        ...

    async def list_releases(self, *, include_inactive: bool) -> Sequence[CodeRelease]:
        """Return releases, oldest first."""
        ...

    async def release(self, code_release: str) -> CodeRelease | None:
        """Return a release, active or not."""
        ...

    async def offer_changes(self, code_release: str) -> Sequence[OfferChange]:
        """Return the newest changes of an offer, oldest first."""
        ...

    async def offer_figures(self, wanted: Compared) -> tuple[Figures, Figures]:
        """Return how machines of a release do, and those of the others."""
        ...

    async def exhibits(self, provider_ids: Sequence[str], now: datetime) -> Sequence[Exhibit]:
        """Return what may be shown of accepted sessions; unknown and refused ones are left out."""
        ...

    async def device_evidence(self, verdict_ids: Sequence[str]) -> Mapping[str, Sequence[Shown]]:
        """Return the device evidence behind `hardware` verdicts, as everybody may see it."""
        ...

    async def seen(self, provider_ids: Sequence[str], now: datetime) -> None:
        """Note that sessions are alive; unknown ones are skipped."""
        ...

    async def put_receipt_key(self, key: ReceiptKey) -> ReceiptKey:
        """Write a gateway's key, or its retirement; return it as it is now."""
        ...

    async def list_receipt_keys(self) -> Sequence[ReceiptKey]:
        """Return all gateways' keys, oldest first."""
        ...

    async def put_verdict_keys(self, keys: Sequence[PublicKey]) -> None:
        """Have the keys that sign verdicts in the log."""
        ...


class LogReader(Protocol):
    """What the transparency log holds; nothing that was read once ever changes."""

    async def size(self) -> int:
        """Return the number of entries."""
        ...

    async def nodes(self, wanted: Sequence[Node]) -> Mapping[Node, bytes]:
        """Return hashes of perfect subtrees; those that are not complete yet are missing."""
        ...

    async def entries(
        self, start: int, limit: int, kind: EntryKind | None, subject: str, max_bytes: int
    ) -> Sequence[LoggedEntry]:
        """Return entries from an index on, in order, until they come to some size."""
        ...
