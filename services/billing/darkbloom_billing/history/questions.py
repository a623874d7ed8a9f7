"""The questions, as statements: bounded in time and rows, by columns that lead to nobody. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_ROWS = 50_000
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Question:
    """A statement; its parameters are `since`, `until`, `limit` and then those that are named."""

    sql: str
    columns: tuple[str, ...]
    parameters: tuple[str, ...] = ()


_USAGE = (
    *("settled_at", "request_id", "account_id", "key_id", "model", "build", "prompt_tokens"),
    *("cached_tokens", "completion_tokens", "charge_micros", "outcome"),
)
_EARNINGS = (
    *("settled_at", "request_id", "account_id", "build", "prompt_tokens", "completion_tokens"),
    *("amount_micros", "lost_micros", "matured_at"),
)
_STATEMENT = (
    *("created_at", "event", "kind", "wallet", "code", "mode", "side", "amount"),
    *("unit", "debits", "credits", "pending_debits", "pending_credits"),
)
_WITHDRAWALS = (
    *("created_at", "withdrawal_id", "account_id", "amount_micros", "fee_micros", "net_micros"),
    *("method", "status", "failure_reason", "updated_at"),
)
_STORY = (
    *("at", "event", "kind", "mode", "code", "unit", "debit", "credit", "amount", "body", "result"),
)

QUESTIONS: Mapping[str, Question] = {
    "usage": Question(
        f"""
        SELECT {", ".join(_USAGE)} FROM billing.usage
        WHERE settled_at >= $1 AND settled_at < $2 AND ($4 = '' OR account_id = $4)
          AND ($5 = '' OR key_id = $5) AND ($6 = '' OR $6 IN (model, build))
        ORDER BY settled_at DESC, request_id DESC LIMIT $3
        """,  # noqa: S608 - columns of ours
        _USAGE,
        ("account", "key", "model"),
    ),
    "earnings": Question(
        f"""
        SELECT {", ".join(_EARNINGS)} FROM billing.earning
        WHERE settled_at >= $1 AND settled_at < $2 AND ($4 = '' OR account_id = $4)
          AND ($5 = '' OR build = $5)
        ORDER BY settled_at DESC, request_id DESC LIMIT $3
        """,  # noqa: S608 - columns of ours
        _EARNINGS,
        ("account", "model"),
    ),
    "withdrawals": Question(
        f"""
        SELECT {", ".join(_WITHDRAWALS)} FROM billing.withdrawal
        WHERE created_at >= $1 AND created_at < $2 AND ($4 = '' OR account_id = $4)
        ORDER BY created_at DESC, withdrawal_id DESC LIMIT $3
        """,  # noqa: S608 - columns of ours
        _WITHDRAWALS,
        ("account",),
    ),
    # Every posting of an account's wallets, newest first, with the totals after it.
    "statement": Question(
        """
        SELECT t.created_at, e.idem_key AS event, e.kind, a.path AS wallet, t.code, t.mode,
          p.side::text AS side, t.amount, t.unit, p.dr AS debits, p.cr AS credits,
          p.dr_pend AS pending_debits, p.cr_pend AS pending_credits
        FROM ledger.account a
        JOIN ledger.posting p ON p.account_id = a.id
        JOIN ledger.transfer t ON t.id = p.transfer_id
        JOIN ledger.event e ON e.id = t.event_id
        WHERE a.path LIKE 'user:' || replace(replace($4, '_', '\\_'), '%', '\\%') || ':%'
          AND t.created_at >= $1 AND t.created_at < $2
        ORDER BY t.id DESC, p.version DESC LIMIT $3
        """,
        _STATEMENT,
        ("account",),
    ),
    # From the hold to the transfers that its end made, oldest first.
    "request": Question(
        """
        SELECT e.occurred_at AS at, e.idem_key AS event, e.kind, t.mode, t.code, t.unit,
          d.path AS debit, c.path AS credit, t.amount, e.body::text AS body,
          e.result::text AS result
        FROM ledger.event e
        LEFT JOIN ledger.transfer t ON t.event_id = e.id
        LEFT JOIN ledger.account d ON d.id = t.debit_id
        LEFT JOIN ledger.account c ON c.id = t.credit_id
        WHERE (e.idem_key IN ('hold:' || $4, 'resolve:' || $4)
            OR (e.idem_key >= 'hold:' || $4 || ':' AND e.idem_key < 'hold:' || $4 || ';'))
          AND e.occurred_at >= $1 AND e.occurred_at < $2
        ORDER BY e.id, t.id LIMIT $3
        """,
        _STORY,
        ("request",),
    ),
}


def moment(text: str, now: datetime) -> datetime:
    """Read a time: RFC 3339 with its zone, or an age such as `24h`, `7d`.

    Raises:
        ValueError: It is neither.
    """
    unit = _UNITS.get(text[-1:])
    if unit is not None and text[:-1].isdecimal():
        try:
            return now - timedelta(**{unit: int(text[:-1])})
        except OverflowError:
            raise ValueError("not a time") from None
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time needs its zone")
    return found
