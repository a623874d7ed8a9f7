-- The hot commands as functions: one round trip for a whole batch. Bad input is a status of its row,
-- never an exception, so that one row cannot fail its neighbours. Each function first locks every
-- account it will touch, in id order; what it decides, it decides after that. Sequential scans are off
-- because plans are kept: one made while the tables were still empty would read them whole for ever.

-- What one account can still spend, by kind, and what is in open holds.
CREATE FUNCTION billing.balance(p_account text)
RETURNS TABLE (promo bigint, credit bigint, earned bigint, held bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT p.cr - p.dr - p.dr_pend, c.cr - c.dr - c.dr_pend, e.cr - e.dr - e.dr_pend,
         p.dr_pend + c.dr_pend + e.dr_pend
  FROM billing.account a
  JOIN ledger.account p ON p.id = a.promo_id
  JOIN ledger.account c ON c.id = a.credit_id
  JOIN ledger.account e ON e.id = a.earned_id
  WHERE a.account_id = p_account
$$;

-- Reserve p_amount of one payer: promotional money first, then purchased, then earned. Writes one
-- pending transfer per kind that is used, and one on the key's cap. The caller holds the locks and
-- has checked that the money is there.
CREATE FUNCTION billing.reserve(
  p_event bigint, p_amount bigint, p_promo bigint, p_credit bigint,
  p_promo_id bigint, p_credit_id bigint, p_earned_id bigint, p_charge_id bigint,
  p_cap_id bigint, p_cap_sink_id bigint)
RETURNS void LANGUAGE sql SET search_path = pg_catalog AS $$
  INSERT INTO ledger.transfer
    (event_id, mode, code, unit, debit_id, debit_class, credit_id, credit_class, amount)
  SELECT p_event, 'pending', 'hold', leg.unit, leg.debit_id, leg.debit_class,
         leg.credit_id, leg.credit_class, leg.amount
  FROM (VALUES
    (1, 'uUSD', p_promo_id, 'user_promo', p_charge_id, 'user_charge', least(p_amount, p_promo)),
    (2, 'uUSD', p_credit_id, 'user_credit', p_charge_id, 'user_charge',
      least(p_amount - least(p_amount, p_promo), p_credit)),
    (3, 'uUSD', p_earned_id, 'user_earned', p_charge_id, 'user_charge',
      greatest(p_amount - p_promo - p_credit, 0)),
    (4, 'cap', p_cap_id, 'key_cap', p_cap_sink_id, 'cap_sink',
      CASE WHEN p_cap_id IS NULL THEN 0 ELSE p_amount END)
  ) AS leg (n, unit, debit_id, debit_class, credit_id, credit_class, amount)
  WHERE leg.amount > 0 ORDER BY leg.n
$$;

CREATE FUNCTION billing.hold_many(
  p_request text[], p_account text[], p_key text[], p_amount bigint[], p_hash bytea[],
  p_body jsonb[], p_now timestamptz, p_lease_until timestamptz)
RETURNS TABLE (
  n bigint, status text, available bigint, body jsonb, held_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  o record;
  b record;
  cap_left bigint;
  event bigint;
BEGIN
  PERFORM ledger.lock_accounts(ARRAY(
    SELECT unnest(ARRAY[a.promo_id, a.credit_id, a.earned_id, a.charge_id])
      FROM billing.account a WHERE a.account_id = ANY (p_account)
    UNION ALL SELECT unnest(ARRAY[k.cap_id, k.cap_sink_id])
      FROM billing.api_key k WHERE k.key_id = ANY (p_key) AND k.cap_id IS NOT NULL));

  FOR o IN
    SELECT i.*, a.promo_id, a.credit_id, a.earned_id, a.charge_id, k.cap_id, k.cap_sink_id,
           k.key_id AS known_key, k.revoked_at
    FROM unnest(p_request, p_account, p_key, p_amount, p_hash, p_body) WITH ORDINALITY
           AS i (request_id, account_id, key_id, amount, hash, body, n)
    LEFT JOIN billing.account a ON a.account_id = i.account_id
    LEFT JOIN billing.api_key k ON k.key_id = i.key_id AND k.account_id = i.account_id
    ORDER BY i.account_id, i.n
  LOOP
    n := o.n; available := 0; body := NULL; held_at := NULL; expires_at := NULL;

    -- A repeat gets the first hold, whatever prices and balances are by now.
    SELECT e.body_hash, e.body, e.occurred_at INTO b
      FROM ledger.event e WHERE e.idem_key = 'hold:' || o.request_id;
    IF FOUND THEN
      IF b.body_hash <> o.hash THEN
        status := 'conflict';
      ELSE
        SELECT l.lease_until INTO expires_at FROM billing.lease l
          WHERE l.request_id = o.request_id;
        status := CASE WHEN FOUND THEN 'held' ELSE 'ended' END;
        body := b.body; held_at := b.occurred_at;
      END IF;
      RETURN NEXT; CONTINUE;
    END IF;

    IF o.promo_id IS NULL OR (o.key_id <> '' AND o.known_key IS NULL) THEN
      status := 'unknown'; RETURN NEXT; CONTINUE;
    END IF;
    IF o.revoked_at IS NOT NULL THEN
      status := 'revoked'; RETURN NEXT; CONTINUE;
    END IF;

    IF o.cap_id IS NOT NULL THEN
      SELECT c.cr - c.dr - c.dr_pend INTO cap_left FROM ledger.account c WHERE c.id = o.cap_id;
      IF cap_left < o.amount THEN
        status := 'capped'; available := cap_left; RETURN NEXT; CONTINUE;
      END IF;
    END IF;
    SELECT * INTO b FROM billing.balance(o.account_id);
    IF b.promo + b.credit + b.earned < o.amount THEN
      status := 'short'; available := b.promo + b.credit + b.earned; RETURN NEXT; CONTINUE;
    END IF;

    INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
      VALUES ('hold:' || o.request_id, 'hold', o.hash, o.body, '{}', p_now)
      RETURNING id INTO event;
    PERFORM billing.reserve(event, o.amount, b.promo, b.credit,
      o.promo_id, o.credit_id, o.earned_id, o.charge_id, o.cap_id, o.cap_sink_id);
    INSERT INTO billing.lease VALUES (o.request_id, p_lease_until);
    status := 'held'; body := o.body; held_at := p_now; expires_at := p_lease_until;
    RETURN NEXT;
  END LOOP;
END $$;

-- The pending transfers of one request, resolved or not: those of its hold and extensions. Without
-- a SET clause, so that the planner can inline it.
CREATE FUNCTION billing.legs(p_request text) RETURNS SETOF ledger.transfer
LANGUAGE sql STABLE AS $$
  -- Request ids have one length, and ';' follows ':', so the range holds this request's keys only.
  -- An array, not a join: two index look-ups, however many rows the planner believes in.
  SELECT t.* FROM ledger.transfer t
  WHERE t.mode = 'pending' AND t.event_id = ANY (ARRAY(
    SELECT e.id FROM ledger.event e
    WHERE e.idem_key >= 'hold:' || p_request AND e.idem_key < 'hold:' || p_request || ';'))
$$;

-- Raise one hold to p_total. Extensions are numbered from 1 without gaps.
CREATE FUNCTION billing.extend_hold(
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
  SELECT w.*, k.cap_id, k.cap_sink_id INTO a FROM billing.account w
    LEFT JOIN billing.api_key k ON k.key_id = hold.body ->> 'key_id'
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

  SELECT coalesce(sum(t.amount), 0) INTO held FROM billing.legs(p_request) t
    WHERE t.unit = 'uUSD';
  extra := greatest(p_total - held, 0);
  required := extra;
  IF a.cap_id IS NOT NULL THEN
    SELECT c.cr - c.dr - c.dr_pend INTO cap_left FROM ledger.account c WHERE c.id = a.cap_id;
    IF cap_left < extra THEN
      status := 'capped'; available := cap_left; RETURN NEXT; RETURN;
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

-- What a settlement is judged against: hold and extensions, oldest first, and the identity's account.
CREATE FUNCTION billing.settle_context(p_request text[], p_identity bytea[])
RETURNS TABLE (
  n bigint, bodies jsonb[], held_at timestamptz, amount bigint, payee text, resolved boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
  SELECT i.n, h.bodies, h.held_at,
    (SELECT sum(t.amount)::bigint FROM billing.legs(i.request_id) t WHERE t.unit = 'uUSD'),
    l.account_id,
    EXISTS (SELECT FROM ledger.event r WHERE r.idem_key = 'resolve:' || i.request_id)
  FROM unnest(p_request, p_identity) WITH ORDINALITY AS i (request_id, identity_key, n)
  LEFT JOIN billing.provider_link l ON l.identity_key = i.identity_key
  LEFT JOIN LATERAL (
    SELECT array_agg(e.body ORDER BY e.id) AS bodies, min(e.occurred_at) AS held_at
    FROM ledger.event e
    WHERE e.idem_key >= 'hold:' || i.request_id AND e.idem_key < 'hold:' || i.request_id || ';'
  ) h ON true
  ORDER BY i.n
$$;

-- End holds. p_kind: settle, release or sweep. A settlement of p_charge posts it out of the pending
-- transfers in the order promo, credit, earned, voids the rest, and pays it to p_payee in the same
-- transaction; with a charge of 0 everything is voided. Every end of a request shares one key.
CREATE FUNCTION billing.resolve_many(
  p_request text[], p_kind text[], p_charge bigint[], p_payee text[], p_hash bytea[],
  p_body jsonb[], p_now timestamptz)
RETURNS TABLE (n bigint, status text, result jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  o record;
  b record;
  leg record;
  hold jsonb;
  event bigint;
  payee bigint;
  charge_account bigint;
  available bigint;
  unpaid bigint;
  uncapped bigint;
  part bigint;
BEGIN
  PERFORM ledger.lock_accounts(ARRAY(
    SELECT unnest(ARRAY[t.debit_id, t.credit_id])
      FROM unnest(p_request) AS i (request_id), LATERAL billing.legs(i.request_id) t
    UNION ALL SELECT a.earned_id FROM billing.account a WHERE a.account_id = ANY (p_payee)));

  FOR o IN
    SELECT * FROM unnest(p_request, p_kind, p_charge, p_payee, p_hash, p_body) WITH ORDINALITY
      AS i (request_id, kind, charge, payee, hash, body, n)
  LOOP
    n := o.n; result := '{}';

    SELECT e.kind, e.body_hash, e.result INTO b
      FROM ledger.event e WHERE e.idem_key = 'resolve:' || o.request_id;
    IF FOUND THEN
      -- A release and a sweep are the same end; a settlement is the same only with equal evidence.
      IF (b.kind = 'settle') = (o.kind = 'settle') AND (o.kind <> 'settle' OR b.body_hash = o.hash)
      THEN
        status := 'replayed'; result := b.result;
      ELSE
        status := 'late';
      END IF;
      RETURN NEXT; CONTINUE;
    END IF;

    SELECT e.body INTO hold FROM ledger.event e WHERE e.idem_key = 'hold:' || o.request_id;
    IF NOT FOUND THEN
      status := 'unknown'; RETURN NEXT; CONTINUE;
    END IF;
    SELECT sum(t.amount), min(t.credit_id) INTO available, charge_account
      FROM billing.legs(o.request_id) t WHERE t.unit = 'uUSD';
    IF o.charge > available THEN
      status := 'over'; RETURN NEXT; CONTINUE;
    END IF;
    IF o.charge > 0 THEN
      SELECT a.earned_id INTO payee FROM billing.account a WHERE a.account_id = o.payee;
      IF NOT FOUND THEN
        status := 'unlinked'; RETURN NEXT; CONTINUE;
      END IF;
    END IF;

    -- A lease that was renewed since the sweeper read it is not swept.
    IF o.kind = 'sweep' THEN
      DELETE FROM billing.lease l WHERE l.request_id = o.request_id AND l.lease_until <= p_now;
      IF NOT FOUND THEN
        status := 'renewed'; RETURN NEXT; CONTINUE;
      END IF;
    ELSE
      DELETE FROM billing.lease l WHERE l.request_id = o.request_id;
    END IF;

    result := jsonb_build_object('charge', o.charge, 'credit', o.charge,
      'prompt_tokens', coalesce(o.body -> 'prompt_tokens', '0'),
      'completion_tokens', coalesce(o.body -> 'completion_tokens', '0'));
    INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
      VALUES ('resolve:' || o.request_id, o.kind, o.hash, o.body, result, p_now)
      RETURNING id INTO event;

    unpaid := o.charge;
    uncapped := o.charge;
    FOR leg IN
      SELECT * FROM billing.legs(o.request_id) t
      ORDER BY array_position(ARRAY['user_promo', 'user_credit', 'user_earned'], t.debit_class),
               t.id
    LOOP
      IF leg.unit = 'cap' THEN
        part := least(leg.amount, uncapped);
        uncapped := uncapped - part;
      ELSE
        part := least(leg.amount, unpaid);
        unpaid := unpaid - part;
      END IF;
      INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
          credit_id, credit_class, amount, pending_id)
        VALUES (event, CASE WHEN part > 0 THEN 'post' ELSE 'void' END, leg.code, leg.unit,
          leg.debit_id, leg.debit_class, leg.credit_id, leg.credit_class,
          CASE WHEN part > 0 THEN part ELSE leg.amount END, leg.id);
    END LOOP;

    IF o.charge > 0 THEN
      INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
          credit_id, credit_class, amount)
        VALUES (event, 'single', 'payout', 'uUSD', charge_account, 'user_charge',
          payee, 'user_earned', o.charge);
      INSERT INTO billing.usage VALUES (o.request_id, hold ->> 'account_id',
        o.body ->> 'attempt_id', hold ->> 'key_id', hold ->> 'requested_model', hold ->> 'build',
        (o.body -> 'prompt_tokens')::int, (o.body -> 'cached_tokens')::int,
        (o.body -> 'completion_tokens')::int, o.charge, o.body ->> 'outcome',
        o.body ->> 'terminal_sha256', p_now);
      INSERT INTO billing.earning VALUES (o.request_id, o.payee, hold ->> 'build', o.charge,
        (o.body -> 'prompt_tokens')::int, (o.body -> 'completion_tokens')::int,
        decode(o.body ->> 'identity_key', 'hex'), p_now);
    END IF;
    status := CASE WHEN o.kind = 'settle' THEN 'settled' ELSE 'released' END;
    RETURN NEXT;
  END LOOP;
END $$;

-- Create an account with its four wallets; a repeat changes nothing.
CREATE FUNCTION billing.create_account(p_account text, p_name text, p_now timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  wallets bigint[];
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('account:' || p_account, 0));
  IF EXISTS (SELECT FROM billing.account a WHERE a.account_id = p_account) THEN
    RETURN;
  END IF;
  WITH made AS (
    INSERT INTO ledger.account (path, class, normal, zero_at_commit)
    SELECT 'user:' || p_account || ':' || w.kind, 'user_' || w.kind, 'C', w.kind = 'charge'
    FROM unnest(ARRAY['promo', 'credit', 'earned', 'charge']) WITH ORDINALITY AS w (kind, n)
    ORDER BY w.n RETURNING id)
  SELECT array_agg(made.id ORDER BY made.id) INTO wallets FROM made;
  INSERT INTO billing.account
    VALUES (p_account, p_name, '', wallets[1], wallets[2], wallets[3], wallets[4], p_now);
END $$;

-- Create a key; with a limit it gets a cap account that holds exactly that much. A repeat is judged
-- by the caller, who reads what is there.
CREATE FUNCTION billing.create_key(
  p_key text, p_account text, p_hash bytea, p_name text, p_label text, p_models text[],
  p_limit bigint, p_rpm integer, p_expires timestamptz, p_now timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  cap bigint;
  sink bigint;
  source bigint;
  event bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('key:' || encode(p_hash, 'hex'), 0));
  IF EXISTS (SELECT FROM billing.api_key k WHERE k.key_hash = p_hash) THEN
    RETURN;
  END IF;
  IF p_limit IS NOT NULL THEN
    INSERT INTO ledger.account (path, class, unit, normal)
      VALUES ('key:' || p_key || ':lifetime', 'key_cap', 'cap', 'C') RETURNING id INTO cap;
    -- A sink and a source of its own: shared ones would be rows that every capped hold waits for.
    INSERT INTO ledger.account (path, class, unit, normal)
      VALUES ('key:' || p_key || ':spent', 'cap_sink', 'cap', 'C') RETURNING id INTO sink;
    INSERT INTO ledger.account (path, class, unit, normal)
      VALUES ('key:' || p_key || ':granted', 'cap_source', 'cap', 'D') RETURNING id INTO source;
    IF p_limit > 0 THEN
      INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
        VALUES ('cap:' || p_key, 'cap', p_hash, jsonb_build_object('limit', p_limit), '{}', p_now)
        RETURNING id INTO event;
      INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
          credit_id, credit_class, amount)
        VALUES (event, 'single', 'cap', 'cap', source, 'cap_source', cap, 'key_cap', p_limit);
    END IF;
  END IF;
  INSERT INTO billing.api_key (key_id, account_id, key_hash, name, label, allowed_models,
      limit_micros, rpm_limit, cap_id, cap_sink_id, expires_at, created_at)
    VALUES (p_key, p_account, p_hash, p_name, p_label, p_models, p_limit, p_rpm, cap, sink,
      p_expires, p_now);
END $$;

-- Put promotional money on an account. The owner's capital pays for it, so the books balance:
-- asset -> equity -> budget -> account, all in one event.
CREATE FUNCTION billing.grant_promo(
  p_request text, p_account text, p_amount bigint, p_hash bytea, p_body jsonb, p_now timestamptz)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  promo bigint;
  asset bigint;
  equity bigint;
  budget bigint;
  event bigint;
  stored bytea;
BEGIN
  SELECT a.promo_id INTO promo FROM billing.account a WHERE a.account_id = p_account;
  IF NOT FOUND THEN
    RETURN 'unknown';
  END IF;
  SELECT id INTO asset FROM ledger.account WHERE path = 'asset:owner:available';
  SELECT id INTO equity FROM ledger.account WHERE path = 'platform:equity';
  SELECT id INTO budget FROM ledger.account WHERE path = 'platform:budget:promo';
  PERFORM ledger.lock_accounts(ARRAY[asset, equity, budget, promo]);

  SELECT e.body_hash INTO stored FROM ledger.event e WHERE e.idem_key = 'grant:' || p_request;
  IF FOUND THEN
    RETURN CASE WHEN stored = p_hash THEN 'granted' ELSE 'conflict' END;
  END IF;
  INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
    VALUES ('grant:' || p_request, 'grant', p_hash, p_body, '{}', p_now) RETURNING id INTO event;
  INSERT INTO ledger.transfer
    (event_id, mode, code, unit, debit_id, debit_class, credit_id, credit_class, amount)
    VALUES (event, 'single', 'funding', 'uUSD', asset, 'stripe_asset', equity, 'equity', p_amount),
      (event, 'single', 'funding', 'uUSD', equity, 'equity', budget, 'budget', p_amount),
      (event, 'single', 'grant', 'uUSD', budget, 'budget', promo, 'user_promo', p_amount);
  RETURN 'granted';
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO darkbloom_billing;
