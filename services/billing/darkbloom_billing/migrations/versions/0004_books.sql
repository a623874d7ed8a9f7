-- Every flow of money that may exist, and what the rare commands need besides the ledger itself.

-- In words: debit class -> credit class.
INSERT INTO ledger.rule VALUES
  -- In: a deposit, the consumer's own line for Stripe's fee, and debts that are paid first.
  ('deposit', 'stripe_asset', 'user_credit'),
  ('fee_line', 'stripe_asset', 'revenue'),
  ('repay', 'user_credit', 'user_debt'),
  ('repay', 'user_earned', 'user_debt'),
  -- Facts at Stripe: always bookable, since what the asset account lacks is owed to Stripe.
  ('stripe_fee', 'expense', 'stripe_asset'),
  ('stripe_fee', 'expense', 'stripe_payable'),
  ('stripe_fee', 'budget', 'stripe_asset'),
  ('stripe_fee', 'budget', 'stripe_payable'),
  ('refund', 'user_credit', 'stripe_asset'),
  ('refund', 'user_credit', 'stripe_payable'),
  ('refund', 'user_debt', 'stripe_asset'),
  ('refund', 'user_debt', 'stripe_payable'),
  ('refund', 'revenue', 'stripe_asset'),
  ('refund', 'revenue', 'stripe_payable'),
  ('refund', 'expense', 'stripe_asset'),
  ('refund', 'expense', 'stripe_payable'),
  ('refund_failed', 'stripe_asset', 'user_credit'),
  ('cover', 'stripe_payable', 'stripe_asset'),
  ('move', 'stripe_asset', 'stripe_asset'),
  -- A dispute: Stripe keeps the money until it is decided, and so do we.
  ('dispute_open', 'dispute_asset', 'stripe_asset'),
  ('dispute_open', 'dispute_asset', 'stripe_payable'),
  ('dispute_open', 'user_maturing', 'user_disputed'),
  ('dispute', 'user_credit', 'dispute_asset'),
  ('dispute', 'user_disputed', 'dispute_asset'),
  ('dispute', 'user_debt', 'dispute_asset'),
  ('dispute_won', 'stripe_asset', 'dispute_asset'),
  ('dispute_release', 'user_disputed', 'user_maturing'),
  -- Programmes: only what was funded.
  ('reward', 'budget', 'user_earned'),
  ('referral', 'budget', 'user_maturing'),
  -- Earnings: paid into maturing, later spendable, later out.
  ('payout', 'user_charge', 'user_maturing'),
  ('fee', 'user_charge', 'revenue'),
  ('mature', 'user_maturing', 'user_earned'),
  ('withdrawal', 'user_earned', 'stripe_asset'),
  ('fee', 'user_earned', 'revenue'),
  ('return', 'stripe_asset', 'user_earned'),
  ('return', 'revenue', 'user_earned'),
  -- Erasure: what is left goes where it came from, or to the platform.
  ('forfeit', 'user_promo', 'budget'),
  ('forfeit', 'user_credit', 'revenue'),
  ('forfeit', 'user_earned', 'revenue'),
  ('forfeit', 'user_maturing', 'revenue'),
  ('write_off', 'expense', 'user_debt');

INSERT INTO ledger.account (path, class, normal) VALUES
  ('asset:stripe:platform', 'stripe_asset', 'D'),
  ('asset:stripe:disputed', 'dispute_asset', 'D'),
  ('platform:stripe_payable', 'stripe_payable', 'C'),
  ('platform:stripe_fees', 'expense', 'D'),
  ('platform:budget:invite', 'budget', 'C'),
  ('platform:budget:referral', 'budget', 'C'),
  ('platform:budget:fees', 'budget', 'C'),
  ('platform:budget:base', 'budget', 'C');
INSERT INTO ledger.account (path, class, normal)
  SELECT 'platform:fees:' || lpad(n::text, 2, '0'), 'revenue', 'C' FROM generate_series(0, 15) AS n;

-- Three more wallets for everybody: earned but not mature, held by a dispute, and debt.
ALTER TABLE billing.account
  ADD maturing_id bigint UNIQUE REFERENCES ledger.account,
  ADD disputed_id bigint UNIQUE REFERENCES ledger.account,
  ADD debt_id bigint UNIQUE REFERENCES ledger.account,
  ADD frozen_at timestamptz;
