"""Erasing an account (GDPR Art. 17): plan, confirm, grace, scrub, proof.

Personal data lives in side tables only; the ledger names account ids and is never edited. What
goes, rule by rule, is the table `billing.erasure_rule`: one predicate counts and changes, so a plan
cannot promise something else than the scrub does. The scrub is one transaction with the forfeit of
what was left: it happens whole or not at all.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import ConflictError, MeshError, NotFoundError

from darkbloom_billing.admin import erasure_proof
from darkbloom_billing.admin.actions import record
from darkbloom_billing.admin.errors import OperatorRefusal, OperatorRefusedError
from darkbloom_billing.admin.model import Action, Erasure, ErasureState, Operator, Source
from darkbloom_billing.books import Books
from darkbloom_billing.errors import OpenBusinessError
from darkbloom_billing.store.database import Connection, Database

_TOKEN_BYTES = 32
_INSERT = """
    INSERT INTO billing.erasure (erasure_id, request_id, account_id, state, token_hash, plan,
      planned_at)
    VALUES ($1, $2, $3, 'planned', $4, $5::jsonb, $6)
"""
_REPLAN = (
    "UPDATE billing.erasure SET state = 'canceled' WHERE account_id = $1 AND state = 'planned'"
)
_PAGE = """
    SELECT * FROM billing.erasure
    WHERE $1::timestamptz IS NULL OR (planned_at, erasure_id) < ($1, $2)
    ORDER BY planned_at DESC, erasure_id DESC LIMIT $3
"""
_DUE = """
    SELECT erasure_id FROM billing.erasure WHERE state = 'pending' AND scrub_after <= $1
      AND erasure_id <> ALL ($3::text[])
    ORDER BY scrub_after LIMIT $2
"""
_FORFEITED = """
    SELECT coalesce(sum(t.amount), 0)::bigint FROM ledger.transfer t
    JOIN ledger.event e ON e.id = t.event_id
    WHERE e.idem_key = 'erasure:' || $1 AND t.code = 'forfeit'
"""
_ERASED = """
    UPDATE billing.erasure SET state = 'erased', erased_at = $2, proof = $3::jsonb
    WHERE erasure_id = $1
