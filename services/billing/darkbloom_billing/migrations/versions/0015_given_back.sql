-- An extension of a hold is given back while the request goes on with another provider; device logins
-- that are over make room for others; changes of keys are not kept for ever.

-- The pending transfers of one request that are still open: those of its hold, and of extensions that
-- no later one has replaced; none after its end. Without a SET clause, so that the planner can inline
-- it; OFFSET keeps the question one index look-up a leg, and never a join of all transfers.
CREATE OR REPLACE FUNCTION billing.legs(p_request text) RETURNS SETOF ledger.transfer
LANGUAGE sql STABLE AS $$
  -- Request ids have one length, and ';' follows ':', so the range holds this request's keys only.
  -- An array, not a join: two index look-ups, however many rows the planner believes in.
  SELECT t.* FROM ledger.transfer t
  WHERE t.mode = 'pending' AND t.event_id = ANY (ARRAY(
    SELECT e.id FROM ledger.event e
    WHERE e.idem_key >= 'hold:' || p_request AND e.idem_key < 'hold:' || p_request || ';'))
    AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id OFFSET 0)
$$;

-- Raise one hold to p_total. Extensions are numbered from 1 without gaps. The cap is that of the
-- window in which the hold was placed. With p_replaces the extensions before it are over, because
-- their providers failed: the hold becomes the larger of its first amount and p_total, and what they
-- held beyond that is free again. That may be less than before, and then it always succeeds.
DROP FUNCTION billing.extend_hold(text, int, bigint, bytea, jsonb, timestamptz);
CREATE FUNCTION billing.extend_hold(
  p_request text, p_extension int, p_total bigint, p_hash bytea, p_body jsonb, p_now timestamptz,
  p_replaces boolean DEFAULT false)
RETURNS TABLE (status text, required bigint, available bigint, body jsonb, expires_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  hold record;
  b record;
  a record;
  held bigint;
  kept bigint;
  extra bigint;
  cap_left bigint;
  event bigint;
BEGIN
  available := 0; required := 0;
  SELECT e.id, e.body INTO hold FROM ledger.event e WHERE e.idem_key = 'hold:' || p_request;
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

  SELECT coalesce(sum(t.amount), 0),
      coalesce(sum(t.amount) FILTER (WHERE t.event_id = hold.id OR NOT p_replaces), 0)
    INTO held, kept FROM billing.legs(p_request) t WHERE t.unit = 'uUSD';
  extra := greatest(p_total - kept, 0);
  SELECT * INTO b FROM billing.balance(a.account_id);
  IF kept + extra > held THEN
    required := kept + extra - held;
    IF billing.frozen(a.account_id) THEN
      status := 'frozen'; RETURN NEXT; RETURN;
    END IF;
    IF a.cap_id IS NOT NULL THEN
      SELECT least(c.cr, coalesce(k.limit_micros - w.prior_micros, c.cr)) - c.dr - c.dr_pend
        INTO cap_left FROM ledger.account c JOIN billing.cap_window w ON w.cap_id = c.id
        LEFT JOIN billing.api_key k ON k.key_id = w.key_id
        WHERE c.id = a.cap_id;
      IF cap_left < required THEN
        status := 'capped'; available := greatest(cap_left, 0); RETURN NEXT; RETURN;
      END IF;
    END IF;
    IF b.promo + b.credit + b.earned < required THEN
      status := 'short'; available := b.promo + b.credit + b.earned; RETURN NEXT; RETURN;
    END IF;
  END IF;

  body := p_body || jsonb_build_object('amount', kept + extra);
  INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
    VALUES ('hold:' || p_request || ':' || p_extension, 'extend', p_hash, body, '{}', p_now)
    RETURNING id INTO event;
  IF kept + extra <> held THEN
    IF kept < held THEN
      INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
          credit_id, credit_class, amount, pending_id)
        SELECT event, 'void', t.code, t.unit, t.debit_id, t.debit_class,
          t.credit_id, t.credit_class, t.amount, t.id
        FROM billing.legs(p_request) t WHERE t.event_id <> hold.id ORDER BY t.id;
      SELECT * INTO b FROM billing.balance(a.account_id);
    END IF;
    PERFORM billing.reserve(event, extra, b.promo, b.credit,
      a.promo_id, a.credit_id, a.earned_id, a.charge_id, a.cap_id, a.cap_sink_id);
  END IF;
  status := 'held';
  RETURN NEXT;
END $$;

