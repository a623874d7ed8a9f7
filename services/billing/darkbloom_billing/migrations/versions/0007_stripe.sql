-- Stripe: sessions, events, disputes, customers, connected accounts, withdrawals. Money is in the
-- ledger; these rows say what happened at Stripe and how far we are with it.

-- What Stripe told us, before anything acts on it. Facts are the few fields that we use: no names,
-- addresses or e-mails.
CREATE TABLE billing.stripe_event (
  event_id text PRIMARY KEY,
  source text NOT NULL CHECK (source IN ('payments', 'transfers', 'accounts')),
  kind text NOT NULL,
  object_id text NOT NULL,
  stripe_account text NOT NULL,
  payload_hash bytea NOT NULL CHECK (length(payload_hash) = 32),
  facts jsonb NOT NULL,
  happened_at timestamptz NOT NULL,
  received_at timestamptz NOT NULL,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'stuck')),
  tries integer NOT NULL DEFAULT 0,
  next_at timestamptz NOT NULL,
  problem text NOT NULL DEFAULT ''
);
CREATE INDEX stripe_event_due ON billing.stripe_event (next_at) WHERE state = 'waiting';

-- A Checkout session, or an automatic top-up: what somebody may pay, and what came of it.
CREATE TABLE billing.stripe_session (
  session_id text PRIMARY KEY,
  account_id text NOT NULL REFERENCES billing.account,
  request_id text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('deposit', 'auto', 'setup')),
  amount_micros bigint NOT NULL CHECK (amount_micros >= 0 AND amount_micros % 10000 = 0),
  line_micros bigint NOT NULL CHECK (line_micros >= 0 AND line_micros % 10000 = 0),
  external_id text UNIQUE,
  url text NOT NULL DEFAULT '',
  status text NOT NULL DEFAULT 'pending'
    CHECK (status IN ('pending', 'processing', 'completed', 'expired', 'failed')),
  payment_intent text UNIQUE,
  charge_id text UNIQUE,
  created_at timestamptz NOT NULL,
  completed_at timestamptz,
  UNIQUE (account_id, request_id),
  CHECK ((kind = 'setup') = (amount_micros = 0)),
  CHECK (status <> 'completed' OR kind = 'setup' OR payment_intent IS NOT NULL)
);
-- One automatic top-up at a time.
CREATE UNIQUE INDEX stripe_session_auto ON billing.stripe_session (account_id)
  WHERE kind = 'auto' AND status IN ('pending', 'processing');
CREATE INDEX stripe_session_month ON billing.stripe_session (account_id, created_at)
  WHERE kind = 'auto';

CREATE TABLE billing.stripe_dispute (
  dispute_id text PRIMARY KEY,
  session_id text NOT NULL REFERENCES billing.stripe_session,
  amount_micros bigint NOT NULL CHECK (amount_micros > 0),
  state text NOT NULL CHECK (state IN ('open', 'won', 'lost')),
  opened_at timestamptz NOT NULL,
  closed_at timestamptz
);

CREATE TABLE billing.stripe_customer (
  account_id text PRIMARY KEY REFERENCES billing.account,
  customer_id text NOT NULL UNIQUE,
  payment_method text,
  card_brand text NOT NULL DEFAULT '',
  card_last4 text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL
);

CREATE TABLE billing.auto_top_up (
  account_id text PRIMARY KEY REFERENCES billing.account,
  enabled boolean NOT NULL,
  threshold_micros bigint NOT NULL CHECK (threshold_micros >= 0),
  amount_micros bigint NOT NULL CHECK (amount_micros > 0 AND amount_micros % 10000 = 0),
  monthly_cap_micros bigint NOT NULL CHECK (monthly_cap_micros >= amount_micros),
  disabled_reason text NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL
);

CREATE TABLE billing.stripe_account (
  stripe_account_id text PRIMARY KEY,
  account_id text NOT NULL REFERENCES billing.account,
  status text NOT NULL CHECK (status IN ('pending', 'ready', 'restricted', 'rejected')),
  country text NOT NULL,
  destination_type text NOT NULL DEFAULT '' CHECK (destination_type IN ('', 'bank', 'card')),
  destination_last4 text NOT NULL DEFAULT '',
  instant_eligible boolean NOT NULL DEFAULT false,
  currently_due text[] NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  unlinked_at timestamptz
);
CREATE UNIQUE INDEX stripe_account_current ON billing.stripe_account (account_id)
  WHERE unlinked_at IS NULL;

