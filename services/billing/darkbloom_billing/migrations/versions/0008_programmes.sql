-- Programmes (invites, referrals, budgets), operators and their audit, erasure.

-- It funded itself: from now on grants come out of budgets, which need two operators.
DROP FUNCTION billing.grant_promo(text, text, bigint, bytea, jsonb, timestamptz);

ALTER TABLE billing.account
  ADD COLUMN platform_fee_percent smallint CHECK (platform_fee_percent BETWEEN 0 AND 100);

-- Who may move budgets. Rows are made with the owner's role only (`python -m darkbloom_billing operator`),
-- so that whoever holds the mesh token still cannot be two operators.
CREATE TABLE billing.operator (
  name text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 200),
  token_hash bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
  created_at timestamptz NOT NULL,
  revoked_at timestamptz
);

-- Every write of an operator: ids and amounts before and after, no secrets, nothing personal of a
-- customer, because it can never be edited.
CREATE TABLE billing.operator_action (
  action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operator text NOT NULL,
  source text NOT NULL CHECK (source IN ('http', 'cli', 'development')),
  action text NOT NULL,
  subject text NOT NULL,
  request_id text NOT NULL,
  before jsonb NOT NULL,
  after jsonb NOT NULL,
  created_at timestamptz NOT NULL,
  UNIQUE (action, request_id)
);
CREATE INDEX operator_action_subject ON billing.operator_action (subject, action_id DESC);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing.operator_action
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON billing.operator_action
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();

-- Free text beside the ledger, which can never be edited; this can be erased.
CREATE TABLE billing.note (
  request_id text PRIMARY KEY,
  account_id text NOT NULL REFERENCES billing.account,
  note text NOT NULL,
  created_at timestamptz NOT NULL
);
CREATE INDEX note_account ON billing.note (account_id);

CREATE TABLE billing.invite (
  code text PRIMARY KEY,
  request_id text NOT NULL UNIQUE,
  amount_micros bigint NOT NULL CHECK (amount_micros > 0),
  max_uses integer NOT NULL CHECK (max_uses > 0),
  used_count integer NOT NULL DEFAULT 0 CHECK (used_count BETWEEN 0 AND max_uses),
  active boolean NOT NULL DEFAULT true,
  expires_at timestamptz,
  created_at timestamptz NOT NULL
);

CREATE TABLE billing.invite_redemption (
  code text NOT NULL REFERENCES billing.invite,
  account_id text NOT NULL REFERENCES billing.account,
  redeemed_at timestamptz NOT NULL,
  PRIMARY KEY (code, account_id)
);

CREATE TABLE billing.referral_code (
  code text PRIMARY KEY,
  account_id text NOT NULL UNIQUE REFERENCES billing.account,
  created_at timestamptz NOT NULL
);

-- Who brought whom, for ever.
CREATE TABLE billing.referral (
  account_id text PRIMARY KEY REFERENCES billing.account,
  referrer_id text NOT NULL REFERENCES billing.account,
  code text NOT NULL REFERENCES billing.referral_code ON UPDATE CASCADE,
  applied_at timestamptz NOT NULL,
  CHECK (account_id <> referrer_id)
);
CREATE INDEX referral_referrer ON billing.referral (referrer_id);

-- One row per referrer and closed hour that had something to reward. What a cap or an empty budget
-- cut off is the difference between earned and paid; it is not made good later.
CREATE TABLE billing.referral_payout (
  referrer_id text NOT NULL REFERENCES billing.account,
  hour timestamptz NOT NULL,
  requests integer NOT NULL CHECK (requests > 0),
  qualifying_micros bigint NOT NULL CHECK (qualifying_micros >= 0),
  earned_micros bigint NOT NULL CHECK (earned_micros >= 0),
  paid_micros bigint NOT NULL CHECK (paid_micros BETWEEN 0 AND earned_micros),
  bonus_id text UNIQUE REFERENCES billing.bonus,
  paid_at timestamptz NOT NULL,
  PRIMARY KEY (referrer_id, hour),
  CHECK ((bonus_id IS NULL) = (paid_micros = 0))
);
CREATE INDEX referral_payout_hour ON billing.referral_payout (hour);

-- Hours before this one are paid.
CREATE TABLE billing.referral_progress (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  next_hour timestamptz NOT NULL
);
CREATE INDEX usage_settled ON billing.usage (settled_at);

CREATE TABLE billing.budget_funding (
  funding_id text PRIMARY KEY,
  request_id text NOT NULL UNIQUE,
  budget text NOT NULL,
  amount_micros bigint NOT NULL CHECK (amount_micros > 0),
  proposed_by text NOT NULL,
  proposed_at timestamptz NOT NULL,
  approved_by text,
  approved_at timestamptz,
  CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
  CONSTRAINT two_persons CHECK (approved_by <> proposed_by)
);

