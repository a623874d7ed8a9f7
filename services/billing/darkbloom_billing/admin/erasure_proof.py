"""A proof of an erasure that needs no trust in whoever shows it.

The statement says which rule changed how many rows of whom, and when. Its digest is in an event of
the ledger, the event in a sealed block, and the block's hash in the copies outside. `bundle` puts
all of it into one JSON object; `check` needs that object and one head from outside, nothing else.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from darkbloom_mesh.errors import NotFoundError, UnavailableError

from darkbloom_billing.books.seal import event_bytes, events_between
from darkbloom_billing.store.database import Connection, Database

KIND = "erased"
_NAMES = ("id", "idem_key", "kind", "body_hash", "body", "result", "occurred", "created")
_ERASED = "SELECT * FROM billing.erasure WHERE erasure_id = $1 AND state = 'erased'"
_BLOCK = """
    SELECT b.* FROM ledger.event e
    JOIN ledger.block b ON e.id BETWEEN b.first_event AND b.last_event
    WHERE e.idem_key = $1
"""
_INSERT = """
    INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
    VALUES ($1, $2, $3, $4, '{}', $5)
"""


def statement(
    erasure_id: str, account_id: str, rules: Mapping[str, int], outbox: int, erased_at: datetime
) -> dict[str, Any]:
    """Return what is proven."""
    return {
        "erasure_id": erasure_id,
        "account_id": account_id,
        "rules": dict(rules),
        "owed_to_stripe": outbox,
        "erased_at": erased_at.astimezone(UTC).isoformat(),
    }


def digest(said: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a statement, in hex."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


async def write(connection: Connection, said: Mapping[str, Any], *, now: datetime) -> None:
    """Put the digest of a statement into the history, in the transaction of the erasure."""
    body = json.dumps(
        {"account_id": said["account_id"], "proof_sha256": digest(said)},
        sort_keys=True,
        separators=(",", ":"),
    )
    hashed = hashlib.sha256(f"{KIND}\n{body}".encode()).digest()
    await connection.execute(_INSERT, _key(said["erasure_id"]), KIND, hashed, body, now)


async def bundle(database: Database, erasure_id: str) -> dict[str, Any]:
    """Return the proof of an erasure.

    Raises:
        NotFoundError: There is no such erasure, or it has not happened.
        UnavailableError: Its event is not sealed yet; that takes a few minutes.
    """

    async def work(connection: Connection) -> dict[str, Any]:
        row = await connection.fetchrow(_ERASED, erasure_id)
        said = json.loads(row["proof"]).get("statement") if row is not None else None
        if said is None:
            raise NotFoundError("no such erasure has happened")
        block = await connection.fetchrow(_BLOCK, _key(erasure_id))
        if block is None:
            raise UnavailableError("the erasure is not sealed yet")
        hashes, event = [], None
        async for each in events_between(connection, block["first_event"] - 1, block["last_event"]):
            if each["idem_key"] == _key(erasure_id):
                event = [each[name] for name in (*_NAMES, "transfers")]
            hashes.append(hashlib.sha256(event_bytes(each)).hexdigest())
        return {
            "statement": said,
            "event": event,
            "block": {
                "height": block["height"],
                "previous": block["previous"].hex(),
                "hash": block["hash"].hex(),
                "events": hashes,
            },
        }

    return await database.run(work)


def check(proof: Mapping[str, Any], heads: Mapping[int, str]) -> Sequence[str]:
    """Return what is wrong with a proof; empty: the erasure is proven.

    Args:
        proof: What `bundle` returned.
        heads: Hashes (hex) of blocks by height, from copies that whoever shows the proof could
            not change.
    """
    try:
        said, event, block = proof["statement"], proof["event"], proof["block"]
        body = json.loads(event[4])
        named = dict(zip((*_NAMES, "transfers"), event, strict=True))
        chain = hashlib.sha256(bytes.fromhex(block["previous"]))
        for each in block["events"]:
            chain.update(bytes.fromhex(each))
        found = hashlib.sha256(event_bytes(named)).hexdigest()
        wrong = {
            "the statement is not the one of the event": body["proof_sha256"] != digest(said)
            or named["idem_key"] != _key(said["erasure_id"])
            or named["kind"] != KIND,
            "the event is not in the block": found not in block["events"],
            "the block does not have this hash": chain.hexdigest() != block["hash"],
            "no copy outside has this block": block["height"] not in heads,
            "the copy outside says otherwise": heads.get(block["height"], block["hash"])
            != block["hash"],
        }
    except (KeyError, IndexError, TypeError, ValueError):
        return ("this is no proof of an erasure",)
    return tuple(name for name, is_wrong in wrong.items() if is_wrong)


def _key(erasure_id: str) -> str:
    return f"erased:{erasure_id}"