CREATE TABLE billing.withdrawal (
  withdrawal_id text PRIMARY KEY,
  account_id text NOT NULL REFERENCES billing.account,
  request_id text NOT NULL,
  stripe_account_id text NOT NULL REFERENCES billing.stripe_account,
  amount_micros bigint NOT NULL CHECK (amount_micros > 0 AND amount_micros % 10000 = 0),
  fee_micros bigint NOT NULL CHECK (fee_micros >= 0),
  net_micros bigint NOT NULL CHECK (net_micros > 0 AND net_micros % 10000 = 0),
  method text NOT NULL CHECK (method IN ('standard', 'instant')),
  status text NOT NULL CHECK (status IN
    ('pending', 'queued', 'transferred', 'paid', 'failed', 'manual_reconciliation_required')),
  -- Keys of Stripe are named after the attempt; a new one begins only after a proven refusal.
  attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
  -- Calls that began under the present key, counted before they are made.
  tries integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
  payout_tries integer NOT NULL DEFAULT 0 CHECK (payout_tries >= 0),
  transfer_id text UNIQUE,
  destination_payment text UNIQUE,
  payout_id text UNIQUE,
  -- A payout that came to nothing: what it carried is paid by whoever carries its return.
  failed_payout_id text,
  -- The instant service was not given, so its fee is not kept.
  fee_waived boolean NOT NULL DEFAULT false,
  -- The books have it as paid; only a correcting transfer brings it back.
  posted boolean NOT NULL DEFAULT false,
  refunded boolean NOT NULL DEFAULT false,
  failure_reason text NOT NULL DEFAULT '',
  next_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  arrival_at timestamptz,
  UNIQUE (account_id, request_id),
  CHECK (amount_micros = fee_micros + net_micros),
  CHECK (status NOT IN ('transferred', 'paid') OR transfer_id IS NOT NULL),
  CHECK (status NOT IN ('pending', 'queued') OR transfer_id IS NULL)
);
CREATE INDEX withdrawal_newest
  ON billing.withdrawal (account_id, created_at DESC, withdrawal_id DESC);
CREATE INDEX withdrawal_due ON billing.withdrawal (next_at)
  WHERE status IN ('pending', 'queued', 'transferred');
CREATE INDEX withdrawal_account ON billing.withdrawal (stripe_account_id, status);

-- Stripe's balance beside ours, once a day; a difference that no open item explains is a finding.
CREATE TABLE billing.stripe_check (
  day date PRIMARY KEY,
  checked_at timestamptz NOT NULL,
  stripe_micros bigint NOT NULL,
  book_micros bigint NOT NULL,
  open_items jsonb NOT NULL,
  unexplained_micros bigint NOT NULL
);

GRANT SELECT, INSERT ON billing.stripe_event, billing.stripe_session, billing.stripe_dispute,
  billing.stripe_customer, billing.auto_top_up, billing.stripe_account, billing.withdrawal,
  billing.stripe_check TO darkbloom_billing;
GRANT UPDATE (state, tries, next_at, problem) ON billing.stripe_event TO darkbloom_billing;
GRANT UPDATE (external_id, url, status, payment_intent, charge_id, completed_at)
  ON billing.stripe_session TO darkbloom_billing;
GRANT UPDATE (state, closed_at) ON billing.stripe_dispute TO darkbloom_billing;
GRANT UPDATE (payment_method, card_brand, card_last4) ON billing.stripe_customer
  TO darkbloom_billing;
GRANT UPDATE (enabled, threshold_micros, amount_micros, monthly_cap_micros, disabled_reason,
  updated_at) ON billing.auto_top_up TO darkbloom_billing;
GRANT UPDATE (status, country, destination_type, destination_last4, instant_eligible,
  currently_due, updated_at, unlinked_at) ON billing.stripe_account TO darkbloom_billing;
GRANT UPDATE (status, attempt, tries, payout_tries, transfer_id, destination_payment, payout_id,
  failed_payout_id, fee_waived, posted, refunded, failure_reason, next_at, updated_at, arrival_at) ON billing.withdrawal
  TO darkbloom_billing;
GRANT UPDATE (checked_at, stripe_micros, book_micros, open_items, unexplained_micros)
  ON billing.stripe_check TO darkbloom_billing;
