-- The hot path in sets: a batch of holds or ends is a handful of statements, whatever its size
-- (docs/adr/0010-set-based-ledger.md). Then key caps with windows, and frozen accounts.

-- Balances move once a statement ------------------------------------------------------------------

-- The only writer of balances. Replaces the trigger per row: each account of the statement is read,
-- locked and written once, and gets one posting for each of its transfers, in the order of their ids,
-- with versions that stay dense and totals that are exact after each. Runs as the owner, so the
-- service needs no UPDATE privilege.
CREATE FUNCTION ledger.apply_transfers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
  SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
  wrong record;
BEGIN
  -- In id order, as lock_accounts: a command that forgot to lock cannot deadlock with another.
  PERFORM FROM ledger.account a
    WHERE a.id = ANY (ARRAY(SELECT t.debit_id FROM fresh t UNION SELECT t.credit_id FROM fresh t))
    ORDER BY a.id FOR NO KEY UPDATE;

  WITH side AS (
    SELECT t.id, t.mode, s.side, s.account_id,
      CASE WHEN t.mode IN ('single', 'post') THEN t.amount ELSE 0 END AS posted,
      CASE t.mode WHEN 'single' THEN 0 WHEN 'pending' THEN t.amount
        ELSE -coalesce(p.amount, 0) END AS pending,
      t.pending_id IS NOT NULL AND (p.mode IS DISTINCT FROM 'pending'
        OR (p.debit_id, p.credit_id, p.unit) IS DISTINCT FROM (t.debit_id, t.credit_id, t.unit)
        OR t.amount > p.amount OR (t.mode = 'void' AND t.amount <> p.amount)) AS bad
    FROM fresh t LEFT JOIN ledger.transfer p ON p.id = t.pending_id
    CROSS JOIN LATERAL (VALUES (t.debit_id, 'D'::"char"), (t.credit_id, 'C'::"char"))
      AS s (account_id, side)),
  so_far AS (
    SELECT s.id, s.mode, s.side, s.account_id, s.bad, row_number() OVER past AS n,
      count(*) OVER (PARTITION BY s.account_id) AS of_n,
      sum(CASE s.side WHEN 'D' THEN s.posted ELSE 0 END) OVER past AS dr,
      sum(CASE s.side WHEN 'C' THEN s.posted ELSE 0 END) OVER past AS cr,
      sum(CASE s.side WHEN 'D' THEN s.pending ELSE 0 END) OVER past AS dr_pend,
      sum(CASE s.side WHEN 'C' THEN s.pending ELSE 0 END) OVER past AS cr_pend
    FROM side s
    WINDOW past AS (PARTITION BY s.account_id ORDER BY s.id ROWS UNBOUNDED PRECEDING)),
  after AS MATERIALIZED (
    SELECT a.id, a.path, a.normal, a.floor_zero, a.closed AND s.mode IN ('single', 'pending') AS shut,
      s.bad,
      a.version + s.n AS version, s.id AS transfer_id, s.side, s.n = s.of_n AS last,
      (a.dr + s.dr)::bigint AS dr, (a.cr + s.cr)::bigint AS cr,
      (a.dr_pend + s.dr_pend)::bigint AS dr_pend, (a.cr_pend + s.cr_pend)::bigint AS cr_pend
    FROM so_far s JOIN ledger.account a ON a.id = s.account_id),
  told AS (
    INSERT INTO ledger.posting (account_id, version, transfer_id, side, dr, cr, dr_pend, cr_pend)
    SELECT f.id, f.version, f.transfer_id, f.side, f.dr, f.cr, f.dr_pend, f.cr_pend FROM after f),
  moved AS (
    UPDATE ledger.account a SET dr = f.dr, cr = f.cr, dr_pend = f.dr_pend, cr_pend = f.cr_pend,
      version = f.version
    FROM after f WHERE f.last AND a.id = f.id AND NOT EXISTS (SELECT FROM after w WHERE w.bad))
  -- The constraint sees an account after the statement; nor may it be overdrawn in between.
  SELECT f.path, f.transfer_id, f.bad, f.shut INTO wrong FROM after f
    WHERE f.bad OR f.shut OR f.floor_zero AND CASE f.normal WHEN 'C' THEN f.dr + f.dr_pend > f.cr
      ELSE f.cr + f.cr_pend > f.dr END
    ORDER BY NOT f.bad, NOT f.shut LIMIT 1;
  IF FOUND THEN
    IF wrong.bad THEN
      RAISE EXCEPTION 'bad resolution of a pending transfer by transfer %', wrong.transfer_id
        USING ERRCODE = 'LG001';
    END IF;
    IF wrong.shut THEN
      RAISE EXCEPTION 'account % is closed', wrong.path USING ERRCODE = 'LG002';
    END IF;
    RAISE EXCEPTION 'account % would be overdrawn', wrong.path
      USING ERRCODE = 'check_violation', CONSTRAINT = 'no_overdraft';
  END IF;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION ledger.apply_transfers() FROM PUBLIC;

