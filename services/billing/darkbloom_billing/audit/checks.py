"""What cannot be true in sound books, as queries: each yields one text per violation.

`$1` is now. `@since` is an event id: a round in between looks at younger events only, the whole
audit at all of them.
"""

from collections.abc import Mapping

# Cheap enough for every round, or limited to what is new.
CHECKS: Mapping[str, str] = {
    "unit_unbalanced": """
      SELECT unit || ': debits ' || sum(dr) || ' credits ' || sum(cr) || ' pending debits '
        || sum(dr_pend) || ' pending credits ' || sum(cr_pend)
      FROM ledger.account GROUP BY unit
      HAVING sum(dr) <> sum(cr) OR sum(dr_pend) <> sum(cr_pend)
    """,
    "account_overdrawn": """
      SELECT path FROM ledger.account WHERE floor_zero AND CASE normal
        WHEN 'C' THEN dr + dr_pend > cr ELSE cr + cr_pend > dr END
    """,
    "clearing_not_empty": """
      SELECT path FROM ledger.account WHERE zero_at_commit AND dr <> cr
    """,
    "transfer_without_postings": """
      SELECT 'transfer ' || t.id FROM ledger.transfer t
      LEFT JOIN ledger.posting d
        ON (d.transfer_id, d.side, d.account_id) = (t.id, 'D'::"char", t.debit_id)
      LEFT JOIN ledger.posting c
        ON (c.transfer_id, c.side, c.account_id) = (t.id, 'C'::"char", t.credit_id)
      WHERE t.event_id > @since AND (d.transfer_id IS NULL OR c.transfer_id IS NULL)
    """,
    "transfer_off_rule": """
      SELECT 'transfer ' || t.id FROM ledger.transfer t
      LEFT JOIN ledger.rule r ON (r.code, r.debit_class, r.credit_class)
        = (t.code, t.debit_class, t.credit_class)
      LEFT JOIN ledger.account d ON (d.id, d.unit, d.class) = (t.debit_id, t.unit, t.debit_class)
      LEFT JOIN ledger.account c ON (c.id, c.unit, c.class) = (t.credit_id, t.unit, t.credit_class)
      WHERE t.event_id > @since
        AND (r.code IS NULL OR d.id IS NULL OR c.id IS NULL OR t.amount <= 0)
    """,
    "resolution_wrong": """
      SELECT 'transfer ' || t.id FROM ledger.transfer t
      LEFT JOIN ledger.transfer p ON p.id = t.pending_id
      WHERE t.event_id > @since AND t.mode IN ('post', 'void')
        AND (p.mode IS DISTINCT FROM 'pending'
        OR t.amount > p.amount OR (t.mode = 'void' AND t.amount <> p.amount)
        OR (t.debit_id, t.credit_id, t.unit) IS DISTINCT FROM (p.debit_id, p.credit_id, p.unit))
      UNION ALL
      SELECT 'pending transfer ' || pending_id || ' resolved twice' FROM ledger.transfer
      WHERE event_id > @since AND pending_id IS NOT NULL GROUP BY pending_id HAVING count(*) > 1
    """,
    "shortfall_differs": """
      SELECT e.idem_key FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id
      WHERE e.id > @since AND t.code = 'shortfall' AND (e.kind <> 'withdraw_submit'
        OR t.amount IS DISTINCT FROM (e.result ->> 'shortfall')::bigint)
    """,
    "charge_not_paid_out": """
      SELECT e.idem_key FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id
      WHERE e.id > @since AND t.event_id > @since AND t.unit = 'uUSD'
        AND (t.debit_class = 'user_charge' OR t.credit_class = 'user_charge')
        AND t.mode IN ('post', 'single')
      GROUP BY e.id, e.idem_key
      HAVING sum(CASE WHEN t.debit_class = 'user_charge' THEN -t.amount ELSE t.amount END) <> 0
    """,
    "event_empty": """
      SELECT e.idem_key FROM ledger.event e
      WHERE e.id > @since AND e.kind IN ('hold', 'settle', 'release', 'sweep', 'deposit',
          'stripe_fee', 'refund', 'refund_failed', 'dispute_open', 'dispute_won', 'dispute_lost',
          'dispute_reinstated', 'stripe_fee_returned',
          'cover', 'top_up', 'fund_equity', 'fund_budget', 'grant', 'reward', 'referral',
          'withdraw_submit', 'withdraw_paid', 'withdraw_refused', 'withdraw_returned',
          'fee_returned', 'mature', 'repay')
        AND NOT EXISTS (SELECT FROM ledger.transfer t WHERE t.event_id = e.id)
    """,
    "hold_half_resolved": """
      SELECT substr(e.idem_key, 6) FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id
      WHERE e.id > @since AND e.kind IN ('hold', 'extend') AND t.mode = 'pending'
        -- What an extension added, a later one of the same request may give back.
        AND NOT (e.kind = 'extend' AND EXISTS (
          SELECT FROM ledger.transfer v JOIN ledger.event x ON x.id = v.event_id
          WHERE v.pending_id = t.id AND v.mode = 'void' AND x.kind = 'extend'
            AND split_part(x.idem_key, ':', 2) = split_part(e.idem_key, ':', 2)))
        AND EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id)
          <> EXISTS (SELECT FROM ledger.event r
            WHERE r.idem_key = 'resolve:' || split_part(e.idem_key, ':', 2))
    """,
    "hold_overdue": """
      SELECT request_id FROM billing.lease WHERE lease_until <= $1::timestamptz - interval '1 min'
    """,
    "reservation_half_resolved": """
      SELECT e.idem_key FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id
      WHERE e.id > @since AND e.kind IN ('withdraw_submit', 'dispute_open') AND t.mode = 'pending'
        AND EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id)
          <> EXISTS (SELECT FROM ledger.event r
            WHERE r.idem_key = 'resolve:' || replace(e.idem_key, ':', '-'))
    """,
    "usage_differs": """
      WITH charged AS (
        SELECT substr(e.idem_key, 9) AS request_id, sum(t.amount) AS amount,
          sum(t.amount) FILTER (WHERE t.code = 'payout') AS payout
        FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id
        WHERE e.id > @since AND e.kind = 'settle' AND t.debit_class = 'user_charge' GROUP BY 1)
      SELECT request_id FROM charged c
      LEFT JOIN billing.usage u USING (request_id) LEFT JOIN billing.earning n USING (request_id)
      WHERE c.amount IS DISTINCT FROM u.charge_micros
        OR coalesce(c.payout, 0) <> coalesce(n.amount_micros, 0)
    """,
    "fee_differs": """
      SELECT idem_key FROM (
        SELECT e.idem_key, (e.result -> 'charge')::bigint AS charge,
          coalesce((e.result -> 'fee_percent')::bigint, 0) AS percent,
          coalesce(sum(t.amount) FILTER (WHERE t.code = 'fee'), 0) AS fee
        FROM ledger.event e LEFT JOIN ledger.transfer t
          ON t.event_id = e.id AND t.debit_class = 'user_charge'
        WHERE e.id > @since AND e.kind = 'settle' GROUP BY e.id) s
      WHERE fee <> charge * percent / 100
    """,
    "usage_without_settlement": """
      SELECT u.request_id FROM billing.usage u
      LEFT JOIN ledger.event e ON e.idem_key = 'resolve:' || u.request_id AND e.kind = 'settle'
      WHERE u.settled_at > @moment AND (e.id IS NULL OR u.charge_micros <> coalesce((
        SELECT sum(t.amount) FROM ledger.transfer t
        WHERE t.event_id = e.id AND t.debit_class = 'user_charge'), 0))
    """,
    "earning_without_payout": """
      SELECT n.request_id FROM billing.earning n
      LEFT JOIN ledger.event e ON e.idem_key = 'resolve:' || n.request_id AND e.kind = 'settle'
      WHERE n.settled_at > @moment AND (e.id IS NULL OR n.amount_micros <> coalesce((
        SELECT sum(t.amount) FROM ledger.transfer t
        WHERE t.event_id = e.id AND t.code = 'payout'), 0))
    """,
    "accounts_do_not_add_up": """
      SELECT 'assets ' || assets || ' claims ' || claims FROM (
        SELECT coalesce(sum(dr - cr) FILTER (WHERE normal = 'D'), 0) AS assets,
               coalesce(sum(cr - dr) FILTER (WHERE normal = 'C'), 0) AS claims
        FROM ledger.account WHERE unit = 'uUSD') s WHERE assets <> claims
    """,
    "guard_missing": """
      SELECT w.name FROM (VALUES
        ('transfer', 'apply_transfer'), ('account', 'guard_account'), ('account', 'check_account'),
        ('account', 'no_delete'), ('event', 'append_only'), ('transfer', 'append_only'),
        ('posting', 'append_only'), ('block', 'append_only'), ('rule', 'append_only'),
        ('posting', 'only_by_transfer'),
        ('event', 'no_truncate'), ('transfer', 'no_truncate'), ('posting', 'no_truncate'),
        ('block', 'no_truncate'), ('rule', 'no_truncate'), ('account', 'no_truncate')
        ) AS w (tab, name)
      WHERE NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgname = w.name AND g.tgenabled = 'O'
        AND g.tgrelid = ('ledger.' || w.tab)::regclass)
    """,
}

