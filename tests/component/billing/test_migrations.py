"""A ledger that was in use before a migration is sound after it."""

from datetime import timedelta
from importlib import resources

from darkbloom_billing.audit import audit
from darkbloom_billing.books import Books
from darkbloom_mesh.clock import SystemClock

from tests.component.billing.world import START, open_database, owner
from tests.stores import Postgres

_DIRECTORY = resources.files("darkbloom_billing") / "migrations" / "versions"

# The hot path of that time: a settled request and one that is held.
_USED = """
    SELECT billing.create_account('acct_a', 'a', now());
    SELECT billing.create_account('acct_b', 'b', now());
    SELECT billing.grant_promo('g', 'acct_a', 1000, 'h', '{}', now());
    SELECT billing.create_key(
      'key_1', 'acct_a', sha256('k'), '', '', '{}', 500, NULL, NULL, now());
    SELECT billing.hold_many(ARRAY['req_1', 'req_2'], ARRAY['acct_a', 'acct_a'],
      ARRAY['key_1', ''], ARRAY[300, 200]::bigint[], ARRAY['h', 'h']::bytea[],
      ARRAY['{"account_id": "acct_a", "key_id": "key_1", "build": "b", "requested_model": "m"}',
        '{"account_id": "acct_a", "key_id": "", "build": "b", "requested_model": "m"}']::jsonb[],
      now(), now() + interval '1 hour');
    SELECT billing.resolve_many(ARRAY['req_1'], ARRAY['settle'], ARRAY[250]::bigint[],
      ARRAY['acct_b'], ARRAY['h']::bytea[], ARRAY['{"attempt_id": "att", "prompt_tokens": 1,
        "cached_tokens": 0, "completion_tokens": 1, "outcome": "completed", "terminal_sha256": "",
        "identity_key": "00"}']::jsonb[], now());
"""


async def test_accounts_and_earnings_from_before_the_books_are_taken_along(
    cluster: Postgres,
) -> None:
    with cluster.database() as url:
        scripts = sorted(path for path in _DIRECTORY.iterdir() if path.name.endswith(".sql"))
        async with owner(url) as db:
            await db.execute("CREATE SCHEMA billing")
            for script in scripts:
                if script.name.startswith("0004"):
                    await db.execute(_USED)
                async with db.transaction():
                    await db.execute(script.read_text())

        database = await open_database(url)
        try:
            books = Books(database, SystemClock())
            payer, payee = await books.wallets("acct_a"), await books.wallets("acct_b")
            assert (payer.promo_micros, payer.held_micros, payer.frozen) == (550, 200, False)
            # What was earned before there was a waiting time stays spendable.
            assert (payee.earned_micros, payee.maturing_micros) == (250, 0)
            assert await books.due(START + timedelta(days=9999), limit=9) == {}
            now = SystemClock().now()
            report = await audit(database, now=now, receipts_due=now)
            assert report.violations == ()
        finally:
            await database.close()