INSERT INTO ledger.account (path, class, normal)
  SELECT 'user:' || a.account_id || ':' || w.kind, 'user_' || w.kind, w.normal
  FROM billing.account a
  CROSS JOIN (VALUES ('maturing', 'C'::"char"), ('disputed', 'C'), ('debt', 'D')) AS w (kind, normal);
UPDATE billing.account a SET
  maturing_id = (SELECT l.id FROM ledger.account l WHERE l.path = 'user:' || a.account_id || ':maturing'),
  disputed_id = (SELECT l.id FROM ledger.account l WHERE l.path = 'user:' || a.account_id || ':disputed'),
  debt_id = (SELECT l.id FROM ledger.account l WHERE l.path = 'user:' || a.account_id || ':debt');
ALTER TABLE billing.account
  ALTER maturing_id SET NOT NULL, ALTER disputed_id SET NOT NULL, ALTER debt_id SET NOT NULL;

-- Create an account with its seven wallets; a repeat changes nothing.
CREATE OR REPLACE FUNCTION billing.create_account(p_account text, p_name text, p_now timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  w bigint[];
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('account:' || p_account, 0));
  IF EXISTS (SELECT FROM billing.account a WHERE a.account_id = p_account) THEN
    RETURN;
  END IF;
  WITH made AS (
    INSERT INTO ledger.account (path, class, normal, zero_at_commit)
    SELECT 'user:' || p_account || ':' || k.kind, 'user_' || k.kind,
      CASE WHEN k.kind = 'debt' THEN 'D' ELSE 'C' END::"char", k.kind = 'charge'
    FROM unnest(ARRAY['promo', 'credit', 'earned', 'charge', 'maturing', 'disputed', 'debt'])
      WITH ORDINALITY AS k (kind, n)
    ORDER BY k.n RETURNING id)
  SELECT array_agg(made.id ORDER BY made.id) INTO w FROM made;
  INSERT INTO billing.account (account_id, display_name, role, promo_id, credit_id, earned_id,
      charge_id, maturing_id, disputed_id, debt_id, created_at)
    VALUES (p_account, p_name, '', w[1], w[2], w[3], w[4], w[5], w[6], w[7], p_now);
END $$;