DROP TRIGGER apply_transfer ON ledger.transfer;
DROP FUNCTION ledger.apply_transfer();
CREATE TRIGGER apply_transfer AFTER INSERT ON ledger.transfer
  REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION ledger.apply_transfers();

-- A statement may move an account by several versions at once, and only from within that trigger:
-- whoever updates an account directly is at depth 1 here, the trigger's own update at depth 2.
CREATE OR REPLACE FUNCTION ledger.guard_account() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  moves boolean := (NEW.dr, NEW.cr, NEW.dr_pend, NEW.cr_pend, NEW.version)
    IS DISTINCT FROM (OLD.dr, OLD.cr, OLD.dr_pend, OLD.cr_pend, OLD.version);
BEGIN
  IF (NEW.id, NEW.path, NEW.unit, NEW.class, NEW.normal, NEW.zero_at_commit)
       IS DISTINCT FROM (OLD.id, OLD.path, OLD.unit, OLD.class, OLD.normal, OLD.zero_at_commit)
     OR (OLD.floor_zero AND NOT NEW.floor_zero)
     OR (moves AND (NEW.version <= OLD.version OR pg_trigger_depth() < 2))
  THEN
    RAISE EXCEPTION 'account % may change only through a transfer', OLD.path
      USING ERRCODE = 'LG003';
  END IF;
  RETURN NEW;
END $$;

-- A posting, likewise, is written by that trigger and by nobody else.
CREATE TRIGGER only_by_transfer BEFORE INSERT ON ledger.posting
  FOR EACH STATEMENT WHEN (pg_trigger_depth() < 1) EXECUTE FUNCTION ledger.refuse();

-- Key caps ----------------------------------------------------------------------------------------

-- A key's limit counts in windows: none is one window for its whole life.
ALTER TABLE billing.api_key
  ADD COLUMN limit_reset text NOT NULL DEFAULT 'none'
    CHECK (limit_reset IN ('none', 'daily', 'weekly', 'monthly'));

-- The cap account of a key in one window. Losing this table would lose no money, only count anew.
CREATE TABLE billing.cap_window (
  key_id text NOT NULL REFERENCES billing.api_key,
  name text NOT NULL,
  cap_id bigint NOT NULL UNIQUE REFERENCES ledger.account,
  sink_id bigint NOT NULL REFERENCES ledger.account,
  source_id bigint NOT NULL REFERENCES ledger.account,
  -- Spent in this window before it was counted, because the limit was set in its midst.
  prior_micros bigint NOT NULL CHECK (prior_micros >= 0),
  opened_at timestamptz NOT NULL,
  PRIMARY KEY (key_id, name)
);
GRANT SELECT, INSERT ON billing.cap_window TO darkbloom_billing;

INSERT INTO billing.cap_window
  SELECT k.key_id, 'lifetime', k.cap_id, k.cap_sink_id, s.id, 0, k.created_at
  FROM billing.api_key k JOIN ledger.account s ON s.path = 'key:' || k.key_id || ':granted';
ALTER TABLE billing.api_key DROP COLUMN cap_id, DROP COLUMN cap_sink_id;

