-- A machine may leave its account, and everything of an account that is to be deleted leaves at once.
-- What it was asked before is still paid to the account of then.

CREATE TABLE billing.past_link (
  identity_key bytea NOT NULL,
  account_id text NOT NULL REFERENCES billing.account,
  linked_at timestamptz NOT NULL,
  unlinked_at timestamptz NOT NULL CHECK (unlinked_at >= linked_at),
  PRIMARY KEY (identity_key, linked_at)
);
CREATE INDEX past_link_account ON billing.past_link (account_id);

-- Unlink one machine of an account, or without a key all of them; return how many.
CREATE FUNCTION billing.unlink(p_account text, p_identity bytea, p_now timestamptz) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

CREATE OR REPLACE FUNCTION billing.close_account(p_account text, p_now timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  UPDATE billing.account SET closing_at = p_now
    WHERE account_id = p_account AND closing_at IS NULL;
  UPDATE billing.api_key SET revoked_at = p_now
    WHERE account_id = p_account AND revoked_at IS NULL;
  UPDATE billing.provider_token SET revoked_at = p_now
    WHERE account_id = p_account AND revoked_at IS NULL;
  PERFORM billing.unlink(p_account, NULL, p_now);
END $$;

-- What a settlement is judged against: hold and extensions, oldest first, and the account that the
-- machine had when the hold was placed. A router may not know of an unlinking for five minutes; what it
-- sends until then is paid to the account of before.
-- What is held is what the events say; resolve_many judges by the legs themselves.
CREATE OR REPLACE FUNCTION billing.settle_context(p_request text[], p_identity bytea[])
RETURNS TABLE (
  n bigint, bodies jsonb[], held_at timestamptz, amount bigint, payee text, resolved boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog SET enable_seqscan = off AS $$
  SELECT i.n, h.bodies, h.held_at, h.amount,
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
    SELECT array_agg(e.body ORDER BY e.id) AS bodies, min(e.occurred_at) AS held_at,
      max((e.body -> 'amount')::bigint) AS amount
    FROM ledger.event e
    WHERE e.idem_key >= 'hold:' || i.request_id AND e.idem_key < 'hold:' || i.request_id || ';'
  ) h ON true
  ORDER BY i.n
$$;

GRANT SELECT, INSERT ON billing.past_link TO darkbloom_billing;
GRANT DELETE ON billing.provider_link TO darkbloom_billing;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO darkbloom_billing;
