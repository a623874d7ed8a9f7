"""The whole state leaves one database, encrypted, and enters another: the same, or not at all."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from darkbloom_billing.audit import audit
from darkbloom_billing.books import Books
from darkbloom_billing.books.seal import seal
from darkbloom_billing.state import age
from darkbloom_billing.state.age import Encrypting
from darkbloom_billing.state.errors import (
    BrokenStateError,
    DifferentError,
    NotEmptyError,
    OtherRevisionError,
    RecipientRefusedError,
    WrongIdentityError,
)
from darkbloom_billing.state.moving import export_state, import_state, verify_state
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.testing import FakeClock
from pyrage.x25519 import Identity, Recipient

from tests.component.billing.test_seal import older
from tests.component.billing.world import (
    CONSUMER,
    PROVIDER,
    START,
    World,
    open_database,
    owner,
    world,
)
from tests.stores import Postgres

ME, STRANGER = Identity.generate(), Identity.generate()


def to(who: Identity) -> list[Recipient]:
    return [who.to_public()]


async def lived(w: World) -> Mapping[str, Any]:
    """Money in every shape; returns what must be the same afterwards."""
    await w.people(1_000_000)
    for _ in range(2):
        order = w.order()
        await w.hold(order)
        (ended,) = await w.settle(w.settlement(order.request_id))
        assert ended.charge_micros > 0
    await w.hold(w.order())
    async with owner(w.url) as db:
        await db.execute(
            """INSERT INTO billing.note VALUES ('n1', $1, $2, now())""",
            CONSUMER,
            "tab\there, line\nthere, \\N and 42\t7",
        )
        await older(db)
    database = await open_database(w.url)
    try:
        assert await seal(database, now=START) is not None
    finally:
        await database.close()
    return {who: await w.balance(who) for who in (CONSUMER, PROVIDER)}


async def refused(path: Path, error: type[MeshError], url: str, *, who: Identity = ME) -> None:
    """The file is refused, and the database is as it was."""
    with pytest.raises(error):
        await import_state(Secret(url), path, [who], now=START)
    async with owner(url) as db:
        assert await db.fetchval("SELECT count(*) FROM billing.account") == 0
        assert await db.fetchval("SELECT count(*) FROM ledger.event") == 0


async def test_a_state_moves_whole_and_everything_else_is_refused(
    cluster: Postgres, template: str, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.age"
    async with world(url) as w:
        before = await lived(w)
    manifest = await export_state(Secret(url), path, to(ME), now=START)
    assert verify_state(path, [ME]) == manifest
    text = path.read_bytes()
    assert CONSUMER.encode() not in text

    with cluster.database(template) as empty:
        await refused(path, WrongIdentityError, empty, who=STRANGER)
        broken = tmp_path / "broken.age"
        for damaged in (
            text[: len(text) // 2],
            text[:-1],
            text[: len(text) // 2] + bytes([text[len(text) // 2] ^ 1]) + text[len(text) // 2 + 1 :],
            b"",
            b"age-encryption.org/v1\n",
        ):
            broken.write_bytes(damaged)
            await refused(broken, BrokenStateError, empty)

        await import_state(Secret(empty), path, [ME], now=START)
        with pytest.raises(NotEmptyError):
            await import_state(Secret(empty), path, [ME], now=START)
        again = await export_state(Secret(empty), tmp_path / "again.age", to(ME), now=START)
        assert again == manifest
        await the_same(empty, before)

    with cluster.database() as blank, pytest.raises(OtherRevisionError):
        await import_state(Secret(blank), path, [ME], now=START)


async def the_same(url: str, before: Mapping[str, Any]) -> None:
    """Balances, history and what can be done with them are those of before."""
    database = await open_database(url)
    try:
        report = await audit(database, now=START, receipts_due=START)
        assert (report.violations, report.counts["blocks"]) == ((), 1)
        books = Books(database, FakeClock(START))
        await books.fund_equity("after", 5, operator="ann")
        report = await audit(database, now=START, receipts_due=START)
        assert report.violations == ()
    finally:
        await database.close()
    async with world(url) as w:
        assert {who: await w.balance(who) for who in before} == before


async def test_books_that_are_not_sound_do_not_move(
    cluster: Postgres, template: str, url: str, tmp_path: Path
) -> None:
    async with world(url) as w:
        await w.people(1000)
    rule = "UPDATE billing.erasure_rule SET predicate = '{}' WHERE rule = 'notes'"
    # What is acted on comes from the code, never from a file.
    first = rule.format("true")
    undone = rule.format("account_id = $1")
    second = f"{undone}; UPDATE ledger.posting SET dr = dr + 1 WHERE version = 1"  # noqa: S608 - ours
    for number, statement in enumerate((first, second)):
        path = tmp_path / f"{number}.age"
        async with owner(url) as db:
            await db.execute(f"SET session_replication_role = replica; {statement}")
        await export_state(Secret(url), path, to(ME), now=START)
        with cluster.database(template) as empty:
            await refused(path, DifferentError, empty)


async def test_nothing_leaves_without_a_recipient(tmp_path: Path) -> None:
    for names in ([], ["age1nobody"], ["ssh-ed25519 AAAA"]):
        with pytest.raises(RecipientRefusedError):
            age.recipients(names)
    with pytest.raises(WrongIdentityError):
        age.identities(tmp_path / "missing")
    keys = tmp_path / "keys.txt"
    keys.write_text(f"# created\n{ME}\n")
    assert str(age.identities(keys)[0]) == str(ME)


async def test_an_export_that_fails_leaves_nothing_behind(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, finish = tmp_path / "state.age", Encrypting.close

    def full(self: Encrypting) -> None:
        finish(self)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Encrypting, "close", full)
    with pytest.raises(OSError, match="full"):
        await export_state(Secret(url), path, to(ME), now=START)
    assert not path.exists()
