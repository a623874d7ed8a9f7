"""Claims about the transparency log: that what an answer rests on was public, and cannot be denied.

The log is signed by the operator. What it adds to his word is that he said it to everybody, and can
neither change nor take it back: whoever keeps heads would see it.
"""

from collections.abc import Iterator, Mapping

from darkbloom_edge.bundle import Bundle, BundledEntry
from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.log import (
    CatalogEntry,
    Entry,
    KeyEntry,
    LogHead,
    ReceiptsEntry,
    ReleaseEntry,
    decode_entry,
    includes,
    open_head,
)
from darkbloom_edge.merkle import leaf_hash, verify_inclusion
from darkbloom_edge.receipt import Receipt
from darkbloom_edge.report import Claim
from darkbloom_edge.signatures import to_base64
from darkbloom_edge.terminal import Terminal
from darkbloom_edge.verdict import Verdict

LOG = "the transparency log"
"""Backs that something was said to everybody."""
_NAMES = ("receipt_anchored", "receipt_key_logged", "release_logged", "weights_logged")


def log_claims(
    bundle: Bundle,
    receipt: Receipt,
    verdict: Verdict,
    terminal: Terminal,
    keys: Mapping[str, bytes] | None,
) -> Iterator[Claim]:
    """Say what of an answer is in the log.

    Args:
        bundle: with a head, entries and paths.
        receipt: of the answer.
        verdict: out of it.
        terminal: out of it.
        keys: pinned keys that sign heads; None where none are pinned.
    """
    if bundle.log is None:
        for name in ("log_head", *_NAMES):
            yield Claim(name, holds=None, detail="the bundle has no log", backed_by=LOG)
        return

    signed = bundle.log.head
    if keys is None:
        detail = "no verdict keys were given"
        yield Claim("log_head", holds=None, detail=detail, backed_by=LOG)
        for name in _NAMES:
            detail = "the log's head is not checked"
            yield Claim(name, holds=None, detail=detail, backed_by=LOG)
        return
    try:
        head = open_head(signed.document, signed.signature, signed.key_id, keys)
    except SignatureRejected as error:
        yield Claim("log_head", holds=False, detail=str(error), backed_by=LOG)
        return
    detail = f"signed, {head.tree_size} entries at {head.time}"
    yield Claim(
        "log_head", holds=True, detail=detail, backed_by=f"attestation's key {signed.key_id}"
    )

    entries = list(_read(bundle.log.entries))
    bad = [entry.index for entry, read in entries if not (read and _is_in(head, entry))]
    if bad:
        detail = f"entry {bad[0]} is not in the log of this head"
        yield Claim("log_entries", holds=False, detail=detail, backed_by=LOG)
        return
    yield _anchored(bundle, receipt, {e.index: read for e, read in entries if read})
    said = [read for _, read in entries if read is not None]
    yield _key_logged(receipt, bundle, said)
    yield _release_logged(verdict, said)
    yield _weights_logged(terminal, said)


def _read(entries: list[BundledEntry]) -> Iterator[tuple[BundledEntry, Entry | None]]:
    for entry in entries:
        try:
            yield entry, decode_entry(entry.entry)
        except MalformedError:
            yield entry, None


def _is_in(head: LogHead, entry: BundledEntry) -> bool:
    return includes(head, entry.entry, entry.index, [bytes.fromhex(one) for one in entry.path])


def _anchored(bundle: Bundle, receipt: Receipt, entries: Mapping[int, Entry]) -> Claim:
    name, anchor = "receipt_anchored", bundle.anchor
    if anchor is None:
        return Claim(name, holds=None, detail="the receipt is not anchored yet", backed_by=LOG)

    batch = entries.get(anchor.log_index)
    if not isinstance(batch, ReceiptsEntry) or batch.batch != anchor.batch:
        detail = f"entry {anchor.log_index} is not this receipt's batch"
        return Claim(name, holds=False, detail=detail, backed_by=LOG)
    held = verify_inclusion(
        leaf_hash(receipt.countersign),
        anchor.index,
        batch.size,
        [bytes.fromhex(one) for one in anchor.path],
        bytes.fromhex(batch.root_hash),
    )
    detail = (
        f"in batch {batch.batch}, entry {anchor.log_index}, at {batch.time}"
        if held
        else f"is not in batch {batch.batch}"
    )

    return Claim(name, held, detail, LOG)


def _key_logged(receipt: Receipt, bundle: Bundle, said: list[Entry]) -> Claim:
    name = "receipt_key_logged"
    used = {key.key_id: to_base64(key.public_key) for key in bundle.keys.receipt_keys}
    for entry in said:
        if (
            isinstance(entry, KeyEntry)
            and (entry.kind, entry.action) == ("receipt_key", "published")
            and entry.key_id == receipt.gateway_key_id
        ):
            same = used.get(entry.key_id) == entry.public_key
            detail = f"published at {entry.time}" if same else "another key was published"
            return Claim(name, same, detail, LOG)

    detail = f"no entry about key {receipt.gateway_key_id}"
    return Claim(name, holds=None, detail=detail, backed_by=LOG)


def _release_logged(verdict: Verdict, said: list[Entry]) -> Claim:
    name = "release_logged"
    found = [
        entry
        for entry in said
        if isinstance(entry, ReleaseEntry) and entry.code_release == verdict.code_release
    ]
    blessed = [entry for entry in found if entry.action == "blessed"]
    if not blessed:
        detail = f"no entry about {verdict.code_release}"
        return Claim(name, holds=None, detail=detail, backed_by=LOG)

    withdrawn = [entry.time for entry in found if entry.action == "withdrawn"]
    if withdrawn and min(withdrawn) < verdict.issued_at:
        detail = f"was taken back at {min(withdrawn)}, before the verdict"
        return Claim(name, holds=False, detail=detail, backed_by=LOG)
    detail = f"{blessed[0].release_version} was blessed at {blessed[0].time}"
    if blessed[0].development:
        detail += ", for development only"

    return Claim(name, holds=True, detail=detail, backed_by=LOG)


def _weights_logged(terminal: Terminal, said: list[Entry]) -> Claim:
    name = "weights_logged"
    for entry in said:
        if isinstance(entry, CatalogEntry) and terminal.build in entry.builds:
            accepted = terminal.weight_hash in entry.builds[terminal.build].accepted
            if accepted:
                detail = f"catalog revision {entry.generation} lists build and weights"
                return Claim(name, holds=True, detail=detail, backed_by=LOG)

    detail = f"no entry about {terminal.build} with these weights"
    return Claim(name, holds=None, detail=detail, backed_by=LOG)