-- The money of one account. Frozen: it owes, or an operator froze it; it may neither spend nor
-- withdraw.
CREATE FUNCTION billing.wallets(p_account text)
RETURNS TABLE (promo bigint, credit bigint, earned bigint, held bigint, maturing bigint,
  disputed bigint, debt bigint, frozen boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT p.cr - p.dr - p.dr_pend, c.cr - c.dr - c.dr_pend, e.cr - e.dr - e.dr_pend,
    p.dr_pend + c.dr_pend + e.dr_pend, m.cr - m.dr, d.cr - d.dr, o.dr - o.cr,
    o.dr > o.cr OR a.frozen_at IS NOT NULL
  FROM billing.account a
  JOIN ledger.account p ON p.id = a.promo_id
  JOIN ledger.account c ON c.id = a.credit_id
  JOIN ledger.account e ON e.id = a.earned_id
  JOIN ledger.account m ON m.id = a.maturing_id
  JOIN ledger.account d ON d.id = a.disputed_id
  JOIN ledger.account o ON o.id = a.debt_id
  WHERE a.account_id = p_account
$$;

CREATE FUNCTION billing.frozen(p_account text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT o.dr > o.cr OR a.frozen_at IS NOT NULL
  FROM billing.account a JOIN ledger.account o ON o.id = a.debt_id
  WHERE a.account_id = p_account
$$;

-- What two accounts of one person have in common: hashes of devices, cards and banks.
CREATE TABLE billing.fingerprint (
  account_id text NOT NULL REFERENCES billing.account,
  kind text NOT NULL CHECK (kind IN ('device', 'card', 'bank')),
  hash bytea NOT NULL CHECK (length(hash) = 32),
  seen_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (account_id, kind, hash)
);
CREATE INDEX fingerprint_hash ON billing.fingerprint (kind, hash);

CREATE FUNCTION billing.related(p_payer text, p_payee text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT p_payer = p_payee OR EXISTS (
    SELECT FROM billing.fingerprint a JOIN billing.fingerprint b USING (kind, hash)
    WHERE a.account_id = p_payer AND b.account_id = p_payee)
$$;

-- Maturation: an earning waits until it is old enough, its receipt is there and no dispute holds
-- it. What was settled before there was a waiting time is mature.
ALTER TABLE billing.earning
  ADD matured_at timestamptz,
  ADD lost_micros bigint NOT NULL DEFAULT 0,
  ADD CHECK (lost_micros BETWEEN 0 AND amount_micros);
UPDATE billing.earning SET matured_at = settled_at;
CREATE INDEX earning_due ON billing.earning (settled_at) WHERE matured_at IS NULL;

-- Referral rewards and the like: not work, but they mature as well.
CREATE TABLE billing.bonus (
  bonus_id text PRIMARY KEY,
  account_id text NOT NULL REFERENCES billing.account,
  amount_micros bigint NOT NULL CHECK (amount_micros > 0),
  lost_micros bigint NOT NULL DEFAULT 0 CHECK (lost_micros BETWEEN 0 AND amount_micros),
  created_at timestamptz NOT NULL,
  matures_at timestamptz NOT NULL,
  matured_at timestamptz
);
CREATE INDEX bonus_due ON billing.bonus (matures_at) WHERE matured_at IS NULL;
CREATE INDEX bonus_account ON billing.bonus (account_id, created_at);

-- Which earnings a dispute holds. Open while ended_at is null.
CREATE TABLE billing.dispute_hold (
  dispute_id text NOT NULL,
  request_id text NOT NULL REFERENCES billing.earning,
  account_id text NOT NULL,
  amount_micros bigint NOT NULL CHECK (amount_micros > 0),
  lost_micros bigint NOT NULL DEFAULT 0 CHECK (lost_micros BETWEEN 0 AND amount_micros),
  ended_at timestamptz,
  PRIMARY KEY (dispute_id, request_id)
);
CREATE INDEX dispute_hold_open ON billing.dispute_hold (request_id) WHERE ended_at IS NULL;

-- First version of an account at which its debits have passed p_dr. Debits never fall, so it is a
-- binary search over the postings, not a scan of a busy payer's history.
CREATE FUNCTION billing.first_version_above(p_account bigint, p_dr bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
  low bigint := 1;
  high bigint;
  mid bigint;
  passed boolean;
BEGIN
  SELECT a.version + 1 INTO high FROM ledger.account a WHERE a.id = p_account;
  WHILE low < high LOOP
    mid := (low + high) / 2;
    SELECT p.dr > p_dr INTO passed FROM ledger.posting p
      WHERE p.account_id = p_account AND p.version = mid;
    IF passed THEN high := mid; ELSE low := mid + 1; END IF;
  END LOOP;
  RETURN low;
END $$;

-- The unmatured earnings that a deposit funded, first in first out: a deposit filled the purchased
-- wallet from one height of its credits to another, and funded what was debited between the same
-- heights. `free` is what neither matured nor was lost nor is held by another dispute.
CREATE FUNCTION billing.funded_by(p_event_key text)
RETURNS TABLE (request_id text, account_id text, overlap bigint, charge bigint, free bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
#variable_conflict use_column
DECLARE
  d record;
BEGIN
  SELECT t.credit_id, p.cr - t.amount AS low, p.cr AS high INTO d
    FROM ledger.event e
    JOIN ledger.transfer t ON t.event_id = e.id AND t.code = 'deposit'
    JOIN ledger.posting p ON p.transfer_id = t.id AND p.side = 'C'
    WHERE e.idem_key = p_event_key;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  RETURN QUERY
    SELECT f.request_id, n.account_id, f.overlap, n.amount_micros,
      n.amount_micros - n.lost_micros - coalesce((
        SELECT sum(h.amount_micros)::bigint FROM billing.dispute_hold h
        WHERE h.request_id = f.request_id AND h.ended_at IS NULL), 0)
    FROM (
      SELECT substr(e.idem_key, 9) AS request_id,
        sum(least(p.dr, d.high) - greatest(p.dr - t.amount, d.low))::bigint AS overlap
      FROM ledger.posting p
      JOIN ledger.transfer t ON t.id = p.transfer_id AND t.mode = 'post'
      JOIN ledger.event e ON e.id = t.event_id AND e.kind = 'settle'
      WHERE p.account_id = d.credit_id AND p.side = 'D'
        AND p.version >= billing.first_version_above(d.credit_id, d.low)
        AND p.version <= billing.first_version_above(d.credit_id, d.high - 1)
        AND p.dr > d.low AND p.dr - t.amount < d.high
      GROUP BY 1) f
    JOIN billing.earning n ON n.request_id = f.request_id
    WHERE n.matured_at IS NULL
    ORDER BY f.request_id;
END $$;

-- Work that a committed command owes the outside world: written with it, done at least once.
CREATE TABLE billing.outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text NOT NULL,
  key text NOT NULL,
  payload jsonb NOT NULL,
  created_at timestamptz NOT NULL,
  due_at timestamptz NOT NULL,
  claimed_until timestamptz,
  attempts integer NOT NULL DEFAULT 0,
  error text NOT NULL DEFAULT '',
  done_at timestamptz,
  UNIQUE (kind, key)
);
CREATE INDEX outbox_due ON billing.outbox (due_at, id) WHERE done_at IS NULL;

CREATE FUNCTION billing.note_outbox() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_notify('billing_outbox', '');
  RETURN NULL;
END $$;
CREATE TRIGGER note_outbox AFTER INSERT ON billing.outbox
  FOR EACH STATEMENT EXECUTE FUNCTION billing.note_outbox();

-- Sealed history: each block hashes its events and the block before it.
CREATE TABLE ledger.block (
  height bigint PRIMARY KEY CHECK (height > 0),
  first_event bigint NOT NULL,
  last_event bigint NOT NULL,
  events bigint NOT NULL CHECK (events > 0),
  previous bytea NOT NULL CHECK (length(previous) = 32),
  hash bytea NOT NULL CHECK (length(hash) = 32),
  sealed_at timestamptz NOT NULL,
  CHECK (first_event <= last_event)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.block
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.block
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.rule
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.rule
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.account
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

-- What the auditor last saw. While a violation is open, withdrawals stop.
CREATE TABLE billing.audit_state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  last_event bigint NOT NULL DEFAULT 0,
  last_block bigint NOT NULL DEFAULT 0,
  violations jsonb NOT NULL DEFAULT '[]',
  checked_at timestamptz,
  full_at timestamptz
);
INSERT INTO billing.audit_state DEFAULT VALUES;

-- Balances that the auditor has recomputed up to a version; the next round goes on from there.
CREATE TABLE billing.audit_mark (
  account_id bigint PRIMARY KEY REFERENCES ledger.account,
  version bigint NOT NULL,
  dr bigint NOT NULL,
  cr bigint NOT NULL,
  dr_pend bigint NOT NULL,
  cr_pend bigint NOT NULL
);

CREATE VIEW billing.changed_accounts AS
  SELECT a.id, a.path, a.version, a.dr, a.cr, a.dr_pend, a.cr_pend,
    coalesce(m.version, 0) AS seen, coalesce(m.dr, 0) AS dr_seen, coalesce(m.cr, 0) AS cr_seen,
    coalesce(m.dr_pend, 0) AS dr_pend_seen, coalesce(m.cr_pend, 0) AS cr_pend_seen
  FROM ledger.account a LEFT JOIN billing.audit_mark m ON m.account_id = a.id
  WHERE a.version <> coalesce(m.version, 0) OR (a.dr, a.cr, a.dr_pend, a.cr_pend)
    <> (coalesce(m.dr, 0), coalesce(m.cr, 0), coalesce(m.dr_pend, 0), coalesce(m.cr_pend, 0));

-- What Stripe said it held, beside what the books said at the same moment.
CREATE TABLE billing.stripe_balance (
  taken_at timestamptz PRIMARY KEY,
  stripe_micros bigint NOT NULL,
  ledger_micros bigint NOT NULL
);

GRANT SELECT ON ALL TABLES IN SCHEMA ledger, billing TO darkbloom_billing;
GRANT INSERT ON ledger.block TO darkbloom_billing;
GRANT UPDATE (frozen_at) ON billing.account TO darkbloom_billing;
GRANT INSERT ON billing.fingerprint, billing.bonus, billing.dispute_hold, billing.outbox,
  billing.audit_mark, billing.stripe_balance TO darkbloom_billing;
GRANT UPDATE (seen_at), DELETE ON billing.fingerprint TO darkbloom_billing;
GRANT UPDATE (matured_at, lost_micros) ON billing.earning TO darkbloom_billing;
GRANT UPDATE (matured_at, lost_micros) ON billing.bonus TO darkbloom_billing;
GRANT UPDATE (lost_micros, ended_at) ON billing.dispute_hold TO darkbloom_billing;
GRANT UPDATE (due_at, claimed_until, attempts, error, done_at) ON billing.outbox
  TO darkbloom_billing;
GRANT UPDATE (last_event, last_block, violations, checked_at, full_at) ON billing.audit_state
  TO darkbloom_billing;
GRANT UPDATE (version, dr, cr, dr_pend, cr_pend), DELETE ON billing.audit_mark
  TO darkbloom_billing;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO darkbloom_billing;