"""
_AT_ONCE = 20
GRACE_KEEPER = Operator(name="billing", source=Source.CLI)
_log = structlog.get_logger()


async def _nowhere() -> None:
    """Keep nothing."""


class Erasures:
    """At most one erasure of an account is under way; an erased account stays erased.

    Args:
        books: Forfeit what is left.
        database: Where erasures are.
        clock: Time.
        grace: Between a confirmation and the erasure.
        keep: Called after each step, so that it is written down outside the database.
    """

    def __init__(
        self,
        books: Books,
        database: Database,
        clock: Clock,
        *,
        grace: timedelta,
        keep: Callable[[], Awaitable[None]] = _nowhere,
    ) -> None:
        self._books = books
        self._database = database
        self._clock = clock
        self._grace = grace
        self._keep = keep

    async def plan(
        self, operator: Operator, request_id: str, account_id: str
    ) -> tuple[Erasure, str]:
        """Count what would go; return the plan and the token that confirms it, shown this once.

        A newer plan replaces an older one.

        Raises:
            NotFoundError: No such account.
            OperatorRefusedError: It is erased, or confirmed already.
            ConflictError: The request id came before; its token is not known any more.
        """
        token = secrets.token_hex(_TOKEN_BYTES)
        erasure_id = f"erase_{secrets.token_hex(16)}"
        now = self._clock.now()

        async def work(connection: Connection) -> Any:
            async with connection.transaction():
                if await connection.fetchval(
                    "SELECT true FROM billing.erasure WHERE request_id = $1", request_id
                ):
                    raise ConflictError("the same request id came before; its token is gone")
                await _refuse_open(connection, account_id)
                plan = await count(connection, account_id)
                await connection.execute(_REPLAN, account_id)
                await connection.execute(
                    _INSERT, erasure_id, request_id, account_id, _hash(token), json.dumps(plan), now
                )
                await record(
                    connection,
                    Action(
                        operator=operator,
                        action="erasure.plan",
                        subject=account_id,
                        request_id=request_id,
                        before={},
                        after={"erasure_id": erasure_id, "rows": sum(plan["rules"].values())},
                    ),
                    now=now,
                )
                return await _row(connection, erasure_id)

        return erasure(await self._database.run(work)), token

    async def confirm(
        self, operator: Operator, erasure_id: str, token: str, *, forfeit: bool, force: bool
    ) -> Erasure:
        """Confirm a plan: credentials die now, data after the grace, or now with `force`.

        Raises:
            NotFoundError: No such plan.
            OperatorRefusedError: The token is wrong, the plan is not open, a withdrawal or hold is
                open, or money is left that nobody has said to forfeit.
        """
        now = self._clock.now()

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                row = await _row(connection, erasure_id, lock=True)
                if not hmac.compare_digest(row["token_hash"], _hash(token)):
                    raise OperatorRefusedError(OperatorRefusal.TOKEN_WRONG)
                if row["state"] in {ErasureState.PENDING, ErasureState.ERASED}:
                    # Repeated after a lost answer.
                    return
                if row["state"] != ErasureState.PLANNED:
                    raise OperatorRefusedError(OperatorRefusal.NOT_PLANNED)
                account_id = row["account_id"]
                plan = await count(connection, account_id)
                if plan["held_micros"] or plan["open_withdrawals"]:
                    raise OperatorRefusedError(OperatorRefusal.MONEY_MOVING)
                if plan["balance_micros"] and not forfeit:
                    raise OperatorRefusedError(OperatorRefusal.BALANCE_LEFT)
                scrub_after = now if force else now + self._grace
                await connection.execute(
                    "UPDATE billing.erasure SET state = 'pending', forfeit = $2, scrub_after = $3 "
                    "WHERE erasure_id = $1",
                    erasure_id,
                    forfeit,
                    scrub_after,
                )
                await connection.execute("SELECT billing.close_account($1, $2)", account_id, now)
                await record(
                    connection,
                    Action(
                        operator=operator,
                        action="erasure.confirm",
                        subject=account_id,
                        request_id=erasure_id,
                        before={"balance_micros": plan["balance_micros"]},
                        after={"forfeit": forfeit, "scrub_after": scrub_after.isoformat()},
                    ),
                    now=now,
                )

        await self._database.run(work)
        if force:
            await self.scrub(erasure_id)
        await self._keep()
        return await self.get(erasure_id)

    async def cancel(self, operator: Operator, erasure_id: str) -> Erasure:
        """Take an erasure back before its data is gone; credentials stay dead.

        Raises:
            NotFoundError: No such erasure.
            OperatorRefusedError: It has happened.
        """
        now = self._clock.now()

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                row = await _row(connection, erasure_id, lock=True)
                if row["state"] == ErasureState.CANCELED:
                    return
                if row["state"] == ErasureState.ERASED:
                    raise OperatorRefusedError(OperatorRefusal.NOT_PENDING)
                await connection.execute(
                    "UPDATE billing.erasure SET state = 'canceled' WHERE erasure_id = $1",
                    erasure_id,
                )
                if row["state"] == ErasureState.PENDING:
                    await connection.execute("SELECT billing.reopen_account($1)", row["account_id"])
                await record(
                    connection,
                    Action(
                        operator=operator,
                        action="erasure.cancel",
                        subject=row["account_id"],
                        request_id=erasure_id,
                        before={"state": row["state"]},
                        after={"state": "canceled"},
                    ),
                    now=now,
                )

        await self._database.run(work)
        await self._keep()
        return await self.get(erasure_id)

    async def scrub(self, erasure_id: str) -> None:
        """Erase what a confirmed plan names, and forfeit what is left, in one transaction.

        Raises:
            OperatorRefusedError: Money moves, or money came that nobody has said to forfeit.
        """
        found = await self.get(erasure_id)
        if found.state is not ErasureState.PENDING:
            return
        account_id = found.account_id

        async def also(connection: Connection) -> None:
            row = await _row(connection, erasure_id, lock=True)
            if not row["forfeit"] and await connection.fetchval(_FORFEITED, erasure_id):
                # It came during the grace; nothing of this transaction stays.
                raise OperatorRefusedError(OperatorRefusal.BALANCE_LEFT)
            plan = json.loads(row["plan"])
            rows = await connection.fetch("SELECT * FROM billing.scrub($1)", erasure_id)
            now = self._clock.now()
            outbox = await connection.fetchval(
                "SELECT count(*) FROM billing.outbox WHERE kind LIKE 'erase.%' "
                "AND payload ->> 'erasure_id' = $1",
                erasure_id,
            )
            rules = {row["rule"]: row["affected"] for row in rows}
            said = erasure_proof.statement(erasure_id, account_id, rules, outbox, now)
            await erasure_proof.write(connection, said, now=now)
            proof = {
                "rules": rules,
                "outbox": outbox,
                "balance_micros": plan["balance_micros"],
                "statement": said,
                "sha256": erasure_proof.digest(said),
            }
            await connection.execute(_ERASED, erasure_id, now, json.dumps(proof))
            action = Action(
                operator=GRACE_KEEPER,
                action="erasure.scrub",
                subject=account_id,
                request_id=erasure_id,
                before={"state": "pending"},
                after={"rows": sum(rules.values()), "outbox": outbox},
            )
            await record(connection, action, now=now)

        try:
            await self._books.forfeit(erasure_id, account_id, also=also)
        except OpenBusinessError:
            raise OperatorRefusedError(OperatorRefusal.MONEY_MOVING) from None

    async def get(self, erasure_id: str) -> Erasure:
        """Return an erasure.

        Raises:
            NotFoundError: No such erasure.
        """

        async def work(connection: Connection) -> Any:
            return await _row(connection, erasure_id)

        return erasure(await self._database.run(work))

    async def page(self, *, limit: int, after: tuple[datetime, str] | None) -> list[Erasure]:
        """Return erasures, newest first."""

        async def work(connection: Connection) -> list[Any]:
            at, last = after or (None, "")
            return await connection.fetch(_PAGE, at, last, limit)

        return [erasure(row) for row in await self._database.run(work)]

    async def run(self, period_s: float) -> None:
        """Erase what is due, for ever."""
        while True:
            try:
                await self.scrub_due()
                await self._keep()
            except MeshError as error:
                _log.warning("erasures_not_done", reason=error.reason_name)
            await self._clock.sleep(period_s)

    async def scrub_due(self) -> int:
        """Erase every account whose grace is over; return how many.

        One whose money moves, or who has got some since, waits for the next round.
        """
        tried: list[str] = []

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_DUE, self._clock.now(), _AT_ONCE, tried)

        done = 0
        while found := await self._database.run(work):
            for row in found:
                tried.append(row["erasure_id"])
                try:
                    await self.scrub(row["erasure_id"])
                    done += 1
                except OperatorRefusedError as error:
                    _log.warning(
                        "erasure_waits", erasure=row["erasure_id"], refusal=error.refusal.value
                    )
        return done


async def _refuse_open(connection: Connection, account_id: str) -> None:
    exists = await connection.fetchval(
        "SELECT true FROM billing.account WHERE account_id = $1 FOR NO KEY UPDATE", account_id
    )
    if not exists:
        raise NotFoundError("no such account")
    state = await connection.fetchval(
        "SELECT state FROM billing.erasure WHERE account_id = $1 "
        "AND state IN ('pending', 'erased') LIMIT 1",
        account_id,
    )
    if state == ErasureState.PENDING:
        raise OperatorRefusedError(OperatorRefusal.ERASURE_OPEN)
    if state == ErasureState.ERASED:
        raise OperatorRefusedError(OperatorRefusal.ALREADY_ERASED)


async def count(connection: Connection, account_id: str) -> dict[str, Any]:
    """Return the plan of an erasure: rows by rule, money, what is open.

    Raises:
        NotFoundError: No such account.
    """
    rules = await connection.fetch("SELECT * FROM billing.count_erasure($1)", account_id)
    wallets = await connection.fetchrow("SELECT * FROM billing.wallets($1)", account_id)
    if wallets is None:
        raise NotFoundError("no such account")
    open_withdrawals = await connection.fetchval("SELECT billing.open_withdrawals($1)", account_id)
    return {
        "rules": {row["rule"]: row["affected"] for row in rules},
        "balance_micros": sum(
            wallets[name] for name in ("promo", "credit", "earned", "maturing", "disputed")
        ),
        "held_micros": wallets["held"] + wallets["disputed"],
        "open_withdrawals": open_withdrawals,
    }


async def _row(connection: Connection, erasure_id: str, *, lock: bool = False) -> Any:
    ending = " FOR UPDATE" if lock else ""
    row = await connection.fetchrow(
        f"SELECT * FROM billing.erasure WHERE erasure_id = $1{ending}",  # noqa: S608 - constants
        erasure_id,
    )
    if row is None:
        raise NotFoundError("no such erasure")
    return row


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def erasure(row: Mapping[str, Any]) -> Erasure:
    """Read a row."""
    plan = json.loads(row["plan"])
    proof = json.loads(row["proof"]) if row["proof"] else {}
    return Erasure(
        erasure_id=row["erasure_id"],
        account_id=row["account_id"],
        state=ErasureState(row["state"]),
        rules=proof.get("rules", plan["rules"]),
        balance_micros=plan["balance_micros"],
        open_withdrawals=plan["open_withdrawals"],
        held_micros=plan["held_micros"],
        forfeit=row["forfeit"],
        planned_at=row["planned_at"],
        scrub_after=row["scrub_after"],
        erased_at=row["erased_at"],
        outbox=proof.get("outbox", 0),
    )