# They read the whole history.
FULL_CHECKS: Mapping[str, str] = {
    "account_totals": """
      WITH total AS (
        SELECT account_id,
          sum(posted) FILTER (WHERE side = 'D') AS dr, sum(posted) FILTER (WHERE side = 'C') AS cr
        FROM ledger.effect GROUP BY account_id)
      SELECT a.path FROM ledger.account a LEFT JOIN total t ON t.account_id = a.id
      WHERE (a.dr, a.cr) <> (coalesce(t.dr, 0), coalesce(t.cr, 0))
    """,
    "account_pending": """
      WITH open AS (
        SELECT * FROM ledger.transfer t WHERE t.mode = 'pending'
          AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id))
      SELECT a.path FROM ledger.account a
      WHERE a.dr_pend <> (SELECT coalesce(sum(amount), 0) FROM open WHERE debit_id = a.id)
         OR a.cr_pend <> (SELECT coalesce(sum(amount), 0) FROM open WHERE credit_id = a.id)
    """,
    "version_gap": """
      SELECT a.path FROM ledger.account a LEFT JOIN (
        SELECT account_id, count(*) AS n, min(version) AS low, max(version) AS high
        FROM ledger.posting GROUP BY account_id) p ON p.account_id = a.id
      WHERE a.version <> coalesce(p.n, 0) OR a.version <> coalesce(p.high, 0)
        OR coalesce(p.low, 1) <> 1
    """,
    "posting_history": """
      WITH told AS (
        SELECT p.*,
          coalesce(sum(e.posted) FILTER (WHERE e.side = 'D') OVER past, 0) AS dr_told,
          coalesce(sum(e.posted) FILTER (WHERE e.side = 'C') OVER past, 0) AS cr_told,
          coalesce(sum(e.pending) FILTER (WHERE e.side = 'D') OVER past, 0) AS dr_pend_told,
          coalesce(sum(e.pending) FILTER (WHERE e.side = 'C') OVER past, 0) AS cr_pend_told
        FROM ledger.posting p LEFT JOIN ledger.effect e
          ON (e.id, e.account_id, e.side) = (p.transfer_id, p.account_id, p.side)
        WINDOW past AS (PARTITION BY p.account_id ORDER BY p.version))
      SELECT DISTINCT 'account ' || account_id || ' from version ' || min(version)
        OVER (PARTITION BY account_id)
      FROM told
      WHERE (dr, cr, dr_pend, cr_pend) <> (dr_told, cr_told, dr_pend_told, cr_pend_told)
    """,
    "hold_without_lease": """
      SELECT substr(e.idem_key, 6) FROM ledger.event e WHERE e.kind = 'hold'
        AND NOT EXISTS (SELECT FROM ledger.event r
          WHERE r.idem_key = 'resolve:' || substr(e.idem_key, 6))
        AND NOT EXISTS (SELECT FROM billing.lease l WHERE l.request_id = substr(e.idem_key, 6))
    """,
    "maturing_differs": """
      SELECT a.account_id FROM billing.account a
      JOIN ledger.account m ON m.id = a.maturing_id
      JOIN ledger.account d ON d.id = a.disputed_id
      LEFT JOIN (SELECT account_id, sum(amount_micros - lost_micros) AS micros
        FROM billing.earning WHERE matured_at IS NULL GROUP BY 1) n ON n.account_id = a.account_id
      LEFT JOIN (SELECT account_id, sum(amount_micros - lost_micros) AS micros
        FROM billing.bonus WHERE matured_at IS NULL GROUP BY 1) b ON b.account_id = a.account_id
      LEFT JOIN (SELECT account_id, sum(amount_micros) AS micros
        FROM billing.dispute_hold WHERE ended_at IS NULL GROUP BY 1) h
        ON h.account_id = a.account_id
      WHERE d.cr - d.dr <> coalesce(h.micros, 0) OR m.cr - m.dr
        <> coalesce(n.micros, 0) + coalesce(b.micros, 0) - coalesce(h.micros, 0)
    """,
    "hold_differs": """
      SELECT request_id FROM (
        SELECT split_part(e.idem_key, ':', 2) AS request_id,
          (array_agg((e.body ->> 'amount')::bigint ORDER BY e.id DESC))[1] AS told,
          coalesce(sum(t.amount) FILTER (WHERE t.unit = 'uUSD'), 0) AS held,
          sum(t.amount) FILTER (WHERE t.unit = 'cap') AS capped
        FROM ledger.event e LEFT JOIN (
          SELECT p.event_id, p.unit, p.amount FROM ledger.transfer p
          LEFT JOIN ledger.transfer v ON v.pending_id = p.id AND v.mode = 'void'
          LEFT JOIN ledger.event x ON x.id = v.event_id AND x.kind = 'extend'
          WHERE p.mode = 'pending' AND x.id IS NULL) t ON t.event_id = e.id
        WHERE e.kind IN ('hold', 'extend') GROUP BY 1) h
      WHERE told <> held OR capped <> held
    """,
    "deposit_differs": """
      SELECT s.session_id FROM billing.stripe_session s
      LEFT JOIN ledger.event e ON e.idem_key = 'stripe:' || s.session_id AND e.kind = 'deposit'
      WHERE s.kind <> 'setup' AND CASE s.status WHEN 'completed'
        THEN (e.body ->> 'account_id', e.body ->> 'amount', e.body ->> 'fee_line')
          IS DISTINCT FROM (s.account_id, s.amount_micros::text, s.line_micros::text)
        ELSE e.id IS NOT NULL END
    """,
    "dispute_differs": """
      SELECT d.dispute_id FROM billing.stripe_dispute d
      LEFT JOIN ledger.event o ON o.idem_key = 'dispute:' || d.dispute_id
      LEFT JOIN ledger.event r ON r.idem_key = 'resolve:dispute-' || d.dispute_id
      WHERE o.id IS NULL OR CASE d.state WHEN 'open' THEN r.id IS NOT NULL
        WHEN 'lost' THEN r.kind IS DISTINCT FROM 'dispute_lost'
        ELSE r.kind IS DISTINCT FROM 'dispute_won' AND (r.id IS NULL OR d.amount_micros <> (
          SELECT coalesce(sum((b.body ->> 'amount')::bigint), 0) FROM ledger.event b
          WHERE b.kind = 'dispute_reinstated' AND b.body ->> 'dispute_id' = d.dispute_id)) END
    """,
    "withdrawal_differs": """
      SELECT w.withdrawal_id FROM billing.withdrawal w
      LEFT JOIN ledger.event o ON o.idem_key = 'wd:' || w.withdrawal_id
      LEFT JOIN ledger.event r ON r.idem_key = 'resolve:wd-' || w.withdrawal_id
      LEFT JOIN ledger.event b ON b.idem_key = 'wd-return:' || w.withdrawal_id
      WHERE o.id IS NULL OR (o.body ->> 'net')::bigint <> w.net_micros
        OR (o.body ->> 'fee')::bigint <> w.fee_micros
        OR w.posted <> coalesce(r.kind = 'withdraw_paid', false)
        OR w.refunded <> (coalesce(r.kind = 'withdraw_refused', false) OR b.id IS NOT NULL)
    """,
    "budget_overspent": """
      SELECT a.path || ': spent ' || spent || ' of ' || funded FROM (
        SELECT t.account_id, coalesce(sum(posted) FILTER (WHERE side = 'D'), 0) AS spent,
          coalesce(sum(posted) FILTER (WHERE side = 'C'), 0) AS funded
        FROM ledger.effect t GROUP BY 1) s
      JOIN ledger.account a ON a.id = s.account_id AND a.class = 'budget'
      WHERE spent > funded
    """,
}