-- When a window of that kind began, in UTC: at midnight, on Monday, on the 1st.
CREATE FUNCTION billing.window_start(p_reset text, p_now timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE p_reset
    WHEN 'daily' THEN date_trunc('day', p_now, 'UTC')
    WHEN 'weekly' THEN date_trunc('week', p_now, 'UTC')
    WHEN 'monthly' THEN date_trunc('month', p_now, 'UTC')
    ELSE '-infinity'::timestamptz END
$$;

-- Its name, for example daily:2026-05-01.
CREATE FUNCTION billing.window_name(p_reset text, p_now timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE p_reset WHEN 'none' THEN 'lifetime'
    ELSE p_reset || ':' || (billing.window_start(p_reset, p_now) AT TIME ZONE 'UTC')::date END
$$;

-- Make the present window of one limited key and fund it up to the limit. The caller holds no lock
-- on an account yet. Lowering a limit takes nothing back: a hold is judged by the limit as it is.
-- p_recount: the limit begins to count now; what was settled in the window before is counted in.
CREATE FUNCTION billing.fund_window(p_key text, p_now timestamptz, p_recount boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  k billing.api_key;
  w billing.cap_window;
  label text;
  cap record;
  event bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('cap:' || p_key, 0));
  SELECT * INTO k FROM billing.api_key a WHERE a.key_id = p_key;
  IF k.limit_micros IS NULL THEN
    RETURN;
  END IF;
  label := billing.window_name(k.limit_reset, p_now);
  SELECT * INTO w FROM billing.cap_window c WHERE c.key_id = p_key AND c.name = label;
  IF NOT FOUND THEN
    INSERT INTO ledger.account (path, class, unit, normal)
      VALUES ('key:' || p_key || ':' || label, 'key_cap', 'cap', 'C') RETURNING id INTO w.cap_id;
    -- A sink and a source of its own: shared ones would be rows that every capped hold waits for.
    SELECT c.sink_id, c.source_id INTO w.sink_id, w.source_id
      FROM billing.cap_window c WHERE c.key_id = p_key LIMIT 1;
    IF NOT FOUND THEN
      INSERT INTO ledger.account (path, class, unit, normal)
        VALUES ('key:' || p_key || ':spent', 'cap_sink', 'cap', 'C') RETURNING id INTO w.sink_id;
      INSERT INTO ledger.account (path, class, unit, normal)
        VALUES ('key:' || p_key || ':granted', 'cap_source', 'cap', 'D')
        RETURNING id INTO w.source_id;
    END IF;
    w.prior_micros := 0;
    INSERT INTO billing.cap_window (key_id, name, cap_id, sink_id, source_id, prior_micros, opened_at)
      VALUES (p_key, label, w.cap_id, w.sink_id, w.source_id, 0, p_now);
  END IF;

  SELECT a.cr, a.dr INTO cap FROM ledger.account a WHERE a.id = w.cap_id;
  IF p_recount THEN
    SELECT greatest(coalesce(sum(u.charge_micros), 0) - cap.dr, w.prior_micros)
      INTO w.prior_micros FROM billing.usage u
      WHERE u.account_id = k.account_id AND u.key_id = p_key
        AND u.settled_at >= billing.window_start(k.limit_reset, p_now);
    UPDATE billing.cap_window c SET prior_micros = w.prior_micros
      WHERE c.key_id = p_key AND c.name = label;
  END IF;
  IF k.limit_micros - w.prior_micros > cap.cr THEN
    INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
      VALUES ('cap:' || w.cap_id || ':' || cap.cr, 'cap', '', jsonb_build_object(
        'key_id', p_key, 'window', label, 'limit', k.limit_micros), '{}', p_now)
      RETURNING id INTO event;
    INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
        credit_id, credit_class, amount)
      VALUES (event, 'single', 'cap', 'cap', w.source_id, 'cap_source', w.cap_id, 'key_cap',
        k.limit_micros - w.prior_micros - cap.cr);
  END IF;
END $$;

-- Set, raise, lower or (NULL) clear what a key may spend in each window; false: no such key. What it
-- has spent stays spent: the same key id, rotated or not, goes on in its windows.
CREATE FUNCTION billing.set_cap(p_key text, p_limit bigint, p_reset text, p_now timestamptz)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  before billing.api_key;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('cap:' || p_key, 0));
  SELECT * INTO before FROM billing.api_key k WHERE k.key_id = p_key;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF (before.limit_micros, before.limit_reset) IS NOT DISTINCT FROM (p_limit, p_reset) THEN
    RETURN true;
  END IF;
  UPDATE billing.api_key k SET limit_micros = p_limit, limit_reset = p_reset
    WHERE k.key_id = p_key;
  PERFORM billing.fund_window(
    p_key, p_now, before.limit_micros IS NULL OR before.limit_reset <> p_reset);
  RETURN true;
END $$;

