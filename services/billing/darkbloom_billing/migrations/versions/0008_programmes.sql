-- Programmes (invites, referrals, budgets), operators and their audit, erasure.

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
  code text NOT NULL REFERENCES billing.referral_code,
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
  paid_at timestamptz NOT NULL,
  matures_at timestamptz NOT NULL,
  matured_at timestamptz,
  PRIMARY KEY (referrer_id, hour)
);
CREATE INDEX referral_payout_maturing ON billing.referral_payout (matures_at)
  WHERE matured_at IS NULL AND paid_micros > 0;
CREATE INDEX referral_payout_paid ON billing.referral_payout (paid_at);

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

GRANT SELECT ON billing.operator, billing.operator_action, billing.note, billing.invite,
  billing.invite_redemption, billing.referral_code, billing.referral, billing.referral_payout,
  billing.referral_progress, billing.budget_funding, billing.erasure TO darkbloom_billing;
GRANT INSERT ON billing.operator_action, billing.note, billing.invite, billing.invite_redemption,
  billing.referral_code, billing.referral, billing.referral_payout, billing.referral_progress,
  billing.budget_funding, billing.erasure TO darkbloom_billing;
GRANT UPDATE (role, platform_fee_percent) ON billing.account TO darkbloom_billing;
GRANT UPDATE (used_count, active) ON billing.invite TO darkbloom_billing;
GRANT UPDATE (matured_at) ON billing.referral_payout TO darkbloom_billing;
GRANT UPDATE (next_hour) ON billing.referral_progress TO darkbloom_billing;
GRANT UPDATE (approved_by, approved_at) ON billing.budget_funding TO darkbloom_billing;
GRANT UPDATE (state, forfeit, scrub_after, erased_at, forfeited_micros, proof, plan)
  ON billing.erasure TO darkbloom_billing;