# In a round in between: what moved since the auditor last looked, from the totals it found then.
ROUND_CHECKS: Mapping[str, str] = {
    "account_history": """
      WITH told AS (
        SELECT c.id, count(p.version) AS n, coalesce(max(p.version), c.seen) AS high,
          coalesce(sum(e.posted) FILTER (WHERE e.side = 'D'), 0) AS dr,
          coalesce(sum(e.posted) FILTER (WHERE e.side = 'C'), 0) AS cr,
          coalesce(sum(e.pending) FILTER (WHERE e.side = 'D'), 0) AS dr_pend,
          coalesce(sum(e.pending) FILTER (WHERE e.side = 'C'), 0) AS cr_pend
        FROM billing.changed_accounts c
        LEFT JOIN ledger.posting p ON p.account_id = c.id AND p.version > c.seen
        LEFT JOIN ledger.effect e
          ON (e.id, e.account_id, e.side) = (p.transfer_id, p.account_id, p.side)
        GROUP BY c.id, c.seen)
      SELECT c.path FROM billing.changed_accounts c JOIN told t USING (id)
      WHERE c.version - c.seen <> t.n OR c.version <> t.high
        OR (c.dr - c.dr_seen, c.cr - c.cr_seen, c.dr_pend - c.dr_pend_seen,
            c.cr_pend - c.cr_pend_seen) <> (t.dr, t.cr, t.dr_pend, t.cr_pend)
    """,
}