-- As before, but what is held is what the last extension says: it may have given something back.
CREATE OR REPLACE FUNCTION billing.settle_context(p_request text[], p_identity bytea[])
RETURNS TABLE (
  n bigint, bodies jsonb[], held_at timestamptz, amount bigint, payee text, resolved boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
  SELECT i.n, h.bodies, h.held_at, (h.bodies[cardinality(h.bodies)] -> 'amount')::bigint,
    CASE WHEN l.linked_at <= h.held_at THEN l.account_id ELSE coalesce(
      (SELECT p.account_id FROM billing.past_link p
        WHERE p.identity_key = i.identity_key AND p.linked_at <= h.held_at
          AND p.unlinked_at > h.held_at - interval '10 minutes'
        ORDER BY p.linked_at DESC LIMIT 1), l.account_id) END,
    r.id IS NOT NULL
  FROM unnest(p_request, p_identity) WITH ORDINALITY AS i (request_id, identity_key, n)
  LEFT JOIN billing.provider_link l ON l.identity_key = i.identity_key
  LEFT JOIN ledger.event r ON r.idem_key = 'resolve:' || i.request_id
  LEFT JOIN LATERAL (
    SELECT array_agg(e.body ORDER BY e.id) AS bodies, min(e.occurred_at) AS held_at
    FROM ledger.event e
    WHERE e.idem_key >= 'hold:' || i.request_id AND e.idem_key < 'hold:' || i.request_id || ';'
  ) h ON true
  ORDER BY i.n
$$;

-- Device logins --------------------------------------------------------------------------------------

-- Only those that may still be decided on or picked up count against a network: an owner who signs in a
-- shelf of machines one by one is not held up by those that are done.
CREATE OR REPLACE FUNCTION billing.open_device_code(
  p_hash bytea, p_user_code text, p_machine text, p_source bytea, p_now timestamptz,
  p_until timestamptz, p_next_poll timestamptz, p_per_source bigint, p_all bigint)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('device_code', 0));
  IF EXISTS (SELECT FROM billing.device_code d WHERE d.code_hash = p_hash) THEN
    RETURN 'opened';
  END IF;
  IF (SELECT count(*) FROM billing.device_code d WHERE d.source = p_source
      AND d.expires_at > p_now AND d.state IN ('pending', 'approved')) >= p_per_source
    OR (SELECT count(*) FROM (SELECT FROM billing.device_code d
      WHERE d.expires_at > p_now LIMIT p_all) AS open) >= p_all THEN
    RETURN 'full';
  END IF;
  INSERT INTO billing.device_code (code_hash, user_code, machine_name, source, created_at,
      expires_at, next_poll_at)
    VALUES (p_hash, p_user_code, p_machine, p_source, p_now, p_until, p_next_poll)
    ON CONFLICT (user_code) DO NOTHING;
  RETURN CASE WHEN FOUND THEN 'opened' ELSE 'taken' END;
END $$;

-- What is kept for a time ----------------------------------------------------------------------------

-- A watcher begins with a reset, and a replica reads on from where it is: nobody needs changes of keys
-- that are days old. A replica that finds a gap tells its watchers to forget everything.
ALTER TABLE billing.key_change ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();

CREATE OR REPLACE FUNCTION billing.forget_finished(p_before timestamptz, p_limit int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  before timestamptz := least(p_before, now() - interval '7 days');
  gone bigint;
BEGIN
  WITH jobs AS (
    DELETE FROM billing.outbox o WHERE o.id = ANY (ARRAY(
      SELECT d.id FROM billing.outbox d WHERE d.done_at < before
      ORDER BY d.done_at LIMIT p_limit FOR UPDATE SKIP LOCKED)) RETURNING 1),
  events AS (
    DELETE FROM billing.stripe_event e WHERE e.event_id = ANY (ARRAY(
      SELECT d.event_id FROM billing.stripe_event d WHERE d.state = 'done' AND d.received_at < before
      ORDER BY d.received_at LIMIT p_limit FOR UPDATE SKIP LOCKED)) RETURNING 1),
  changes AS (
    -- Generations are in the order of time.
    DELETE FROM billing.key_change c WHERE c.changed_at < before AND c.generation = ANY (ARRAY(
      SELECT d.generation FROM billing.key_change d ORDER BY d.generation LIMIT p_limit)) RETURNING 1)
  SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM events) + (SELECT count(*) FROM changes)
    INTO gone;
  RETURN gone;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO darkbloom_billing;
