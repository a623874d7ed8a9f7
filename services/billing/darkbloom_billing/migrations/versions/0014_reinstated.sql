-- Stripe may give money of a lost dispute back later, and some of a fee.
INSERT INTO ledger.rule VALUES
  ('dispute_reinstated', 'stripe_asset', 'user_credit'),
  ('dispute_reinstated', 'stripe_asset', 'user_maturing'),
  ('dispute_reinstated', 'stripe_asset', 'user_earned'),
  ('stripe_fee_return', 'stripe_asset', 'expense');

-- Work that is done and events that have acted are no part of the books. They are kept for a time,
-- because somebody may ask, and because Stripe delivers again for three days: a younger one than a
-- week is never forgotten. Returns how many went.
CREATE INDEX outbox_done ON billing.outbox (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX stripe_event_done ON billing.stripe_event (received_at) WHERE state = 'done';
CREATE FUNCTION billing.forget_finished(p_before timestamptz, p_limit int) RETURNS bigint
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
      ORDER BY d.received_at LIMIT p_limit FOR UPDATE SKIP LOCKED)) RETURNING 1)
  SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM events) INTO gone;
  RETURN gone;
END $$;
REVOKE ALL ON FUNCTION billing.forget_finished(timestamptz, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.forget_finished(timestamptz, int) TO darkbloom_billing;

-- Functions of triggers are nobody's to call.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
