CREATE SCHEMA billing;

CREATE SCHEMA ledger;

CREATE FUNCTION billing.balance(p_account text) RETURNS TABLE(promo bigint, credit bigint, earned bigint, held bigint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
  SELECT p.cr - p.dr - p.dr_pend, c.cr - c.dr - c.dr_pend, e.cr - e.dr - e.dr_pend,
         p.dr_pend + c.dr_pend + e.dr_pend
  FROM billing.account a
  JOIN ledger.account p ON p.id = a.promo_id
  JOIN ledger.account c ON c.id = a.credit_id
  JOIN ledger.account e ON e.id = a.earned_id
  WHERE a.account_id = p_account
$$;

CREATE FUNCTION billing.close_account(p_account text, p_now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  UPDATE billing.account SET closing_at = p_now
    WHERE account_id = p_account AND closing_at IS NULL;
  UPDATE billing.api_key SET revoked_at = p_now
    WHERE account_id = p_account AND revoked_at IS NULL;
  UPDATE billing.provider_token SET revoked_at = p_now
    WHERE account_id = p_account AND revoked_at IS NULL;
  PERFORM billing.unlink(p_account, NULL, p_now);
END $$;

CREATE FUNCTION billing.count_erasure(p_account text) RETURNS TABLE(rule text, affected bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
  r billing.erasure_rule;
BEGIN
  FOR r IN SELECT * FROM billing.erasure_rule ORDER BY position LOOP
    rule := r.rule;
    EXECUTE format('SELECT count(*) FROM billing.%I WHERE %s', r.relation, r.predicate)
      INTO affected USING p_account;
    RETURN NEXT;
  END LOOP;
END $$;

CREATE FUNCTION billing.count_work(p_limit integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
  counted bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('billing.count_work', 0)) THEN
    RETURN 0;
  END IF;
  WITH taken AS (
    DELETE FROM billing.uncounted u
    WHERE u.ctid = ANY (ARRAY(SELECT w.ctid FROM billing.uncounted w LIMIT p_limit))
    RETURNING u.request_id, u.transfer_id
  ), item AS MATERIALIZED (
    SELECT e.account_id, e.settled_at AS at, e.identity_key, e.build, e.amount_micros AS work,
           0::bigint AS reward, e.prompt_tokens::bigint AS prompt,
           e.completion_tokens::bigint AS completion, 1::bigint AS jobs
    FROM taken JOIN billing.earning e ON e.request_id = taken.request_id
    UNION ALL
    SELECT split_part(a.path, ':', 2), v.occurred_at, ''::bytea, '', 0, t.amount, 0, 0, 0
    FROM taken JOIN ledger.transfer t ON t.id = taken.transfer_id
    JOIN ledger.account a ON a.id = t.credit_id JOIN ledger.event v ON v.id = t.event_id
  ), by_hour AS (
    INSERT INTO billing.work_hour AS r
    SELECT i.account_id, date_trunc('hour', i.at, 'UTC'), sum(i.work), sum(i.reward),
           sum(i.prompt), sum(i.completion), sum(i.jobs)
    FROM item i GROUP BY 1, 2
    ON CONFLICT (account_id, hour) DO UPDATE SET
      work_micros = r.work_micros + EXCLUDED.work_micros,
      reward_micros = r.reward_micros + EXCLUDED.reward_micros,
      prompt_tokens = r.prompt_tokens + EXCLUDED.prompt_tokens,
      completion_tokens = r.completion_tokens + EXCLUDED.completion_tokens,
      jobs = r.jobs + EXCLUDED.jobs
  ), by_day AS (
    INSERT INTO billing.work_day AS r
    SELECT i.account_id, (i.at AT TIME ZONE 'UTC')::date, i.identity_key, i.build, sum(i.work),
           sum(i.reward), sum(i.prompt), sum(i.completion), sum(i.jobs)
    FROM item i GROUP BY 1, 2, 3, 4
    ON CONFLICT (account_id, day, identity_key, build) DO UPDATE SET
      work_micros = r.work_micros + EXCLUDED.work_micros,
      reward_micros = r.reward_micros + EXCLUDED.reward_micros,
      prompt_tokens = r.prompt_tokens + EXCLUDED.prompt_tokens,
      completion_tokens = r.completion_tokens + EXCLUDED.completion_tokens,
      jobs = r.jobs + EXCLUDED.jobs
  ), by_life AS (
    INSERT INTO billing.work_life AS r
    SELECT i.account_id, i.identity_key, sum(i.work), sum(i.reward), sum(i.prompt),
           sum(i.completion), sum(i.jobs)
    FROM item i GROUP BY 1, 2
    ON CONFLICT (account_id, identity_key) DO UPDATE SET
      work_micros = r.work_micros + EXCLUDED.work_micros,
      reward_micros = r.reward_micros + EXCLUDED.reward_micros,
      prompt_tokens = r.prompt_tokens + EXCLUDED.prompt_tokens,
      completion_tokens = r.completion_tokens + EXCLUDED.completion_tokens,
      jobs = r.jobs + EXCLUDED.jobs
  ), by_minute AS (
    INSERT INTO billing.work_minute AS r
    SELECT date_trunc('minute', i.at, 'UTC'), sum(i.prompt), sum(i.completion), sum(i.jobs)
    FROM item i WHERE i.jobs > 0 GROUP BY 1
    ON CONFLICT (minute) DO UPDATE SET
      prompt_tokens = r.prompt_tokens + EXCLUDED.prompt_tokens,
      completion_tokens = r.completion_tokens + EXCLUDED.completion_tokens,
      jobs = r.jobs + EXCLUDED.jobs
  )
  SELECT count(*) INTO counted FROM taken;
  RETURN counted;
END $$;

CREATE FUNCTION billing.create_account(p_account text, p_name text, p_now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.create_full_key(p_key text, p_account text, p_hash bytea, p_name text, p_label text, p_models text[], p_limit bigint, p_reset text, p_rpm integer, p_itpm bigint, p_otpm bigint, p_self boolean, p_expires timestamp with time zone, p_now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  PERFORM billing.create_key(p_key, p_account, p_hash, p_name, p_label, p_models, NULL, p_rpm,
    p_expires, p_now);
  UPDATE billing.api_key k
    SET itpm_limit = p_itpm, otpm_limit = p_otpm, self_route_only = p_self
    WHERE k.key_id = p_key AND (p_itpm IS NOT NULL OR p_otpm IS NOT NULL OR p_self);
  IF p_limit IS NOT NULL OR p_reset <> 'none' THEN
    PERFORM billing.set_cap(p_key, p_limit, p_reset, p_now);
  END IF;
END $$;

CREATE FUNCTION billing.create_key(p_key text, p_account text, p_hash bytea, p_name text, p_label text, p_models text[], p_limit bigint, p_rpm integer, p_expires timestamp with time zone, p_now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.extend_hold(p_request text, p_extension integer, p_total bigint, p_hash bytea, p_body jsonb, p_now timestamp with time zone, p_replaces boolean DEFAULT false) RETURNS TABLE(status text, required bigint, available bigint, body jsonb, expires_at timestamp with time zone)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION billing.fee_path(p_request text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog'
    AS $$
  SELECT 'platform:fees:' || lpad((('x' || left(md5(p_request), 1))::bit(4)::int)::text, 2, '0')
$$;

CREATE FUNCTION billing.first_version_above(p_account bigint, p_dr bigint) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.forget_finished(p_before timestamp with time zone, p_limit integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.frozen(p_account text) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
  SELECT o.dr > o.cr OR a.frozen_at IS NOT NULL
  FROM billing.account a JOIN ledger.account o ON o.id = a.debt_id
  WHERE a.account_id = p_account
$$;

CREATE FUNCTION billing.fund_window(p_key text, p_now timestamp with time zone, p_recount boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.funded_by(p_event_key text) RETURNS TABLE(request_id text, account_id text, overlap bigint, charge bigint, free bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.grant_history() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'darkbloom_reader') THEN
    RETURN false;
  END IF;
  GRANT USAGE ON SCHEMA ledger, billing TO darkbloom_reader;
  GRANT SELECT ON ledger.account, ledger.event, ledger.transfer, ledger.posting, ledger.block,
    billing.usage, billing.earning, billing.bonus TO darkbloom_reader;
  GRANT SELECT (withdrawal_id, account_id, amount_micros, fee_micros, net_micros, method, status,
    failure_reason, created_at, updated_at) ON billing.withdrawal TO darkbloom_reader;
  RETURN true;
END $$;

CREATE FUNCTION billing.hold_many(p_request text[], p_account text[], p_key text[], p_amount bigint[], p_hash bytea[], p_body jsonb[], p_now timestamp with time zone, p_lease_until timestamp with time zone) RETURNS TABLE(n bigint, status text, available bigint, body jsonb, held_at timestamp with time zone, expires_at timestamp with time zone)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION billing.judge_device_code(p_user_code text, p_account text, p_decision text, p_now timestamp with time zone, p_misses integer, p_forget timestamp with time zone) RETURNS TABLE(verdict text, machine_name text, state text, created_at timestamp with time zone, expires_at timestamp with time zone)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
#variable_conflict use_column
DECLARE
  d billing.device_code;
  g billing.device_guess;
BEGIN
  SELECT * INTO g FROM billing.device_guess x WHERE x.account_id = p_account;
  IF g.misses >= p_misses AND g.since > p_forget THEN
    RETURN QUERY SELECT 'slow_down', NULL, NULL, g.since, NULL::timestamptz; RETURN;
  END IF;
  SELECT * INTO d FROM billing.device_code c WHERE c.user_code = p_user_code FOR UPDATE;
  IF NOT FOUND THEN
    INSERT INTO billing.device_guess AS x VALUES (p_account, 1, p_now)
      ON CONFLICT (account_id) DO UPDATE SET
        misses = CASE WHEN x.since > p_forget THEN x.misses + 1 ELSE 1 END,
        since = CASE WHEN x.since > p_forget THEN x.since ELSE p_now END;
    RETURN;
  END IF;
  IF d.expires_at <= p_now THEN
    RETURN QUERY SELECT 'expired', d.machine_name, d.state, d.created_at, d.expires_at; RETURN;
  END IF;
  -- The same owner saying the same again, before the machine came back, changes nothing.
  IF p_decision <> '' AND d.state <> 'pending'
    AND (d.account_id, d.state) IS DISTINCT FROM (p_account, p_decision) THEN
    RETURN QUERY SELECT 'used', d.machine_name, d.state, d.created_at, d.expires_at; RETURN;
  END IF;
  IF p_decision <> '' AND d.state = 'pending' THEN
    UPDATE billing.device_code c SET state = p_decision, account_id = p_account
      WHERE c.code_hash = d.code_hash RETURNING * INTO d;
  END IF;
  RETURN QUERY SELECT 'known', d.machine_name, d.state, d.created_at, d.expires_at;
END $$;

CREATE FUNCTION billing.key_spend(p_keys text[], p_now timestamp with time zone) RETURNS TABLE(key_id text, limit_micros bigint, reset text, window_start timestamp with time zone, usage_micros bigint, held_micros bigint, remaining_micros bigint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE TABLE ledger.transfer (
    id bigint NOT NULL,
    event_id bigint NOT NULL,
    mode text NOT NULL,
    code text NOT NULL,
    unit text NOT NULL,
    debit_id bigint NOT NULL,
    debit_class text NOT NULL,
    credit_id bigint NOT NULL,
    credit_class text NOT NULL,
    amount bigint NOT NULL,
    pending_id bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT transfer_amount_check CHECK ((amount > 0)),
    CONSTRAINT transfer_check CHECK ((debit_id <> credit_id)),
    CONSTRAINT transfer_check1 CHECK (((mode = ANY (ARRAY['post'::text, 'void'::text])) = (pending_id IS NOT NULL))),
    CONSTRAINT transfer_mode_check CHECK ((mode = ANY (ARRAY['single'::text, 'pending'::text, 'post'::text, 'void'::text])))
);

CREATE FUNCTION billing.legs(p_request text) RETURNS SETOF ledger.transfer
    LANGUAGE sql STABLE
    AS $$
  -- Request ids have one length, and ';' follows ':', so the range holds this request's keys only.
  -- An array, not a join: two index look-ups, however many rows the planner believes in.
  SELECT t.* FROM ledger.transfer t
  WHERE t.mode = 'pending' AND t.event_id = ANY (ARRAY(
    SELECT e.id FROM ledger.event e
    WHERE e.idem_key >= 'hold:' || p_request AND e.idem_key < 'hold:' || p_request || ';'))
    AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id OFFSET 0)
$$;

CREATE FUNCTION billing.note_account_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  PERFORM billing.note_change('', '', NEW.account_id);
  RETURN NULL;
END $$;

CREATE FUNCTION billing.note_change(p_key text, p_hash bytea, p_account text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
  next bigint;
BEGIN
  UPDATE billing.key_generation SET generation = generation + 1 RETURNING generation INTO next;
  INSERT INTO billing.key_change (generation, key_id, key_hash, account_id)
    VALUES (next, p_key, p_hash, p_account);
  PERFORM pg_notify('billing_keys', next::text);
END $$;

CREATE FUNCTION billing.note_key_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.key_hash <> NEW.key_hash THEN
    PERFORM billing.note_change(OLD.key_id, OLD.key_hash, '');
  END IF;
  PERFORM billing.note_change(NEW.key_id, NEW.key_hash, '');
  RETURN NULL;
END $$;

CREATE FUNCTION billing.note_outbox() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  PERFORM pg_notify('billing_outbox', '');
  RETURN NULL;
END $$;

CREATE FUNCTION billing.note_price() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  PERFORM pg_notify('billing_prices', NEW.price_id);
  RETURN NULL;
END $$;

CREATE FUNCTION billing.note_reward() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  INSERT INTO billing.uncounted (transfer_id) VALUES (NEW.id);
  RETURN NULL;
END $$;

CREATE FUNCTION billing.note_role() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  PERFORM pg_notify('billing_prices', NEW.account_id);
  RETURN NULL;
END $$;

CREATE FUNCTION billing.note_work() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  INSERT INTO billing.uncounted (request_id) SELECT f.request_id FROM fresh f;
  RETURN NULL;
END $$;

CREATE FUNCTION billing.open_device_code(p_hash bytea, p_user_code text, p_machine text, p_source bytea, p_now timestamp with time zone, p_until timestamp with time zone, p_next_poll timestamp with time zone, p_per_source bigint, p_all bigint) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.open_log_report(p_report text, p_account text, p_token text, p_size integer, p_now timestamp with time zone, p_until timestamp with time zone, p_kept integer, p_all bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('log_report', 0));
  DELETE FROM billing.log_report r WHERE r.expires_at <= p_now;
  DELETE FROM billing.log_report r WHERE r.report_id IN (
    SELECT x.report_id FROM billing.log_report x WHERE x.account_id = p_account
    ORDER BY x.created_at DESC, x.report_id OFFSET p_kept - 1);
  IF (SELECT coalesce(sum(r.size), 0) FROM billing.log_report r) + p_size > p_all THEN
    RETURN false;
  END IF;
  INSERT INTO billing.log_report VALUES (p_report, p_account, p_token, p_size, p_now, p_until);
  RETURN true;
END $$;

CREATE FUNCTION billing.open_withdrawals(p_account text) RETURNS integer
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
  SELECT count(*)::integer FROM billing.account a
    JOIN ledger.posting p ON p.account_id = a.earned_id AND p.side = 'D'
    JOIN ledger.transfer t ON t.id = p.transfer_id AND t.mode = 'pending' AND t.code = 'withdrawal'
    WHERE a.account_id = p_account
      AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id)
$$;

CREATE FUNCTION billing.poll_device_code(p_hash bytea, p_now timestamp with time zone, p_next_poll timestamp with time zone, p_token text, p_token_hash bytea) RETURNS TABLE(state text, account_id text, wait_until timestamp with time zone)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
#variable_conflict use_column
DECLARE
  d billing.device_code;
BEGIN
  SELECT * INTO d FROM billing.device_code c WHERE c.code_hash = p_hash FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF d.state = 'consumed' THEN
    IF EXISTS (SELECT FROM billing.provider_token t WHERE t.token_hash = p_token_hash) THEN
      RETURN QUERY SELECT 'consumed', d.account_id, NULL::timestamptz;
    END IF;
    RETURN;
  END IF;
  IF d.expires_at <= p_now THEN
    RETURN QUERY SELECT 'expired', NULL, NULL::timestamptz; RETURN;
  END IF;
  IF d.next_poll_at > p_now THEN
    RETURN QUERY SELECT 'early', NULL, d.next_poll_at; RETURN;
  END IF;
  IF d.state = 'approved' THEN
    INSERT INTO billing.provider_token VALUES (p_token, d.account_id, p_token_hash,
      'device-' || d.user_code, d.machine_name, p_now);
    UPDATE billing.device_code c SET state = 'consumed' WHERE c.code_hash = p_hash;
    RETURN QUERY SELECT 'consumed', d.account_id, NULL::timestamptz; RETURN;
  END IF;
  UPDATE billing.device_code c SET next_poll_at = p_next_poll WHERE c.code_hash = p_hash;
  RETURN QUERY SELECT d.state, NULL, NULL::timestamptz;
END $$;

CREATE FUNCTION billing.related(p_payer text, p_payee text) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
  SELECT p_payer = p_payee OR EXISTS (
    SELECT FROM billing.fingerprint a JOIN billing.fingerprint b USING (kind, hash)
    WHERE a.account_id = p_payer AND b.account_id = p_payee)
$$;

CREATE FUNCTION billing.reopen_account(p_account text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  UPDATE billing.account SET closing_at = NULL WHERE account_id = p_account;
END $$;

CREATE FUNCTION billing.reserve(p_event bigint, p_amount bigint, p_promo bigint, p_credit bigint, p_promo_id bigint, p_credit_id bigint, p_earned_id bigint, p_charge_id bigint, p_cap_id bigint, p_cap_sink_id bigint) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.resolve_many(p_request text[], p_kind text[], p_charge bigint[], p_payee text[], p_hash bytea[], p_body jsonb[], p_now timestamp with time zone) RETURNS TABLE(n bigint, status text, result jsonb)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
  PERFORM ledger.lock_accounts(ARRAY(
    SELECT unnest(ARRAY[t.debit_id, t.credit_id, v.id])
      FROM unnest(p_request) AS i (request_id)
      CROSS JOIN LATERAL billing.legs(i.request_id) t
      LEFT JOIN billing.account f ON f.charge_id = t.credit_id AND f.platform_fee_percent > 0
      LEFT JOIN ledger.account v
        ON f.account_id IS NOT NULL AND v.path = billing.fee_path(i.request_id)
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
      coalesce(p.platform_fee_percent, 0)::bigint AS percent,
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
    LEFT JOIN billing.account p ON p.charge_id = s.charge_id AND p.platform_fee_percent > 0
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
  split AS (
    SELECT j.*, j.paid * j.percent / 100 AS fee
    FROM judged j WHERE j.status IN ('settled', 'released')),
  ending AS MATERIALIZED (
    SELECT j.*, j.paid - j.fee AS credit, nextval('ledger.event_id_seq') AS event_id,
      jsonb_build_object('charge', j.paid, 'credit', j.paid - j.fee,
        'prompt_tokens', coalesce(j.body -> 'prompt_tokens', '0'),
        'completion_tokens', coalesce(j.body -> 'completion_tokens', '0'))
      || CASE WHEN j.percent > 0 AND j.paid > 0 THEN jsonb_build_object('fee_percent', j.percent)
        ELSE '{}' END AS result
    FROM split j),
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
        e.payee_id, 'user_maturing', e.credit, NULL
      FROM ending e WHERE e.credit > 0
      UNION ALL
      SELECT e.n, NULL, e.event_id, 'single', 'fee', 'uUSD', e.charge_id, 'user_charge',
        v.id, 'revenue', e.fee, NULL
      FROM ending e JOIN ledger.account v ON v.path = billing.fee_path(e.request_id)
      WHERE e.fee > 0) m
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
    SELECT e.request_id, e.payee, coalesce(e.body ->> 'build', e.hold ->> 'build'), e.credit,
      (e.body -> 'prompt_tokens')::int,
      (e.body -> 'completion_tokens')::int, decode(e.body ->> 'identity_key', 'hex'), p_now
    FROM ending e WHERE e.credit > 0)
  SELECT j.n, j.status, coalesce(CASE j.status WHEN 'replayed' THEN j.stored ELSE e.result END, '{}')
  FROM judged j LEFT JOIN ending e ON e.n = j.n;
END $$;

CREATE FUNCTION billing.scrub(p_erasure text) RETURNS TABLE(rule text, affected bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
  r billing.erasure_rule;
  who text;
  counted bigint;
BEGIN
  SELECT e.account_id INTO who FROM billing.erasure e
    WHERE e.erasure_id = p_erasure AND e.state = 'pending';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'erasure % is not confirmed', p_erasure USING ERRCODE = 'LG007';
  END IF;
  -- What Stripe keeps of them is asked of Stripe, at least once, after this commits.
  INSERT INTO billing.outbox (kind, key, payload, created_at, due_at)
    SELECT 'erase.stripe_customer', c.customer_id,
      jsonb_build_object('erasure_id', p_erasure, 'customer_id', c.customer_id), now(), now()
    FROM billing.stripe_customer c WHERE c.account_id = who
    UNION ALL
    SELECT 'erase.stripe_account', a.stripe_account_id,
      jsonb_build_object('erasure_id', p_erasure, 'stripe_account_id', a.stripe_account_id),
      now(), now()
    FROM billing.stripe_account a WHERE a.account_id = who
    ON CONFLICT (kind, key) DO NOTHING;
  FOR r IN SELECT * FROM billing.erasure_rule ORDER BY position LOOP
    rule := r.rule;
    EXECUTE format('SELECT count(*) FROM billing.%I WHERE %s', r.relation, r.predicate)
      INTO counted USING who;
    EXECUTE CASE WHEN r.assignment IS NULL
      THEN format('DELETE FROM billing.%I WHERE %s', r.relation, r.predicate)
      ELSE format('UPDATE billing.%I SET %s WHERE %s', r.relation, r.assignment, r.predicate)
      END USING who;
    GET DIAGNOSTICS affected = ROW_COUNT;
    IF affected <> counted THEN
      RAISE EXCEPTION 'rule % counted % and changed % rows', r.rule, counted, affected
        USING ERRCODE = 'LG007';
    END IF;
    RETURN NEXT;
  END LOOP;
END $$;

CREATE FUNCTION billing.set_cap(p_key text, p_limit bigint, p_reset text, p_now timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.settle_context(p_request text[], p_identity bytea[]) RETURNS TABLE(n bigint, bodies jsonb[], held_at timestamp with time zone, amount bigint, payee text, resolved boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE TABLE billing.app_user (
    user_id text NOT NULL,
    issuer text NOT NULL,
    subject text NOT NULL,
    account_id text NOT NULL,
    email text NOT NULL,
    email_verified boolean NOT NULL,
    created_at timestamp with time zone NOT NULL
);

CREATE FUNCTION billing.sign_in(p_issuer text, p_subject text, p_email text, p_verified boolean, p_name text, p_user text, p_account text, p_now timestamp with time zone) RETURNS SETOF billing.app_user
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
  u billing.app_user;
BEGIN
  SELECT * INTO u FROM billing.app_user a WHERE a.issuer = p_issuer AND a.subject = p_subject;
  IF NOT FOUND THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('user:' || p_issuer || chr(10) || p_subject, 0));
    SELECT * INTO u FROM billing.app_user a WHERE a.issuer = p_issuer AND a.subject = p_subject;
    IF NOT FOUND THEN
      PERFORM billing.create_account(p_account, p_name, p_now);
      INSERT INTO billing.app_user
        VALUES (p_user, p_issuer, p_subject, p_account, p_email, p_verified, p_now)
        RETURNING * INTO u;
    END IF;
  END IF;
  IF (u.email, u.email_verified) IS DISTINCT FROM (p_email, p_verified) THEN
    UPDATE billing.app_user a SET email = p_email, email_verified = p_verified
      WHERE a.user_id = u.user_id RETURNING * INTO u;
  END IF;
  RETURN NEXT u;
END $$;

CREATE FUNCTION billing.unlink(p_account text, p_identity bytea, p_now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
DECLARE
  gone integer;
BEGIN
  WITH left_now AS (
    DELETE FROM billing.provider_link l
      WHERE l.account_id = p_account AND (p_identity IS NULL OR l.identity_key = p_identity)
      RETURNING l.*),
  noted AS (
    INSERT INTO billing.past_link
      SELECT l.identity_key, l.account_id, l.linked_at, greatest(p_now, l.linked_at) FROM left_now l
      ON CONFLICT DO NOTHING)
  SELECT count(*) INTO gone FROM left_now;
  IF gone > 0 THEN
    -- Gateways remember which machines an account has.
    PERFORM billing.note_change('', '', p_account);
  END IF;
  RETURN gone;
END $$;

CREATE FUNCTION billing.use_link_challenge(p_hash bytea, p_account text, p_identity bytea, p_now timestamp with time zone) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog'
    AS $$
  WITH used AS (DELETE FROM billing.link_challenge c WHERE c.nonce_hash = p_hash
    RETURNING c.account_id, c.identity_key, c.expires_at)
  SELECT EXISTS (SELECT FROM used u WHERE u.account_id = p_account
    AND u.identity_key = p_identity AND u.expires_at > p_now)
$$;

CREATE FUNCTION billing.wallets(p_account text) RETURNS TABLE(promo bigint, credit bigint, earned bigint, held bigint, maturing bigint, disputed bigint, debt bigint, frozen boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog'
    AS $$
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

CREATE FUNCTION billing.window_name(p_reset text, p_now timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$
  SELECT CASE p_reset WHEN 'none' THEN 'lifetime'
    ELSE p_reset || ':' || (billing.window_start(p_reset, p_now) AT TIME ZONE 'UTC')::date END
$$;

CREATE FUNCTION billing.window_start(p_reset text, p_now timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE
    AS $$
  SELECT CASE p_reset
    WHEN 'daily' THEN date_trunc('day', p_now, 'UTC')
    WHEN 'weekly' THEN date_trunc('week', p_now, 'UTC')
    WHEN 'monthly' THEN date_trunc('month', p_now, 'UTC')
    ELSE '-infinity'::timestamptz END
$$;

CREATE FUNCTION ledger.apply_transfers() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION ledger.check_account() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
  a ledger.account;
BEGIN
  IF NEW.version > 0 AND NOT EXISTS (
      SELECT 1 FROM ledger.posting p WHERE p.account_id = NEW.id AND p.version = NEW.version
      AND (p.dr, p.cr, p.dr_pend, p.cr_pend) = (NEW.dr, NEW.cr, NEW.dr_pend, NEW.cr_pend)) THEN
    RAISE EXCEPTION 'account % moved without a posting', NEW.path USING ERRCODE = 'LG004';
  END IF;
  IF NEW.zero_at_commit THEN
    SELECT * INTO a FROM ledger.account WHERE id = NEW.id;
    IF a.dr <> a.cr THEN
      RAISE EXCEPTION 'clearing account % not empty at commit', a.path USING ERRCODE = 'LG005';
    END IF;
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.guard_account() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION ledger.lock_accounts(ids bigint[]) RETURNS SETOF bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    AS $$
  SELECT id FROM ledger.account WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE
$$;

CREATE FUNCTION ledger.refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  RAISE EXCEPTION '% on % refused: append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LG006';
END $$;

CREATE TABLE billing.account (
    account_id text NOT NULL,
    display_name text NOT NULL,
    role text DEFAULT ''::text NOT NULL,
    promo_id bigint NOT NULL,
    credit_id bigint NOT NULL,
    earned_id bigint NOT NULL,
    charge_id bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    maturing_id bigint NOT NULL,
    disputed_id bigint NOT NULL,
    debt_id bigint NOT NULL,
    frozen_at timestamp with time zone,
    closing_at timestamp with time zone,
    platform_fee_percent smallint,
    CONSTRAINT account_platform_fee_percent_check CHECK (((platform_fee_percent >= 0) AND (platform_fee_percent <= 100))),
    CONSTRAINT account_role_check CHECK ((role = ANY (ARRAY[''::text, 'service'::text])))
);

CREATE TABLE billing.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE billing.api_key (
    key_id text NOT NULL,
    account_id text NOT NULL,
    key_hash bytea NOT NULL,
    name text NOT NULL,
    label text NOT NULL,
    allowed_models text[] NOT NULL,
    limit_micros bigint,
    rpm_limit integer,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    limit_reset text DEFAULT 'none'::text NOT NULL,
    itpm_limit bigint,
    otpm_limit bigint,
    self_route_only boolean DEFAULT false NOT NULL,
    disabled boolean DEFAULT false NOT NULL,
    CONSTRAINT api_key_itpm_limit_check CHECK ((itpm_limit >= 0)),
    CONSTRAINT api_key_key_hash_check CHECK ((length(key_hash) = 32)),
    CONSTRAINT api_key_limit_micros_check CHECK ((limit_micros >= 0)),
    CONSTRAINT api_key_limit_reset_check CHECK ((limit_reset = ANY (ARRAY['none'::text, 'daily'::text, 'weekly'::text, 'monthly'::text]))),
    CONSTRAINT api_key_otpm_limit_check CHECK ((otpm_limit >= 0)),
    CONSTRAINT api_key_rpm_limit_check CHECK ((rpm_limit >= 0))
);

CREATE TABLE billing.api_key_use (
    key_id text NOT NULL,
    used_at timestamp with time zone NOT NULL
);

CREATE TABLE billing.audit_mark (
    account_id bigint NOT NULL,
    version bigint NOT NULL,
    dr bigint NOT NULL,
    cr bigint NOT NULL,
    dr_pend bigint NOT NULL,
    cr_pend bigint NOT NULL
);

CREATE TABLE billing.audit_state (
    only_row boolean DEFAULT true NOT NULL,
    last_event bigint DEFAULT 0 NOT NULL,
    last_block bigint DEFAULT 0 NOT NULL,
    violations jsonb DEFAULT '[]'::jsonb NOT NULL,
    checked_at timestamp with time zone,
    full_at timestamp with time zone,
    CONSTRAINT audit_state_only_row_check CHECK (only_row)
);

CREATE TABLE billing.auto_top_up (
    account_id text NOT NULL,
    enabled boolean NOT NULL,
    threshold_micros bigint NOT NULL,
    amount_micros bigint NOT NULL,
    monthly_cap_micros bigint NOT NULL,
    disabled_reason text DEFAULT ''::text NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT auto_top_up_amount_micros_check CHECK (((amount_micros > 0) AND ((amount_micros % (10000)::bigint) = 0))),
    CONSTRAINT auto_top_up_check CHECK ((monthly_cap_micros >= amount_micros)),
    CONSTRAINT auto_top_up_threshold_micros_check CHECK ((threshold_micros >= 0))
);

CREATE TABLE billing.bonus (
    bonus_id text NOT NULL,
    account_id text NOT NULL,
    amount_micros bigint NOT NULL,
    lost_micros bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    matures_at timestamp with time zone NOT NULL,
    matured_at timestamp with time zone,
    CONSTRAINT bonus_amount_micros_check CHECK ((amount_micros > 0)),
    CONSTRAINT bonus_check CHECK (((lost_micros >= 0) AND (lost_micros <= amount_micros)))
);

CREATE TABLE billing.budget_funding (
    funding_id text NOT NULL,
    request_id text NOT NULL,
    budget text NOT NULL,
    amount_micros bigint NOT NULL,
    proposed_by text NOT NULL,
    proposed_at timestamp with time zone NOT NULL,
    approved_by text,
    approved_at timestamp with time zone,
    CONSTRAINT budget_funding_amount_micros_check CHECK ((amount_micros > 0)),
    CONSTRAINT budget_funding_check CHECK (((approved_by IS NULL) = (approved_at IS NULL))),
    CONSTRAINT two_persons CHECK ((approved_by <> proposed_by))
);

CREATE TABLE billing.cap_window (
    key_id text NOT NULL,
    name text NOT NULL,
    cap_id bigint NOT NULL,
    sink_id bigint NOT NULL,
    source_id bigint NOT NULL,
    prior_micros bigint NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    CONSTRAINT cap_window_prior_micros_check CHECK ((prior_micros >= 0))
);

CREATE TABLE ledger.account (
    id bigint NOT NULL,
    path text NOT NULL,
    class text NOT NULL,
    unit text DEFAULT 'uUSD'::text NOT NULL,
    normal "char" NOT NULL,
    floor_zero boolean DEFAULT true NOT NULL,
    zero_at_commit boolean DEFAULT false NOT NULL,
    closed boolean DEFAULT false NOT NULL,
    dr bigint DEFAULT 0 NOT NULL,
    cr bigint DEFAULT 0 NOT NULL,
    dr_pend bigint DEFAULT 0 NOT NULL,
    cr_pend bigint DEFAULT 0 NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    CONSTRAINT account_check CHECK ((floor_zero OR (class = 'equity'::text))),
    CONSTRAINT account_cr_check CHECK ((cr >= 0)),
    CONSTRAINT account_cr_pend_check CHECK ((cr_pend >= 0)),
    CONSTRAINT account_dr_check CHECK ((dr >= 0)),
    CONSTRAINT account_dr_pend_check CHECK ((dr_pend >= 0)),
    CONSTRAINT account_normal_check CHECK ((normal = ANY (ARRAY['D'::"char", 'C'::"char"]))),
    CONSTRAINT born_empty CHECK (((version > 0) OR ((((dr + cr) + dr_pend) + cr_pend) = 0))),
    CONSTRAINT no_overdraft CHECK (((NOT floor_zero) OR
CASE normal
    WHEN 'C'::"char" THEN ((dr + dr_pend) <= cr)
    ELSE ((cr + cr_pend) <= dr)
END))
)
WITH (fillfactor='50');

CREATE VIEW billing.changed_accounts AS
 SELECT a.id,
    a.path,
    a.version,
    a.dr,
    a.cr,
    a.dr_pend,
    a.cr_pend,
    COALESCE(m.version, (0)::bigint) AS seen,
    COALESCE(m.dr, (0)::bigint) AS dr_seen,
    COALESCE(m.cr, (0)::bigint) AS cr_seen,
    COALESCE(m.dr_pend, (0)::bigint) AS dr_pend_seen,
    COALESCE(m.cr_pend, (0)::bigint) AS cr_pend_seen
   FROM (ledger.account a
     LEFT JOIN billing.audit_mark m ON ((m.account_id = a.id)))
  WHERE ((a.version <> COALESCE(m.version, (0)::bigint)) OR ((a.dr <> COALESCE(m.dr, (0)::bigint)) OR (a.cr <> COALESCE(m.cr, (0)::bigint)) OR (a.dr_pend <> COALESCE(m.dr_pend, (0)::bigint)) OR (a.cr_pend <> COALESCE(m.cr_pend, (0)::bigint))));

CREATE TABLE billing.device_code (
    code_hash bytea NOT NULL,
    user_code text NOT NULL,
    machine_name text NOT NULL,
    source bytea NOT NULL,
    state text DEFAULT 'pending'::text NOT NULL,
    account_id text,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    next_poll_at timestamp with time zone NOT NULL,
    CONSTRAINT device_code_check CHECK (((account_id IS NULL) = (state = 'pending'::text))),
    CONSTRAINT device_code_code_hash_check CHECK ((length(code_hash) = 32)),
    CONSTRAINT device_code_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'approved'::text, 'denied'::text, 'consumed'::text])))
);

CREATE TABLE billing.device_guess (
    account_id text NOT NULL,
    misses integer NOT NULL,
    since timestamp with time zone NOT NULL
);

CREATE TABLE billing.dispute_hold (
    dispute_id text NOT NULL,
    request_id text NOT NULL,
    account_id text NOT NULL,
    amount_micros bigint NOT NULL,
    lost_micros bigint DEFAULT 0 NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT dispute_hold_amount_micros_check CHECK ((amount_micros > 0)),
    CONSTRAINT dispute_hold_check CHECK (((lost_micros >= 0) AND (lost_micros <= amount_micros)))
);

CREATE TABLE billing.earning (
    request_id text NOT NULL,
    account_id text NOT NULL,
    build text NOT NULL,
    amount_micros bigint NOT NULL,
    prompt_tokens integer NOT NULL,
    completion_tokens integer NOT NULL,
    identity_key bytea NOT NULL,
    settled_at timestamp with time zone NOT NULL,
    matured_at timestamp with time zone,
    lost_micros bigint DEFAULT 0 NOT NULL,
    CONSTRAINT earning_check CHECK (((lost_micros >= 0) AND (lost_micros <= amount_micros)))
);

CREATE TABLE billing.erasure (
    erasure_id text NOT NULL,
    request_id text NOT NULL,
    account_id text NOT NULL,
    state text NOT NULL,
    token_hash bytea NOT NULL,
    plan jsonb NOT NULL,
    forfeit boolean DEFAULT false NOT NULL,
    planned_at timestamp with time zone NOT NULL,
    scrub_after timestamp with time zone,
    erased_at timestamp with time zone,
    forfeited_micros bigint DEFAULT 0 NOT NULL,
    proof jsonb,
    CONSTRAINT erasure_state_check CHECK ((state = ANY (ARRAY['planned'::text, 'pending'::text, 'erased'::text, 'canceled'::text]))),
    CONSTRAINT erasure_token_hash_check CHECK ((length(token_hash) = 32))
);

CREATE TABLE billing.erasure_rule (
    "position" integer NOT NULL,
    rule text NOT NULL,
    relation name NOT NULL,
    predicate text NOT NULL,
    assignment text
);

CREATE TABLE billing.fingerprint (
    account_id text NOT NULL,
    kind text NOT NULL,
    hash bytea NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT fingerprint_hash_check CHECK ((length(hash) = 32)),
    CONSTRAINT fingerprint_kind_check CHECK ((kind = ANY (ARRAY['device'::text, 'card'::text, 'bank'::text])))
);

CREATE TABLE billing.invite (
    code text NOT NULL,
    request_id text NOT NULL,
    amount_micros bigint NOT NULL,
    max_uses integer NOT NULL,
    used_count integer DEFAULT 0 NOT NULL,
    active boolean DEFAULT true NOT NULL,
    expires_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT invite_amount_micros_check CHECK ((amount_micros > 0)),
    CONSTRAINT invite_check CHECK (((used_count >= 0) AND (used_count <= max_uses))),
    CONSTRAINT invite_max_uses_check CHECK ((max_uses > 0))
);

CREATE TABLE billing.invite_redemption (
    code text NOT NULL,
    account_id text NOT NULL,
    redeemed_at timestamp with time zone NOT NULL
);

CREATE TABLE billing.key_change (
    generation bigint NOT NULL,
    key_id text NOT NULL,
    key_hash bytea NOT NULL,
    account_id text DEFAULT ''::text NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE billing.key_generation (
    only_row boolean DEFAULT true NOT NULL,
    generation bigint NOT NULL,
    CONSTRAINT key_generation_only_row_check CHECK (only_row)
);

CREATE TABLE billing.lease (
    request_id text NOT NULL,
    lease_until timestamp with time zone NOT NULL
);

CREATE TABLE billing.link_challenge (
    nonce_hash bytea NOT NULL,
    account_id text NOT NULL,
    identity_key bytea NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT link_challenge_nonce_hash_check CHECK ((length(nonce_hash) = 32))
);

CREATE TABLE billing.log_report (
    report_id text NOT NULL,
    account_id text NOT NULL,
    token_id text NOT NULL,
    size integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT log_report_size_check CHECK (((size >= 1) AND (size <= 10485760)))
);

CREATE TABLE billing.log_report_part (
    report_id text NOT NULL,
    number integer NOT NULL,
    content bytea NOT NULL,
    CONSTRAINT log_report_part_content_check CHECK (((length(content) >= 1) AND (length(content) <= 1048576))),
    CONSTRAINT log_report_part_number_check CHECK (((number >= 0) AND (number <= 9)))
);

CREATE TABLE billing.note (
    request_id text NOT NULL,
    account_id text NOT NULL,
    note text NOT NULL,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE billing.operator (
    name text NOT NULL,
    token_hash bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT operator_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT operator_token_hash_check CHECK ((length(token_hash) = 32))
);

CREATE TABLE billing.operator_action (
    action_id bigint NOT NULL,
    operator text NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    request_id text NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT operator_action_source_check CHECK ((source = ANY (ARRAY['http'::text, 'cli'::text, 'development'::text])))
);

ALTER TABLE billing.operator_action ALTER COLUMN action_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing.operator_action_action_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE billing.outbox (
    id bigint NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    payload jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    claimed_until timestamp with time zone,
    attempts integer DEFAULT 0 NOT NULL,
    error text DEFAULT ''::text NOT NULL,
    done_at timestamp with time zone
);

ALTER TABLE billing.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE billing.past_link (
    identity_key bytea NOT NULL,
    account_id text NOT NULL,
    linked_at timestamp with time zone NOT NULL,
    unlinked_at timestamp with time zone NOT NULL,
    CONSTRAINT past_link_check CHECK ((unlinked_at >= linked_at))
);

CREATE TABLE billing.price (
    sequence bigint NOT NULL,
    price_id text NOT NULL,
    request_id text NOT NULL,
    body_hash bytea NOT NULL,
    build text NOT NULL,
    input_micros bigint NOT NULL,
    output_micros bigint NOT NULL,
    cache_read_micros bigint NOT NULL,
    minimum_charge_micros bigint NOT NULL,
    effective_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    account_id text DEFAULT ''::text NOT NULL,
    ended boolean DEFAULT false NOT NULL,
    CONSTRAINT platform_price_never_ends CHECK (((NOT ended) OR (account_id <> ''::text))),
    CONSTRAINT price_check CHECK (((cache_read_micros >= 0) AND (cache_read_micros <= input_micros))),
    CONSTRAINT price_input_micros_check CHECK ((input_micros > 0)),
    CONSTRAINT price_minimum_charge_micros_check CHECK ((minimum_charge_micros >= 0)),
    CONSTRAINT price_output_micros_check CHECK ((output_micros > 0))
);

ALTER TABLE billing.price ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME billing.price_sequence_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE billing.provider_link (
    identity_key bytea NOT NULL,
    account_id text NOT NULL,
    name text NOT NULL,
    linked_at timestamp with time zone NOT NULL,
    CONSTRAINT provider_link_identity_key_check CHECK ((length(identity_key) = 65))
);

CREATE TABLE billing.provider_token (
    token_id text NOT NULL,
    account_id text NOT NULL,
    token_hash bytea NOT NULL,
    label text NOT NULL,
    machine_name text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT provider_token_token_hash_check CHECK ((length(token_hash) = 32))
);

CREATE TABLE billing.pseudonym_key (
    only_row boolean DEFAULT true NOT NULL,
    key bytea NOT NULL,
    CONSTRAINT pseudonym_key_key_check CHECK ((length(key) = 32)),
    CONSTRAINT pseudonym_key_only_row_check CHECK (only_row)
);

CREATE TABLE billing.public_name (
    account_id text NOT NULL,
    name text,
    folded text,
    changed_at timestamp with time zone NOT NULL,
    CONSTRAINT public_name_check CHECK (((name IS NULL) = (folded IS NULL)))
);

COMMENT ON COLUMN billing.public_name.name IS 'NULL: on no board';

CREATE TABLE billing.receipt (
    request_id text NOT NULL,
    document bytea NOT NULL,
    signature bytea NOT NULL,
    key_id text NOT NULL,
    terminal_sha256 text NOT NULL,
    recorded_at timestamp with time zone NOT NULL
);

CREATE TABLE billing.receipt_batch (
    batch_id text NOT NULL,
    root_hash bytea NOT NULL,
    leaves bytea NOT NULL,
    sealed_at timestamp with time zone NOT NULL,
    log_index bigint,
    CONSTRAINT receipt_batch_leaves_check CHECK ((((length(leaves) >= 32) AND (length(leaves) <= 131072)) AND ((length(leaves) % 32) = 0))),
    CONSTRAINT receipt_batch_root_hash_check CHECK ((length(root_hash) = 32))
);

CREATE TABLE billing.receipt_proof (
    request_id text NOT NULL,
    account_id text NOT NULL,
    attempt_id text NOT NULL,
    terminal bytea NOT NULL,
    terminal_signature bytea NOT NULL,
    verdict bytea NOT NULL,
    verdict_signature bytea NOT NULL,
    verdict_key_id text NOT NULL,
    identity_key bytea NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    batch_id text,
    place integer,
    document bytea,
    signature bytea,
    key_id text,
    CONSTRAINT receipt_proof_check CHECK (((batch_id IS NULL) = (place IS NULL))),
    CONSTRAINT receipt_proof_check1 CHECK ((((document IS NULL) = (signature IS NULL)) AND ((document IS NULL) = (key_id IS NULL)))),
    CONSTRAINT receipt_proof_document_check CHECK ((length(document) <= 65536)),
    CONSTRAINT receipt_proof_identity_key_check CHECK ((length(identity_key) <= 65)),
    CONSTRAINT receipt_proof_signature_check CHECK ((length(signature) <= 256)),
    CONSTRAINT receipt_proof_terminal_check CHECK ((length(terminal) <= 65536)),
    CONSTRAINT receipt_proof_terminal_signature_check CHECK ((length(terminal_signature) <= 256)),
    CONSTRAINT receipt_proof_verdict_check CHECK ((length(verdict) <= 65536)),
    CONSTRAINT receipt_proof_verdict_signature_check CHECK ((length(verdict_signature) <= 256))
);

CREATE TABLE billing.referral (
    account_id text NOT NULL,
    referrer_id text NOT NULL,
    code text NOT NULL,
    applied_at timestamp with time zone NOT NULL,
    CONSTRAINT referral_check CHECK ((account_id <> referrer_id))
);

CREATE TABLE billing.referral_code (
    code text NOT NULL,
    account_id text NOT NULL,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE billing.referral_payout (
    referrer_id text NOT NULL,
    hour timestamp with time zone NOT NULL,
    requests integer NOT NULL,
    qualifying_micros bigint NOT NULL,
    earned_micros bigint NOT NULL,
    paid_micros bigint NOT NULL,
    bonus_id text,
    paid_at timestamp with time zone NOT NULL,
    CONSTRAINT referral_payout_check CHECK (((paid_micros >= 0) AND (paid_micros <= earned_micros))),
    CONSTRAINT referral_payout_check1 CHECK (((bonus_id IS NULL) = (paid_micros = 0))),
    CONSTRAINT referral_payout_earned_micros_check CHECK ((earned_micros >= 0)),
    CONSTRAINT referral_payout_qualifying_micros_check CHECK ((qualifying_micros >= 0)),
    CONSTRAINT referral_payout_requests_check CHECK ((requests > 0))
);

CREATE TABLE billing.referral_progress (
    only_row boolean DEFAULT true NOT NULL,
    next_hour timestamp with time zone NOT NULL,
    CONSTRAINT referral_progress_only_row_check CHECK (only_row)
);

CREATE TABLE billing.stripe_account (
    stripe_account_id text NOT NULL,
    account_id text NOT NULL,
    status text NOT NULL,
    country text NOT NULL,
    destination_type text DEFAULT ''::text NOT NULL,
    destination_last4 text DEFAULT ''::text NOT NULL,
    instant_eligible boolean DEFAULT false NOT NULL,
    currently_due text[] DEFAULT '{}'::text[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    unlinked_at timestamp with time zone,
    CONSTRAINT stripe_account_destination_type_check CHECK ((destination_type = ANY (ARRAY[''::text, 'bank'::text, 'card'::text]))),
    CONSTRAINT stripe_account_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'ready'::text, 'restricted'::text, 'rejected'::text])))
);

CREATE TABLE billing.stripe_balance (
    taken_at timestamp with time zone NOT NULL,
    stripe_micros bigint NOT NULL,
    ledger_micros bigint NOT NULL
);

CREATE TABLE billing.stripe_check (
    day date NOT NULL,
    checked_at timestamp with time zone NOT NULL,
    stripe_micros bigint NOT NULL,
    book_micros bigint NOT NULL,
    open_items jsonb NOT NULL,
    unexplained_micros bigint NOT NULL
);

CREATE TABLE billing.stripe_customer (
    account_id text NOT NULL,
    customer_id text NOT NULL,
    payment_method text,
    card_brand text DEFAULT ''::text NOT NULL,
    card_last4 text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE billing.stripe_dispute (
    dispute_id text NOT NULL,
    session_id text NOT NULL,
    amount_micros bigint NOT NULL,
    state text NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT stripe_dispute_amount_micros_check CHECK ((amount_micros > 0)),
    CONSTRAINT stripe_dispute_state_check CHECK ((state = ANY (ARRAY['open'::text, 'won'::text, 'lost'::text])))
);

CREATE TABLE billing.stripe_event (
    event_id text NOT NULL,
    source text NOT NULL,
    kind text NOT NULL,
    object_id text NOT NULL,
    stripe_account text NOT NULL,
    payload_hash bytea NOT NULL,
    facts jsonb NOT NULL,
    happened_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    state text DEFAULT 'waiting'::text NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    next_at timestamp with time zone NOT NULL,
    problem text DEFAULT ''::text NOT NULL,
    CONSTRAINT stripe_event_payload_hash_check CHECK ((length(payload_hash) = 32)),
    CONSTRAINT stripe_event_source_check CHECK ((source = ANY (ARRAY['payments'::text, 'transfers'::text, 'accounts'::text]))),
    CONSTRAINT stripe_event_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'done'::text, 'stuck'::text])))
);

CREATE TABLE billing.stripe_session (
    session_id text NOT NULL,
    account_id text NOT NULL,
    request_id text NOT NULL,
    kind text NOT NULL,
    amount_micros bigint NOT NULL,
    line_micros bigint NOT NULL,
    external_id text,
    url text DEFAULT ''::text NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    payment_intent text,
    charge_id text,
    created_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone,
    CONSTRAINT stripe_session_amount_micros_check CHECK (((amount_micros >= 0) AND ((amount_micros % (10000)::bigint) = 0))),
    CONSTRAINT stripe_session_check CHECK (((kind = 'setup'::text) = (amount_micros = 0))),
    CONSTRAINT stripe_session_check1 CHECK (((status <> 'completed'::text) OR (kind = 'setup'::text) OR (payment_intent IS NOT NULL))),
    CONSTRAINT stripe_session_kind_check CHECK ((kind = ANY (ARRAY['deposit'::text, 'auto'::text, 'setup'::text]))),
    CONSTRAINT stripe_session_line_micros_check CHECK (((line_micros >= 0) AND ((line_micros % (10000)::bigint) = 0))),
    CONSTRAINT stripe_session_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'processing'::text, 'completed'::text, 'expired'::text, 'failed'::text])))
);

CREATE TABLE billing.uncounted (
    request_id text,
    transfer_id bigint,
    CONSTRAINT uncounted_check CHECK (((request_id IS NULL) <> (transfer_id IS NULL)))
);

CREATE TABLE billing.usage (
    request_id text NOT NULL,
    account_id text NOT NULL,
    attempt_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    build text NOT NULL,
    prompt_tokens integer NOT NULL,
    cached_tokens integer NOT NULL,
    completion_tokens integer NOT NULL,
    charge_micros bigint NOT NULL,
    outcome text NOT NULL,
    terminal_sha256 text NOT NULL,
    settled_at timestamp with time zone NOT NULL,
    CONSTRAINT usage_outcome_check CHECK ((outcome = ANY (ARRAY['completed'::text, 'cancelled'::text, 'broken'::text])))
);

CREATE TABLE billing.withdrawal (
    withdrawal_id text NOT NULL,
    account_id text NOT NULL,
    request_id text NOT NULL,
    stripe_account_id text NOT NULL,
    amount_micros bigint NOT NULL,
    fee_micros bigint NOT NULL,
    net_micros bigint NOT NULL,
    method text NOT NULL,
    status text NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    payout_tries integer DEFAULT 0 NOT NULL,
    transfer_id text,
    destination_payment text,
    payout_id text,
    failed_payout_id text,
    fee_waived boolean DEFAULT false NOT NULL,
    posted boolean DEFAULT false NOT NULL,
    refunded boolean DEFAULT false NOT NULL,
    failure_reason text DEFAULT ''::text NOT NULL,
    next_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    arrival_at timestamp with time zone,
    CONSTRAINT withdrawal_amount_micros_check CHECK (((amount_micros > 0) AND ((amount_micros % (10000)::bigint) = 0))),
    CONSTRAINT withdrawal_attempt_check CHECK ((attempt >= 0)),
    CONSTRAINT withdrawal_check CHECK ((amount_micros = (fee_micros + net_micros))),
    CONSTRAINT withdrawal_check1 CHECK (((status <> ALL (ARRAY['transferred'::text, 'paid'::text])) OR (transfer_id IS NOT NULL))),
    CONSTRAINT withdrawal_check2 CHECK (((status <> ALL (ARRAY['pending'::text, 'queued'::text])) OR (transfer_id IS NULL))),
    CONSTRAINT withdrawal_fee_micros_check CHECK ((fee_micros >= 0)),
    CONSTRAINT withdrawal_method_check CHECK ((method = ANY (ARRAY['standard'::text, 'instant'::text]))),
    CONSTRAINT withdrawal_net_micros_check CHECK (((net_micros > 0) AND ((net_micros % (10000)::bigint) = 0))),
    CONSTRAINT withdrawal_payout_tries_check CHECK ((payout_tries >= 0)),
    CONSTRAINT withdrawal_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'queued'::text, 'transferred'::text, 'paid'::text, 'failed'::text, 'manual_reconciliation_required'::text]))),
    CONSTRAINT withdrawal_tries_check CHECK ((tries >= 0))
);

CREATE TABLE billing.work_day (
    account_id text NOT NULL,
    day date NOT NULL,
    identity_key bytea NOT NULL,
    build text NOT NULL,
    work_micros bigint NOT NULL,
    reward_micros bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    jobs bigint NOT NULL
);

CREATE TABLE billing.work_hour (
    account_id text NOT NULL,
    hour timestamp with time zone NOT NULL,
    work_micros bigint NOT NULL,
    reward_micros bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    jobs bigint NOT NULL
);

CREATE TABLE billing.work_life (
    account_id text NOT NULL,
    identity_key bytea NOT NULL,
    work_micros bigint NOT NULL,
    reward_micros bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    jobs bigint NOT NULL
);

CREATE TABLE billing.work_minute (
    minute timestamp with time zone NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    jobs bigint NOT NULL
);

ALTER TABLE ledger.account ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ledger.account_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ledger.block (
    height bigint NOT NULL,
    first_event bigint NOT NULL,
    last_event bigint NOT NULL,
    events bigint NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL,
    sealed_at timestamp with time zone NOT NULL,
    CONSTRAINT block_check CHECK ((first_event <= last_event)),
    CONSTRAINT block_events_check CHECK ((events > 0)),
    CONSTRAINT block_hash_check CHECK ((length(hash) = 32)),
    CONSTRAINT block_height_check CHECK ((height > 0)),
    CONSTRAINT block_previous_check CHECK ((length(previous) = 32))
);

CREATE VIEW ledger.effect AS
 SELECT t.id,
    s.account_id,
    s.side,
        CASE t.mode
            WHEN 'single'::text THEN t.amount
            WHEN 'post'::text THEN t.amount
            ELSE (0)::bigint
        END AS posted,
        CASE t.mode
            WHEN 'pending'::text THEN t.amount
            WHEN 'post'::text THEN (- p.amount)
            WHEN 'void'::text THEN (- p.amount)
            ELSE (0)::bigint
        END AS pending
   FROM ((ledger.transfer t
     LEFT JOIN ledger.transfer p ON ((p.id = t.pending_id)))
     CROSS JOIN LATERAL ( VALUES (t.debit_id,'D'::"char"), (t.credit_id,'C'::"char")) s(account_id, side));

CREATE TABLE ledger.event (
    id bigint NOT NULL,
    idem_key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    body_hash bytea NOT NULL,
    body jsonb NOT NULL,
    result jsonb NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ledger.event ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ledger.event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ledger.posting (
    account_id bigint NOT NULL,
    version bigint NOT NULL,
    transfer_id bigint NOT NULL,
    side "char" NOT NULL,
    dr bigint NOT NULL,
    cr bigint NOT NULL,
    dr_pend bigint NOT NULL,
    cr_pend bigint NOT NULL,
    CONSTRAINT posting_side_check CHECK ((side = ANY (ARRAY['D'::"char", 'C'::"char"])))
);

CREATE TABLE ledger.rule (
    code text NOT NULL,
    debit_class text NOT NULL,
    credit_class text NOT NULL
);

ALTER TABLE ledger.transfer ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ledger.transfer_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_charge_id_key UNIQUE (charge_id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_credit_id_key UNIQUE (credit_id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_debt_id_key UNIQUE (debt_id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_disputed_id_key UNIQUE (disputed_id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_earned_id_key UNIQUE (earned_id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_maturing_id_key UNIQUE (maturing_id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_promo_id_key UNIQUE (promo_id);

ALTER TABLE ONLY billing.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY billing.api_key
    ADD CONSTRAINT api_key_key_hash_key UNIQUE (key_hash);

ALTER TABLE ONLY billing.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY billing.api_key_use
    ADD CONSTRAINT api_key_use_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY billing.app_user
    ADD CONSTRAINT app_user_issuer_subject_key UNIQUE (issuer, subject);

ALTER TABLE ONLY billing.app_user
    ADD CONSTRAINT app_user_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY billing.audit_mark
    ADD CONSTRAINT audit_mark_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY billing.audit_state
    ADD CONSTRAINT audit_state_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY billing.auto_top_up
    ADD CONSTRAINT auto_top_up_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY billing.bonus
    ADD CONSTRAINT bonus_pkey PRIMARY KEY (bonus_id);

ALTER TABLE ONLY billing.budget_funding
    ADD CONSTRAINT budget_funding_pkey PRIMARY KEY (funding_id);

ALTER TABLE ONLY billing.budget_funding
    ADD CONSTRAINT budget_funding_request_id_key UNIQUE (request_id);

ALTER TABLE ONLY billing.cap_window
    ADD CONSTRAINT cap_window_cap_id_key UNIQUE (cap_id);

ALTER TABLE ONLY billing.cap_window
    ADD CONSTRAINT cap_window_pkey PRIMARY KEY (key_id, name);

ALTER TABLE ONLY billing.device_code
    ADD CONSTRAINT device_code_pkey PRIMARY KEY (code_hash);

ALTER TABLE ONLY billing.device_code
    ADD CONSTRAINT device_code_user_code_key UNIQUE (user_code);

ALTER TABLE ONLY billing.device_guess
    ADD CONSTRAINT device_guess_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY billing.dispute_hold
    ADD CONSTRAINT dispute_hold_pkey PRIMARY KEY (dispute_id, request_id);

ALTER TABLE ONLY billing.earning
    ADD CONSTRAINT earning_pkey PRIMARY KEY (request_id);

ALTER TABLE ONLY billing.erasure
    ADD CONSTRAINT erasure_pkey PRIMARY KEY (erasure_id);

ALTER TABLE ONLY billing.erasure
    ADD CONSTRAINT erasure_request_id_key UNIQUE (request_id);

ALTER TABLE ONLY billing.erasure_rule
    ADD CONSTRAINT erasure_rule_pkey PRIMARY KEY ("position");

ALTER TABLE ONLY billing.erasure_rule
    ADD CONSTRAINT erasure_rule_rule_key UNIQUE (rule);

ALTER TABLE ONLY billing.fingerprint
    ADD CONSTRAINT fingerprint_pkey PRIMARY KEY (account_id, kind, hash);

ALTER TABLE ONLY billing.invite
    ADD CONSTRAINT invite_pkey PRIMARY KEY (code);

ALTER TABLE ONLY billing.invite_redemption
    ADD CONSTRAINT invite_redemption_pkey PRIMARY KEY (code, account_id);

ALTER TABLE ONLY billing.invite
    ADD CONSTRAINT invite_request_id_key UNIQUE (request_id);

ALTER TABLE ONLY billing.key_change
    ADD CONSTRAINT key_change_pkey PRIMARY KEY (generation);

ALTER TABLE ONLY billing.key_generation
    ADD CONSTRAINT key_generation_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY billing.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (request_id);

ALTER TABLE ONLY billing.link_challenge
    ADD CONSTRAINT link_challenge_pkey PRIMARY KEY (nonce_hash);

ALTER TABLE ONLY billing.log_report_part
    ADD CONSTRAINT log_report_part_pkey PRIMARY KEY (report_id, number);

ALTER TABLE ONLY billing.log_report
    ADD CONSTRAINT log_report_pkey PRIMARY KEY (report_id);

ALTER TABLE ONLY billing.note
    ADD CONSTRAINT note_pkey PRIMARY KEY (request_id);

ALTER TABLE ONLY billing.operator_action
    ADD CONSTRAINT operator_action_action_request_id_key UNIQUE (action, request_id);

ALTER TABLE ONLY billing.operator_action
    ADD CONSTRAINT operator_action_pkey PRIMARY KEY (action_id);

ALTER TABLE ONLY billing.operator
    ADD CONSTRAINT operator_pkey PRIMARY KEY (name);

ALTER TABLE ONLY billing.operator
    ADD CONSTRAINT operator_token_hash_key UNIQUE (token_hash);

ALTER TABLE ONLY billing.outbox
    ADD CONSTRAINT outbox_kind_key_key UNIQUE (kind, key);

ALTER TABLE ONLY billing.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY billing.past_link
    ADD CONSTRAINT past_link_pkey PRIMARY KEY (identity_key, linked_at);

ALTER TABLE ONLY billing.price
    ADD CONSTRAINT price_pkey PRIMARY KEY (price_id);

ALTER TABLE ONLY billing.price
    ADD CONSTRAINT price_request_id_key UNIQUE (request_id);

ALTER TABLE ONLY billing.price
    ADD CONSTRAINT price_sequence_key UNIQUE (sequence);

ALTER TABLE ONLY billing.provider_link
    ADD CONSTRAINT provider_link_pkey PRIMARY KEY (identity_key);

ALTER TABLE ONLY billing.provider_token
    ADD CONSTRAINT provider_token_pkey PRIMARY KEY (token_id);

ALTER TABLE ONLY billing.provider_token
    ADD CONSTRAINT provider_token_token_hash_key UNIQUE (token_hash);

ALTER TABLE ONLY billing.pseudonym_key
    ADD CONSTRAINT pseudonym_key_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY billing.public_name
    ADD CONSTRAINT public_name_folded_key UNIQUE (folded);

ALTER TABLE ONLY billing.public_name
    ADD CONSTRAINT public_name_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY billing.receipt_batch
    ADD CONSTRAINT receipt_batch_pkey PRIMARY KEY (batch_id);

ALTER TABLE ONLY billing.receipt
    ADD CONSTRAINT receipt_pkey PRIMARY KEY (request_id);

ALTER TABLE ONLY billing.receipt_proof
    ADD CONSTRAINT receipt_proof_pkey PRIMARY KEY (request_id);

ALTER TABLE ONLY billing.referral_code
    ADD CONSTRAINT referral_code_account_id_key UNIQUE (account_id);

ALTER TABLE ONLY billing.referral_code
    ADD CONSTRAINT referral_code_pkey PRIMARY KEY (code);

ALTER TABLE ONLY billing.referral_payout
    ADD CONSTRAINT referral_payout_bonus_id_key UNIQUE (bonus_id);

ALTER TABLE ONLY billing.referral_payout
    ADD CONSTRAINT referral_payout_pkey PRIMARY KEY (referrer_id, hour);

ALTER TABLE ONLY billing.referral
    ADD CONSTRAINT referral_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY billing.referral_progress
    ADD CONSTRAINT referral_progress_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY billing.stripe_account
    ADD CONSTRAINT stripe_account_pkey PRIMARY KEY (stripe_account_id);

ALTER TABLE ONLY billing.stripe_balance
    ADD CONSTRAINT stripe_balance_pkey PRIMARY KEY (taken_at);

ALTER TABLE ONLY billing.stripe_check
    ADD CONSTRAINT stripe_check_pkey PRIMARY KEY (day);

ALTER TABLE ONLY billing.stripe_customer
    ADD CONSTRAINT stripe_customer_customer_id_key UNIQUE (customer_id);

ALTER TABLE ONLY billing.stripe_customer
    ADD CONSTRAINT stripe_customer_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY billing.stripe_dispute
    ADD CONSTRAINT stripe_dispute_pkey PRIMARY KEY (dispute_id);

ALTER TABLE ONLY billing.stripe_event
    ADD CONSTRAINT stripe_event_pkey PRIMARY KEY (event_id);

ALTER TABLE ONLY billing.stripe_session
    ADD CONSTRAINT stripe_session_account_id_request_id_key UNIQUE (account_id, request_id);

ALTER TABLE ONLY billing.stripe_session
    ADD CONSTRAINT stripe_session_charge_id_key UNIQUE (charge_id);

ALTER TABLE ONLY billing.stripe_session
    ADD CONSTRAINT stripe_session_external_id_key UNIQUE (external_id);

ALTER TABLE ONLY billing.stripe_session
    ADD CONSTRAINT stripe_session_payment_intent_key UNIQUE (payment_intent);

ALTER TABLE ONLY billing.stripe_session
    ADD CONSTRAINT stripe_session_pkey PRIMARY KEY (session_id);

ALTER TABLE ONLY billing.usage
    ADD CONSTRAINT usage_pkey PRIMARY KEY (request_id);

ALTER TABLE ONLY billing.withdrawal
    ADD CONSTRAINT withdrawal_account_id_request_id_key UNIQUE (account_id, request_id);

ALTER TABLE ONLY billing.withdrawal
    ADD CONSTRAINT withdrawal_destination_payment_key UNIQUE (destination_payment);

ALTER TABLE ONLY billing.withdrawal
    ADD CONSTRAINT withdrawal_payout_id_key UNIQUE (payout_id);

ALTER TABLE ONLY billing.withdrawal
    ADD CONSTRAINT withdrawal_pkey PRIMARY KEY (withdrawal_id);

ALTER TABLE ONLY billing.withdrawal
    ADD CONSTRAINT withdrawal_transfer_id_key UNIQUE (transfer_id);

ALTER TABLE ONLY billing.work_day
    ADD CONSTRAINT work_day_pkey PRIMARY KEY (account_id, day, identity_key, build);

ALTER TABLE ONLY billing.work_hour
    ADD CONSTRAINT work_hour_pkey PRIMARY KEY (account_id, hour);

ALTER TABLE ONLY billing.work_life
    ADD CONSTRAINT work_life_pkey PRIMARY KEY (account_id, identity_key);

ALTER TABLE ONLY billing.work_minute
    ADD CONSTRAINT work_minute_pkey PRIMARY KEY (minute);

ALTER TABLE ONLY ledger.account
    ADD CONSTRAINT account_id_unit_class_key UNIQUE (id, unit, class);

ALTER TABLE ONLY ledger.account
    ADD CONSTRAINT account_path_key UNIQUE (path);

ALTER TABLE ONLY ledger.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ledger.block
    ADD CONSTRAINT block_pkey PRIMARY KEY (height);

ALTER TABLE ONLY ledger.event
    ADD CONSTRAINT event_idem_key_key UNIQUE (idem_key);

ALTER TABLE ONLY ledger.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (id);

ALTER TABLE ONLY ledger.posting
    ADD CONSTRAINT posting_pkey PRIMARY KEY (account_id, version);

ALTER TABLE ONLY ledger.posting
    ADD CONSTRAINT posting_transfer_id_side_key UNIQUE (transfer_id, side);

ALTER TABLE ONLY ledger.rule
    ADD CONSTRAINT rule_pkey PRIMARY KEY (code, debit_class, credit_class);

ALTER TABLE ONLY ledger.transfer
    ADD CONSTRAINT transfer_pkey PRIMARY KEY (id);

CREATE INDEX account_fee ON billing.account USING btree (charge_id) WHERE (platform_fee_percent > 0);

CREATE INDEX account_wholesale ON billing.account USING btree (account_id) WHERE (role = 'service'::text);

CREATE INDEX api_key_account ON billing.api_key USING btree (account_id);

CREATE INDEX app_user_account ON billing.app_user USING btree (account_id);

CREATE INDEX bonus_account ON billing.bonus USING btree (account_id, created_at);

CREATE INDEX bonus_due ON billing.bonus USING btree (matures_at) WHERE (matured_at IS NULL);

CREATE INDEX device_code_expiry ON billing.device_code USING btree (expires_at);

CREATE INDEX device_code_source ON billing.device_code USING btree (source, expires_at);

CREATE INDEX dispute_hold_open ON billing.dispute_hold USING btree (request_id) WHERE (ended_at IS NULL);

CREATE INDEX earning_due ON billing.earning USING btree (settled_at) WHERE (matured_at IS NULL);

CREATE INDEX earning_newest ON billing.earning USING btree (account_id, settled_at DESC, request_id DESC);

CREATE UNIQUE INDEX erasure_open ON billing.erasure USING btree (account_id) WHERE (state = ANY (ARRAY['planned'::text, 'pending'::text]));

CREATE INDEX fingerprint_hash ON billing.fingerprint USING btree (kind, hash);

CREATE INDEX lease_expiry ON billing.lease USING btree (lease_until);

CREATE INDEX link_challenge_account ON billing.link_challenge USING btree (account_id, expires_at);

CREATE INDEX link_challenge_expiry ON billing.link_challenge USING btree (expires_at);

CREATE INDEX log_report_account ON billing.log_report USING btree (account_id, created_at DESC);

CREATE INDEX log_report_expiry ON billing.log_report USING btree (expires_at);

CREATE INDEX note_account ON billing.note USING btree (account_id);

CREATE INDEX operator_action_subject ON billing.operator_action USING btree (subject, action_id DESC);

CREATE INDEX outbox_done ON billing.outbox USING btree (done_at) WHERE (done_at IS NOT NULL);

CREATE INDEX outbox_due ON billing.outbox USING btree (due_at, id) WHERE (done_at IS NULL);

CREATE INDEX past_link_account ON billing.past_link USING btree (account_id);

CREATE INDEX price_in_force ON billing.price USING btree (account_id, build, effective_at DESC, sequence DESC);

CREATE INDEX provider_link_account ON billing.provider_link USING btree (account_id, identity_key);

CREATE INDEX provider_token_account ON billing.provider_token USING btree (account_id);

CREATE INDEX receipt_batch_age ON billing.receipt_batch USING btree (sealed_at);

CREATE INDEX receipt_batch_unanchored ON billing.receipt_batch USING btree (sealed_at) WHERE (log_index IS NULL);

CREATE INDEX receipt_proof_age ON billing.receipt_proof USING btree (recorded_at);

CREATE INDEX receipt_proof_attempt ON billing.receipt_proof USING btree (attempt_id);

CREATE INDEX receipt_proof_unsealed ON billing.receipt_proof USING btree (recorded_at, request_id) WHERE (batch_id IS NULL);

CREATE INDEX referral_payout_hour ON billing.referral_payout USING btree (hour);

CREATE INDEX referral_referrer ON billing.referral USING btree (referrer_id);

CREATE UNIQUE INDEX stripe_account_current ON billing.stripe_account USING btree (account_id) WHERE (unlinked_at IS NULL);

CREATE INDEX stripe_event_done ON billing.stripe_event USING btree (received_at) WHERE (state = 'done'::text);

CREATE INDEX stripe_event_due ON billing.stripe_event USING btree (next_at) WHERE (state = 'waiting'::text);

CREATE UNIQUE INDEX stripe_session_auto ON billing.stripe_session USING btree (account_id) WHERE ((kind = 'auto'::text) AND (status = ANY (ARRAY['pending'::text, 'processing'::text])));

CREATE INDEX stripe_session_month ON billing.stripe_session USING btree (account_id, created_at) WHERE (kind = 'auto'::text);

CREATE INDEX usage_newest ON billing.usage USING btree (account_id, settled_at DESC, request_id DESC);

CREATE INDEX usage_settled ON billing.usage USING btree (settled_at);

CREATE INDEX withdrawal_account ON billing.withdrawal USING btree (stripe_account_id, status);

CREATE INDEX withdrawal_due ON billing.withdrawal USING btree (next_at) WHERE (status = ANY (ARRAY['pending'::text, 'queued'::text, 'transferred'::text]));

CREATE INDEX withdrawal_newest ON billing.withdrawal USING btree (account_id, created_at DESC, withdrawal_id DESC);

CREATE INDEX work_hour_time ON billing.work_hour USING btree (hour);

CREATE INDEX transfer_event ON ledger.transfer USING btree (event_id);

CREATE UNIQUE INDEX transfer_resolved_once ON ledger.transfer USING btree (pending_id) WHERE (pending_id IS NOT NULL);

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON billing.operator_action FOR EACH ROW EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON billing.operator_action FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER note_account_change AFTER UPDATE ON billing.account FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION billing.note_account_change();

CREATE TRIGGER note_key_change AFTER INSERT OR UPDATE ON billing.api_key FOR EACH ROW EXECUTE FUNCTION billing.note_key_change();

CREATE TRIGGER note_outbox AFTER INSERT ON billing.outbox FOR EACH STATEMENT EXECUTE FUNCTION billing.note_outbox();

CREATE TRIGGER note_price AFTER INSERT ON billing.price FOR EACH ROW EXECUTE FUNCTION billing.note_price();

CREATE TRIGGER note_role AFTER UPDATE OF role ON billing.account FOR EACH ROW WHEN ((new.role IS DISTINCT FROM old.role)) EXECUTE FUNCTION billing.note_role();

CREATE TRIGGER note_work AFTER INSERT ON billing.earning REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION billing.note_work();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.block FOR EACH ROW EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.event FOR EACH ROW EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.posting FOR EACH ROW EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.rule FOR EACH ROW EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON ledger.transfer FOR EACH ROW EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER apply_transfer AFTER INSERT ON ledger.transfer REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION ledger.apply_transfers();

CREATE CONSTRAINT TRIGGER check_account AFTER INSERT OR UPDATE ON ledger.account DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger.check_account();

CREATE TRIGGER guard_account BEFORE UPDATE ON ledger.account FOR EACH ROW EXECUTE FUNCTION ledger.guard_account();

CREATE TRIGGER no_delete BEFORE DELETE ON ledger.account FOR EACH ROW EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.account FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.block FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.event FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.posting FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.rule FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.transfer FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

CREATE TRIGGER note_reward AFTER INSERT ON ledger.transfer FOR EACH ROW WHEN (((new.debit_class = 'budget'::text) AND (new.mode = 'single'::text) AND (new.credit_class = ANY (ARRAY['user_earned'::text, 'user_maturing'::text])))) EXECUTE FUNCTION billing.note_reward();

CREATE TRIGGER only_by_transfer BEFORE INSERT ON ledger.posting FOR EACH STATEMENT WHEN ((pg_trigger_depth() < 1)) EXECUTE FUNCTION ledger.refuse();

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_charge_id_fkey FOREIGN KEY (charge_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_credit_id_fkey FOREIGN KEY (credit_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_debt_id_fkey FOREIGN KEY (debt_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_disputed_id_fkey FOREIGN KEY (disputed_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_earned_id_fkey FOREIGN KEY (earned_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_maturing_id_fkey FOREIGN KEY (maturing_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.account
    ADD CONSTRAINT account_promo_id_fkey FOREIGN KEY (promo_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.api_key
    ADD CONSTRAINT api_key_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.api_key_use
    ADD CONSTRAINT api_key_use_key_id_fkey FOREIGN KEY (key_id) REFERENCES billing.api_key(key_id);

ALTER TABLE ONLY billing.app_user
    ADD CONSTRAINT app_user_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.audit_mark
    ADD CONSTRAINT audit_mark_account_id_fkey FOREIGN KEY (account_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.auto_top_up
    ADD CONSTRAINT auto_top_up_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.bonus
    ADD CONSTRAINT bonus_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.cap_window
    ADD CONSTRAINT cap_window_cap_id_fkey FOREIGN KEY (cap_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.cap_window
    ADD CONSTRAINT cap_window_key_id_fkey FOREIGN KEY (key_id) REFERENCES billing.api_key(key_id);

ALTER TABLE ONLY billing.cap_window
    ADD CONSTRAINT cap_window_sink_id_fkey FOREIGN KEY (sink_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.cap_window
    ADD CONSTRAINT cap_window_source_id_fkey FOREIGN KEY (source_id) REFERENCES ledger.account(id);

ALTER TABLE ONLY billing.device_code
    ADD CONSTRAINT device_code_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.device_guess
    ADD CONSTRAINT device_guess_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.dispute_hold
    ADD CONSTRAINT dispute_hold_request_id_fkey FOREIGN KEY (request_id) REFERENCES billing.earning(request_id);

ALTER TABLE ONLY billing.erasure
    ADD CONSTRAINT erasure_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.fingerprint
    ADD CONSTRAINT fingerprint_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.invite_redemption
    ADD CONSTRAINT invite_redemption_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.invite_redemption
    ADD CONSTRAINT invite_redemption_code_fkey FOREIGN KEY (code) REFERENCES billing.invite(code);

ALTER TABLE ONLY billing.link_challenge
    ADD CONSTRAINT link_challenge_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.log_report
    ADD CONSTRAINT log_report_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.log_report_part
    ADD CONSTRAINT log_report_part_report_id_fkey FOREIGN KEY (report_id) REFERENCES billing.log_report(report_id) ON DELETE CASCADE;

ALTER TABLE ONLY billing.note
    ADD CONSTRAINT note_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.past_link
    ADD CONSTRAINT past_link_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.provider_link
    ADD CONSTRAINT provider_link_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.provider_token
    ADD CONSTRAINT provider_token_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.public_name
    ADD CONSTRAINT public_name_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.referral
    ADD CONSTRAINT referral_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.referral_code
    ADD CONSTRAINT referral_code_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.referral
    ADD CONSTRAINT referral_code_fkey FOREIGN KEY (code) REFERENCES billing.referral_code(code) ON UPDATE CASCADE;

ALTER TABLE ONLY billing.referral_payout
    ADD CONSTRAINT referral_payout_bonus_id_fkey FOREIGN KEY (bonus_id) REFERENCES billing.bonus(bonus_id);

ALTER TABLE ONLY billing.referral_payout
    ADD CONSTRAINT referral_payout_referrer_id_fkey FOREIGN KEY (referrer_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.referral
    ADD CONSTRAINT referral_referrer_id_fkey FOREIGN KEY (referrer_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.stripe_account
    ADD CONSTRAINT stripe_account_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.stripe_customer
    ADD CONSTRAINT stripe_customer_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.stripe_dispute
    ADD CONSTRAINT stripe_dispute_session_id_fkey FOREIGN KEY (session_id) REFERENCES billing.stripe_session(session_id);

ALTER TABLE ONLY billing.stripe_session
    ADD CONSTRAINT stripe_session_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.withdrawal
    ADD CONSTRAINT withdrawal_account_id_fkey FOREIGN KEY (account_id) REFERENCES billing.account(account_id);

ALTER TABLE ONLY billing.withdrawal
    ADD CONSTRAINT withdrawal_stripe_account_id_fkey FOREIGN KEY (stripe_account_id) REFERENCES billing.stripe_account(stripe_account_id);

ALTER TABLE ONLY ledger.transfer
    ADD CONSTRAINT transfer_code_debit_class_credit_class_fkey FOREIGN KEY (code, debit_class, credit_class) REFERENCES ledger.rule(code, debit_class, credit_class);

ALTER TABLE ONLY ledger.transfer
    ADD CONSTRAINT transfer_credit_id_unit_credit_class_fkey FOREIGN KEY (credit_id, unit, credit_class) REFERENCES ledger.account(id, unit, class);

ALTER TABLE ONLY ledger.transfer
    ADD CONSTRAINT transfer_debit_id_unit_debit_class_fkey FOREIGN KEY (debit_id, unit, debit_class) REFERENCES ledger.account(id, unit, class);

ALTER TABLE ONLY ledger.transfer
    ADD CONSTRAINT transfer_event_id_fkey FOREIGN KEY (event_id) REFERENCES ledger.event(id);

ALTER TABLE ONLY ledger.transfer
    ADD CONSTRAINT transfer_pending_id_fkey FOREIGN KEY (pending_id) REFERENCES ledger.transfer(id);
