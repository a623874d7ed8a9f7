-- The platform's share of a charge, where an operator has set one for the consumer: rounded down, in
-- the same event as the charge and the provider's pay. Without one nothing changes, and the look-up is
-- in an empty index.

CREATE INDEX account_fee ON billing.account (charge_id) WHERE platform_fee_percent > 0;

-- One of 16 accounts of revenue, always the same one for the same request.
CREATE FUNCTION billing.fee_path(p_request text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
  SELECT 'platform:fees:' || lpad((('x' || left(md5(p_request), 1))::bit(4)::int)::text, 2, '0')
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

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO darkbloom_billing;