CREATE TABLE billing.erasure (
  erasure_id text PRIMARY KEY,
  request_id text NOT NULL UNIQUE,
  account_id text NOT NULL REFERENCES billing.account,
  state text NOT NULL CHECK (state IN ('planned', 'pending', 'erased', 'canceled')),
  token_hash bytea NOT NULL CHECK (length(token_hash) = 32),
  plan jsonb NOT NULL,
  forfeit boolean NOT NULL DEFAULT false,
  planned_at timestamptz NOT NULL,
  scrub_after timestamptz,
  erased_at timestamptz,
  forfeited_micros bigint NOT NULL DEFAULT 0,
  proof jsonb
);
CREATE UNIQUE INDEX erasure_open ON billing.erasure (account_id)
  WHERE state IN ('planned', 'pending');

-- What an erasure touches, rule by rule: one predicate counts and changes. No assignment: the rows go.
-- The ledger is not among them: it names account ids only.
CREATE TABLE billing.erasure_rule (
  position integer PRIMARY KEY,
  rule text NOT NULL UNIQUE,
  relation name NOT NULL,
  predicate text NOT NULL,
  assignment text
);
INSERT INTO billing.erasure_rule VALUES
  (10, 'users', 'app_user', 'account_id = $1', NULL),
  (20, 'provider_tokens', 'provider_token', 'account_id = $1', NULL),
  (30, 'device_codes', 'device_code', 'account_id = $1', NULL),
  (40, 'device_guesses', 'device_guess', 'account_id = $1', NULL),
  (50, 'link_challenges', 'link_challenge', 'account_id = $1', NULL),
  (60, 'key_names', 'api_key', 'account_id = $1 AND (name <> '''' OR label <> '''')',
    'name = '''', label = '''''),
  (70, 'machine_names', 'provider_link', 'account_id = $1 AND name <> ''''', 'name = '''''),
  (80, 'display_name', 'account', 'account_id = $1 AND display_name <> ''''',
    'display_name = '''''),
  (90, 'notes', 'note', 'account_id = $1', NULL),
  (100, 'fingerprints', 'fingerprint', 'account_id = $1', NULL),
  (110, 'referral_code', 'referral_code',
    'account_id = $1 AND code <> ''X-'' || upper(substr(md5(account_id), 1, 16))',
    'code = ''X-'' || upper(substr(md5(account_id), 1, 16))');

INSERT INTO billing.erasure_rule VALUES
  (200, 'card', 'stripe_customer', 'account_id = $1', NULL),
  (210, 'automatic_top_up', 'auto_top_up', 'account_id = $1', NULL),
  (220, 'checkout_links', 'stripe_session', 'account_id = $1 AND url <> ''''', 'url = '''''),
  (230, 'payout_destinations', 'stripe_account',
    'account_id = $1 AND (destination_last4 <> '''' OR country <> '''' OR currently_due <> ''{}'')',
    'destination_last4 = '''', country = '''', currently_due = ''{}''');

CREATE FUNCTION billing.count_erasure(p_account text) RETURNS TABLE (rule text, affected bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
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

-- Do what was confirmed. Runs as the owner, because the service may not delete such rows otherwise;
-- an erasure that nobody has confirmed erases nothing.
CREATE FUNCTION billing.scrub(p_erasure text) RETURNS TABLE (rule text, affected bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
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

-- Credentials of an account that is to be erased die at once; data waits for the end of the grace.
CREATE FUNCTION billing.close_account(p_account text, p_now timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  UPDATE billing.account SET closing_at = p_now
    WHERE account_id = p_account AND closing_at IS NULL;
  UPDATE billing.api_key SET revoked_at = p_now
    WHERE account_id = p_account AND revoked_at IS NULL;
  UPDATE billing.provider_token SET revoked_at = p_now
    WHERE account_id = p_account AND revoked_at IS NULL;
END $$;
CREATE FUNCTION billing.reopen_account(p_account text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  UPDATE billing.account SET closing_at = NULL WHERE account_id = p_account;
END $$;

-- Withdrawals that have no end yet, as the ledger has them.
CREATE FUNCTION billing.open_withdrawals(p_account text) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT count(*)::integer FROM billing.account a
    JOIN ledger.posting p ON p.account_id = a.earned_id AND p.side = 'D'
    JOIN ledger.transfer t ON t.id = p.transfer_id AND t.mode = 'pending' AND t.code = 'withdrawal'
    WHERE a.account_id = p_account
      AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id)
$$;

GRANT SELECT ON billing.operator, billing.operator_action, billing.note, billing.invite,
  billing.invite_redemption, billing.referral_code, billing.referral, billing.referral_payout,
  billing.referral_progress, billing.budget_funding, billing.erasure, billing.erasure_rule
  TO darkbloom_billing;
GRANT INSERT ON billing.operator_action, billing.note, billing.invite, billing.invite_redemption,
  billing.referral_code, billing.referral, billing.referral_payout, billing.referral_progress,
  billing.budget_funding, billing.erasure TO darkbloom_billing;
GRANT UPDATE (role, platform_fee_percent) ON billing.account TO darkbloom_billing;
GRANT UPDATE (used_count, active) ON billing.invite TO darkbloom_billing;
GRANT UPDATE (next_hour) ON billing.referral_progress TO darkbloom_billing;
GRANT UPDATE (approved_by, approved_at) ON billing.budget_funding TO darkbloom_billing;
GRANT UPDATE (state, forfeit, scrub_after, erased_at, forfeited_micros, proof, plan)
  ON billing.erasure TO darkbloom_billing;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO darkbloom_billing;