-- What keys have spent and have left: in the present window of their limit, else in their life.
CREATE FUNCTION billing.key_spend(p_keys text[], p_now timestamptz)
RETURNS TABLE (key_id text, limit_micros bigint, reset text, window_start timestamptz,
  usage_micros bigint, held_micros bigint, remaining_micros bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT k.key_id, k.limit_micros, k.limit_reset,
    nullif(billing.window_start(k.limit_reset, p_now), '-infinity'),
    s.spent, s.held,
    CASE WHEN k.limit_micros IS NOT NULL THEN greatest(k.limit_micros - s.spent - s.held, 0) END
  FROM billing.api_key k
  LEFT JOIN billing.cap_window w ON k.limit_micros IS NOT NULL
    AND w.key_id = k.key_id AND w.name = billing.window_name(k.limit_reset, p_now)
  LEFT JOIN ledger.account c ON c.id = w.cap_id
  CROSS JOIN LATERAL (SELECT coalesce(c.dr_pend, 0) AS held, coalesce(CASE
    WHEN k.limit_micros IS NULL THEN (SELECT sum(u.charge_micros)::bigint FROM billing.usage u
      WHERE u.account_id = k.account_id AND u.key_id = k.key_id)
    ELSE w.prior_micros + c.dr END, 0) AS spent) s
  WHERE k.key_id = ANY (p_keys)
$$;

-- Create a key, as before; its limit counts for its whole life until set_cap says otherwise.
CREATE OR REPLACE FUNCTION billing.create_key(
  p_key text, p_account text, p_hash bytea, p_name text, p_label text, p_models text[],
  p_limit bigint, p_rpm integer, p_expires timestamptz, p_now timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('key:' || encode(p_hash, 'hex'), 0));
  IF EXISTS (SELECT FROM billing.api_key k WHERE k.key_hash = p_hash) THEN
    RETURN;
  END IF;
  INSERT INTO billing.api_key (key_id, account_id, key_hash, name, label, allowed_models,
      limit_micros, rpm_limit, expires_at, created_at)
    VALUES (p_key, p_account, p_hash, p_name, p_label, p_models, p_limit, p_rpm, p_expires, p_now);
  PERFORM billing.fund_window(p_key, p_now, false);
END $$;

-- Holds -------------------------------------------------------------------------------------------

-- Place holds. Request ids of one call are different; the caller sees to it. One statement reads
-- everything, a loop of plain arithmetic decides row by row who still fits, one statement writes.
CREATE OR REPLACE FUNCTION billing.hold_many(
  p_request text[], p_account text[], p_key text[], p_amount bigint[], p_hash bytea[],
  p_body jsonb[], p_now timestamptz, p_lease_until timestamptz)
RETURNS TABLE (
  n bigint, status text, available bigint, body jsonb, held_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  o record;
  limited text[];
  payer text;
  promo bigint;
  credit bigint;
  earned bigint;
  -- Limited keys that came up so far, their cap accounts, and what each has left.
  capped text[] := '{}';
  cap_ids bigint[] := '{}';
  sink_ids bigint[] := '{}';
  cap_left bigint[] := '{}';
  window_cap record;
  cap int;
  left_over bigint;
  part bigint;
  -- What to write: holds, and their legs.
  placed bigint[] := '{}';
  events bigint[] := '{}';
  leg_event bigint[] := '{}';
  leg_unit text[] := '{}';
  leg_debit bigint[] := '{}';
  leg_debit_class text[] := '{}';
  leg_credit bigint[] := '{}';
  leg_amount bigint[] := '{}';
BEGIN
  -- Most keys have no limit: what caps need is read only where there are some.
  limited := ARRAY(SELECT k.key_id FROM billing.api_key k
    WHERE k.key_id = ANY (p_key) AND k.limit_micros IS NOT NULL ORDER BY k.key_id);
  IF cardinality(limited) > 0 THEN
    -- The first hold of a key in a window makes its cap account.
    PERFORM billing.fund_window(k.key_id, p_now, false) FROM billing.api_key k
      WHERE k.key_id = ANY (limited) AND NOT EXISTS (
        SELECT FROM billing.cap_window w
        WHERE w.key_id = k.key_id AND w.name = billing.window_name(k.limit_reset, p_now))
      ORDER BY k.key_id;
    cap_ids := ARRAY(SELECT unnest(ARRAY[w.cap_id, w.sink_id])
      FROM billing.api_key k JOIN billing.cap_window w
        ON w.key_id = k.key_id AND w.name = billing.window_name(k.limit_reset, p_now)
      WHERE k.key_id = ANY (limited));
  END IF;

  PERFORM ledger.lock_accounts(cap_ids || ARRAY(
    SELECT unnest(ARRAY[a.promo_id, a.credit_id, a.earned_id, a.charge_id])
      FROM billing.account a WHERE a.account_id = ANY (p_account)));
  cap_ids := '{}';

  FOR o IN
    SELECT i.*, a.promo_id, a.credit_id, a.earned_id, a.charge_id,
      p.cr - p.dr - p.dr_pend AS promo, c.cr - c.dr - c.dr_pend AS credit,
      e.cr - e.dr - e.dr_pend AS earned, d.dr > d.cr OR a.frozen_at IS NOT NULL AS frozen,
      p.closed OR c.closed OR e.closed AS closed,
      k.key_id AS known_key, k.limit_micros, k.limit_reset,
      k.revoked_at IS NOT NULL OR k.disabled OR k.expires_at <= p_now AS revoked,
      h.body_hash AS first_hash, h.body AS first_body, h.occurred_at AS first_at, l.lease_until
    FROM unnest(p_request, p_account, p_key, p_amount, p_hash) WITH ORDINALITY
           AS i (request_id, account_id, key_id, amount, hash, n)
    LEFT JOIN billing.account a ON a.account_id = i.account_id
    LEFT JOIN ledger.account p ON p.id = a.promo_id
    LEFT JOIN ledger.account c ON c.id = a.credit_id
    LEFT JOIN ledger.account e ON e.id = a.earned_id
    LEFT JOIN ledger.account d ON d.id = a.debt_id
    LEFT JOIN billing.api_key k ON k.key_id = i.key_id AND k.account_id = i.account_id
    LEFT JOIN ledger.event h ON h.idem_key = 'hold:' || i.request_id
    LEFT JOIN billing.lease l ON l.request_id = i.request_id
    ORDER BY i.account_id, i.n
  LOOP
    n := o.n; available := 0; body := NULL; held_at := NULL; expires_at := NULL;

    -- A repeat gets the first hold, whatever prices and balances are by now.
    IF o.first_hash IS NOT NULL THEN
      IF o.first_hash <> o.hash THEN
        status := 'conflict';
      ELSE
        status := CASE WHEN o.lease_until IS NULL THEN 'ended' ELSE 'held' END;
        body := o.first_body; held_at := o.first_at; expires_at := o.lease_until;
      END IF;
      RETURN NEXT; CONTINUE;
    END IF;

    IF o.promo_id IS NULL OR o.closed OR (o.key_id <> '' AND o.known_key IS NULL) THEN
      status := 'unknown'; RETURN NEXT; CONTINUE;
    END IF;
    IF o.revoked THEN
      status := 'revoked'; RETURN NEXT; CONTINUE;
    END IF;
    IF o.frozen THEN
      status := 'frozen'; RETURN NEXT; CONTINUE;
    END IF;

    IF payer IS DISTINCT FROM o.account_id THEN
      payer := o.account_id; promo := o.promo; credit := o.credit; earned := o.earned;
    END IF;
    IF o.limit_micros IS NOT NULL THEN
      cap := array_position(capped, o.key_id);
      IF cap IS NULL THEN
        SELECT w.cap_id, w.sink_id, o.limit_micros - w.prior_micros - x.dr - x.dr_pend AS free
          INTO window_cap
          FROM billing.cap_window w JOIN ledger.account x ON x.id = w.cap_id
          WHERE w.key_id = o.key_id AND w.name = billing.window_name(o.limit_reset, p_now);
        capped := capped || o.key_id;
        cap_ids := cap_ids || window_cap.cap_id; sink_ids := sink_ids || window_cap.sink_id;
        cap_left := cap_left || coalesce(window_cap.free, 0);
        cap := cardinality(capped);
      END IF;
      left_over := cap_left[cap];
      IF left_over < o.amount THEN
        status := 'capped'; available := greatest(left_over, 0); RETURN NEXT; CONTINUE;
      END IF;
    END IF;
    IF promo + credit + earned < o.amount THEN
      status := 'short'; available := promo + credit + earned; RETURN NEXT; CONTINUE;
    END IF;

    placed := placed || o.n;
    events := events || nextval('ledger.event_id_seq');
    -- Promotional money first, then purchased, then earned.
    left_over := o.amount;
    part := least(left_over, promo);
    IF part > 0 THEN
      promo := promo - part; left_over := left_over - part;
      leg_event := leg_event || events[cardinality(events)]; leg_unit := leg_unit || 'uUSD'::text;
      leg_debit := leg_debit || o.promo_id; leg_debit_class := leg_debit_class || 'user_promo'::text;
      leg_credit := leg_credit || o.charge_id; leg_amount := leg_amount || part;
    END IF;
    part := least(left_over, credit);
    IF part > 0 THEN
      credit := credit - part; left_over := left_over - part;
      leg_event := leg_event || events[cardinality(events)]; leg_unit := leg_unit || 'uUSD'::text;
      leg_debit := leg_debit || o.credit_id;
      leg_debit_class := leg_debit_class || 'user_credit'::text;
      leg_credit := leg_credit || o.charge_id; leg_amount := leg_amount || part;
    END IF;
    IF left_over > 0 THEN
      earned := earned - left_over;
      leg_event := leg_event || events[cardinality(events)]; leg_unit := leg_unit || 'uUSD'::text;
      leg_debit := leg_debit || o.earned_id;
      leg_debit_class := leg_debit_class || 'user_earned'::text;
      leg_credit := leg_credit || o.charge_id; leg_amount := leg_amount || left_over;
    END IF;
    IF o.limit_micros IS NOT NULL AND o.amount > 0 THEN
      cap_left[cap] := cap_left[cap] - o.amount;
      leg_event := leg_event || events[cardinality(events)]; leg_unit := leg_unit || 'cap'::text;
      leg_debit := leg_debit || cap_ids[cap]; leg_debit_class := leg_debit_class || 'key_cap'::text;
      leg_credit := leg_credit || sink_ids[cap]; leg_amount := leg_amount || o.amount;
    END IF;
    status := 'held'; held_at := p_now; expires_at := p_lease_until;
    RETURN NEXT;
  END LOOP;

  IF cardinality(placed) > 0 THEN
    WITH held AS (
      INSERT INTO ledger.event (id, idem_key, kind, body_hash, body, result, occurred_at)
      OVERRIDING SYSTEM VALUE
      SELECT h.event, 'hold:' || p_request[h.n], 'hold', p_hash[h.n], p_body[h.n], '{}', p_now
      FROM unnest(events, placed) AS h (event, n)),
    leased AS (
      INSERT INTO billing.lease (request_id, lease_until)
      SELECT p_request[h.n], p_lease_until FROM unnest(placed) AS h (n))
    INSERT INTO ledger.transfer
      (event_id, mode, code, unit, debit_id, debit_class, credit_id, credit_class, amount)
    SELECT t.event, 'pending', 'hold', t.unit, t.debit, t.debit_class, t.credit,
      CASE t.unit WHEN 'cap' THEN 'cap_sink' ELSE 'user_charge' END, t.amount
    FROM unnest(leg_event, leg_unit, leg_debit, leg_debit_class, leg_credit, leg_amount)
      AS t (event, unit, debit, debit_class, credit, amount);
  END IF;
END $$;
GRANT USAGE ON SEQUENCE ledger.event_id_seq TO darkbloom_billing;

-- Raise one hold to p_total. Extensions are numbered from 1 without gaps. The cap is that of the
-- window in which the hold was placed.
CREATE OR REPLACE FUNCTION billing.extend_hold(
  p_request text, p_extension int, p_total bigint, p_hash bytea, p_body jsonb, p_now timestamptz)
RETURNS TABLE (status text, required bigint, available bigint, body jsonb, expires_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  hold record;
  b record;
  a record;
  held bigint;
  extra bigint;
  cap_left bigint;
  event bigint;
BEGIN
  available := 0; required := 0;
  SELECT e.body INTO hold FROM ledger.event e WHERE e.idem_key = 'hold:' || p_request;
  IF NOT FOUND THEN
    status := 'unknown'; RETURN NEXT; RETURN;
  END IF;
  SELECT w.*, t.debit_id AS cap_id, t.credit_id AS cap_sink_id INTO a FROM billing.account w
    LEFT JOIN LATERAL (
      SELECT l.debit_id, l.credit_id FROM billing.legs(p_request) l WHERE l.unit = 'cap' LIMIT 1
    ) t ON true
    WHERE w.account_id = hold.body ->> 'account_id';
  PERFORM ledger.lock_accounts(ARRAY[
    a.promo_id, a.credit_id, a.earned_id, a.charge_id, a.cap_id, a.cap_sink_id]);

  SELECT l.lease_until INTO expires_at FROM billing.lease l WHERE l.request_id = p_request;
  SELECT e.body_hash, e.body INTO b
    FROM ledger.event e WHERE e.idem_key = 'hold:' || p_request || ':' || p_extension;
  IF FOUND THEN
    body := b.body;
    status := CASE WHEN b.body_hash <> p_hash THEN 'conflict'
                   WHEN expires_at IS NULL THEN 'ended' ELSE 'held' END;
    RETURN NEXT; RETURN;
  END IF;
  IF EXISTS (SELECT FROM ledger.event e WHERE e.idem_key = 'resolve:' || p_request) THEN
    status := 'ended'; RETURN NEXT; RETURN;
  END IF;
  IF p_extension > 1 AND NOT EXISTS (SELECT FROM ledger.event e
      WHERE e.idem_key = 'hold:' || p_request || ':' || (p_extension - 1)) THEN
    status := 'gap'; RETURN NEXT; RETURN;
  END IF;
  IF billing.frozen(a.account_id) THEN
    status := 'frozen'; RETURN NEXT; RETURN;
  END IF;

  SELECT coalesce(sum(t.amount), 0) INTO held FROM billing.legs(p_request) t
    WHERE t.unit = 'uUSD';
  extra := greatest(p_total - held, 0);
  required := extra;
  IF a.cap_id IS NOT NULL THEN
    SELECT least(c.cr, coalesce(k.limit_micros - w.prior_micros, c.cr)) - c.dr - c.dr_pend
      INTO cap_left FROM ledger.account c JOIN billing.cap_window w ON w.cap_id = c.id
      LEFT JOIN billing.api_key k ON k.key_id = w.key_id
      WHERE c.id = a.cap_id;
    IF cap_left < extra THEN
      status := 'capped'; available := greatest(cap_left, 0); RETURN NEXT; RETURN;
    END IF;
  END IF;
  SELECT * INTO b FROM billing.balance(a.account_id);
  IF b.promo + b.credit + b.earned < extra THEN
    status := 'short'; available := b.promo + b.credit + b.earned; RETURN NEXT; RETURN;
  END IF;

  body := p_body || jsonb_build_object('amount', greatest(p_total, held));
  INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
    VALUES ('hold:' || p_request || ':' || p_extension, 'extend', p_hash, body, '{}', p_now)
    RETURNING id INTO event;
  PERFORM billing.reserve(event, extra, b.promo, b.credit,
    a.promo_id, a.credit_id, a.earned_id, a.charge_id, a.cap_id, a.cap_sink_id);
  status := 'held';
  RETURN NEXT;
END $$;

-- Ends --------------------------------------------------------------------------------------------

-- What a settlement is judged against: hold and extensions, oldest first, and the identity's account.
-- What is held is what the events say; resolve_many judges by the legs themselves.
CREATE OR REPLACE FUNCTION billing.settle_context(p_request text[], p_identity bytea[])
RETURNS TABLE (
  n bigint, bodies jsonb[], held_at timestamptz, amount bigint, payee text, resolved boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
  SELECT i.n, h.bodies, h.held_at, h.amount, l.account_id, r.id IS NOT NULL
  FROM unnest(p_request, p_identity) WITH ORDINALITY AS i (request_id, identity_key, n)
  LEFT JOIN billing.provider_link l ON l.identity_key = i.identity_key
  LEFT JOIN ledger.event r ON r.idem_key = 'resolve:' || i.request_id
  LEFT JOIN LATERAL (
    SELECT array_agg(e.body ORDER BY e.id) AS bodies, min(e.occurred_at) AS held_at,
      max((e.body -> 'amount')::bigint) AS amount
    FROM ledger.event e
    WHERE e.idem_key >= 'hold:' || i.request_id AND e.idem_key < 'hold:' || i.request_id || ';'
  ) h ON true
  ORDER BY i.n
$$;

-- End holds. Request ids of one call are different; the caller sees to it. p_kind: settle, release or
-- sweep. A settlement of p_charge posts it out of the pending transfers in the order promo, credit,
-- earned, voids the rest, and pays it to p_payee's maturing earnings in the same transaction; with a
-- charge of 0 everything is voided. Promotional money never pays a relation of the payer: then the
-- charge is 0 too, and the usage says so. Every end of a request shares one key.
CREATE OR REPLACE FUNCTION billing.resolve_many(
  p_request text[], p_kind text[], p_charge bigint[], p_payee text[], p_hash bytea[],
  p_body jsonb[], p_now timestamptz)
RETURNS TABLE (n bigint, status text, result jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM ledger.lock_accounts(ARRAY(
    SELECT unnest(ARRAY[t.debit_id, t.credit_id])
      FROM unnest(p_request) AS i (request_id), LATERAL billing.legs(i.request_id) t
    UNION ALL SELECT a.maturing_id FROM billing.account a WHERE a.account_id = ANY (p_payee)));

  RETURN QUERY
  WITH leg AS MATERIALIZED (
    SELECT i.n, t.id, t.code, t.unit, t.debit_id, t.debit_class, t.credit_id, t.credit_class,
      t.amount, sum(t.amount) OVER (PARTITION BY i.n, t.unit ORDER BY array_position(
        ARRAY['user_promo', 'user_credit', 'user_earned'], t.debit_class), t.id)::bigint AS up_to
    FROM unnest(p_request) WITH ORDINALITY AS i (request_id, n),
      LATERAL billing.legs(i.request_id) t),
  held AS (
    SELECT l.n, sum(l.amount)::bigint AS amount, min(l.credit_id) AS charge_id,
      bool_or(l.debit_class = 'user_promo') AS promo
    FROM leg l WHERE l.unit = 'uUSD' GROUP BY l.n),
  fact AS (
    SELECT i.*, h.body AS hold, r.result AS stored, s.charge_id, w.id AS payee_id,
      CASE
        -- A release and a sweep are the same end; a settlement only with equal evidence.
        WHEN r.id IS NOT NULL AND (r.kind = 'settle') = (i.kind = 'settle')
          AND (i.kind <> 'settle' OR r.body_hash = i.hash) THEN 'replayed'
        WHEN r.id IS NOT NULL THEN 'late'
        WHEN h.id IS NULL THEN 'unknown'
        WHEN i.charge > coalesce(s.amount, 0) THEN 'over'
        WHEN i.charge > 0 AND w.id IS NULL THEN 'unlinked'
        WHEN i.kind = 'settle' THEN 'settled'
        ELSE 'released' END AS verdict,
      CASE WHEN i.charge > 0 AND s.promo
        AND billing.related(h.body ->> 'account_id', i.payee) THEN 0 ELSE i.charge END AS paid
    FROM unnest(p_request, p_kind, p_charge, p_payee, p_hash) WITH ORDINALITY
      AS i (request_id, kind, charge, payee, hash, n)
    LEFT JOIN ledger.event r ON r.idem_key = 'resolve:' || i.request_id
    LEFT JOIN ledger.event h ON h.idem_key = 'hold:' || i.request_id
    LEFT JOIN held s ON s.n = i.n
    LEFT JOIN billing.account a ON a.account_id = i.payee
    LEFT JOIN ledger.account w ON w.id = a.maturing_id AND NOT w.closed),
  gone AS (
    DELETE FROM billing.lease l USING fact f
    WHERE l.request_id = f.request_id AND f.verdict IN ('settled', 'released')
      -- A lease that was renewed since the sweeper read it is not swept.
      AND (f.kind <> 'sweep' OR l.lease_until <= p_now)
    RETURNING f.n),
  judged AS MATERIALIZED (
    SELECT f.*, p_body[f.n] AS body,
      CASE WHEN f.kind = 'sweep' AND f.verdict = 'released'
        AND NOT EXISTS (SELECT FROM gone g WHERE g.n = f.n) THEN 'renewed'
        ELSE f.verdict END AS status
    FROM fact f),
  ending AS MATERIALIZED (
    SELECT j.*, nextval('ledger.event_id_seq') AS event_id,
      jsonb_build_object('charge', j.paid, 'credit', j.paid,
        'prompt_tokens', coalesce(j.body -> 'prompt_tokens', '0'),
        'completion_tokens', coalesce(j.body -> 'completion_tokens', '0')) AS result
    FROM judged j WHERE j.status IN ('settled', 'released')),
  ended AS (
    INSERT INTO ledger.event (id, idem_key, kind, body_hash, body, result, occurred_at)
    OVERRIDING SYSTEM VALUE
    SELECT e.event_id, 'resolve:' || e.request_id, e.kind, e.hash, e.body, e.result, p_now
    FROM ending e),
  moved AS (
    INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
      credit_id, credit_class, amount, pending_id)
    SELECT m.event_id, m.mode, m.code, m.unit, m.debit_id, m.debit_class,
      m.credit_id, m.credit_class, m.amount, m.pending_id
    FROM (
      SELECT e.n, l.id AS place, e.event_id, CASE WHEN t.part > 0 THEN 'post' ELSE 'void' END AS mode,
        l.code, l.unit, l.debit_id, l.debit_class, l.credit_id, l.credit_class,
        CASE WHEN t.part > 0 THEN t.part ELSE l.amount END AS amount, l.id AS pending_id
      FROM ending e JOIN leg l ON l.n = e.n
      CROSS JOIN LATERAL (SELECT least(l.amount, e.paid - (l.up_to - l.amount)) AS part) t
      UNION ALL
      SELECT e.n, NULL, e.event_id, 'single', 'payout', 'uUSD', e.charge_id, 'user_charge',
        e.payee_id, 'user_maturing', e.paid, NULL
      FROM ending e WHERE e.paid > 0) m
    ORDER BY m.n, m.place NULLS LAST),
  used AS (
    INSERT INTO billing.usage (request_id, account_id, attempt_id, key_id, model, build,
      prompt_tokens, cached_tokens, completion_tokens, charge_micros, outcome, terminal_sha256,
      settled_at)
    SELECT e.request_id, e.hold ->> 'account_id', e.body ->> 'attempt_id', e.hold ->> 'key_id',
      e.hold ->> 'requested_model', coalesce(e.body ->> 'build', e.hold ->> 'build'),
      (e.body -> 'prompt_tokens')::int,
      (e.body -> 'cached_tokens')::int, (e.body -> 'completion_tokens')::int, e.paid,
      e.body ->> 'outcome', e.body ->> 'terminal_sha256', p_now
    FROM ending e WHERE e.charge > 0),
  earned AS (
    INSERT INTO billing.earning (request_id, account_id, build, amount_micros, prompt_tokens,
      completion_tokens, identity_key, settled_at)
    SELECT e.request_id, e.payee, coalesce(e.body ->> 'build', e.hold ->> 'build'), e.paid,
      (e.body -> 'prompt_tokens')::int,
      (e.body -> 'completion_tokens')::int, decode(e.body ->> 'identity_key', 'hex'), p_now
    FROM ending e WHERE e.paid > 0)
  SELECT j.n, j.status, coalesce(CASE j.status WHEN 'replayed' THEN j.stored ELSE e.result END, '{}')
  FROM judged j LEFT JOIN ending e ON e.n = j.n;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO darkbloom_billing;
