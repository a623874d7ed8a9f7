-- What billing knows besides money: accounts, keys, links, prices, leases, histories, receipts.

CREATE TABLE billing.account (
  account_id text PRIMARY KEY,
  display_name text NOT NULL,
  role text NOT NULL DEFAULT '' CHECK (role IN ('', 'service')),
  promo_id bigint NOT NULL UNIQUE REFERENCES ledger.account,
  credit_id bigint NOT NULL UNIQUE REFERENCES ledger.account,
  earned_id bigint NOT NULL UNIQUE REFERENCES ledger.account,
  charge_id bigint NOT NULL UNIQUE REFERENCES ledger.account,
  created_at timestamptz NOT NULL
);

CREATE TABLE billing.api_key (
  key_id text PRIMARY KEY,
  account_id text NOT NULL REFERENCES billing.account,
  key_hash bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32),
  name text NOT NULL,
  label text NOT NULL,
  allowed_models text[] NOT NULL,
  limit_micros bigint CHECK (limit_micros >= 0),
  rpm_limit integer CHECK (rpm_limit > 0),
  cap_id bigint UNIQUE REFERENCES ledger.account,
  cap_sink_id bigint UNIQUE REFERENCES ledger.account,
  expires_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz NOT NULL,
  CHECK ((limit_micros IS NULL) = (cap_id IS NULL)),
  CHECK ((cap_id IS NULL) = (cap_sink_id IS NULL))
);

-- One row: its lock makes generations appear in commit order, so a watcher never skips one.
CREATE TABLE billing.key_generation (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  generation bigint NOT NULL
);
INSERT INTO billing.key_generation (generation) VALUES (0);

CREATE TABLE billing.key_change (
  generation bigint PRIMARY KEY,
  key_id text NOT NULL,
  key_hash bytea NOT NULL
);

CREATE FUNCTION billing.note_key_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  next bigint;
BEGIN
  UPDATE billing.key_generation SET generation = generation + 1 RETURNING generation INTO next;
  INSERT INTO billing.key_change VALUES (next, NEW.key_id, NEW.key_hash);
  PERFORM pg_notify('billing_keys', next::text);
  RETURN NULL;
END $$;
CREATE TRIGGER note_key_change AFTER INSERT OR UPDATE ON billing.api_key
  FOR EACH ROW EXECUTE FUNCTION billing.note_key_change();

CREATE TABLE billing.provider_link (
  identity_key bytea PRIMARY KEY CHECK (length(identity_key) = 65),
  account_id text NOT NULL REFERENCES billing.account,
  name text NOT NULL,
  linked_at timestamptz NOT NULL
);

CREATE TABLE billing.price (
  sequence bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  price_id text PRIMARY KEY,
  request_id text NOT NULL UNIQUE,
  body_hash bytea NOT NULL,
  build text NOT NULL,
  input_micros bigint NOT NULL CHECK (input_micros > 0),
  output_micros bigint NOT NULL CHECK (output_micros > 0),
  cache_read_micros bigint NOT NULL CHECK (cache_read_micros BETWEEN 0 AND input_micros),
  minimum_charge_micros bigint NOT NULL CHECK (minimum_charge_micros >= 0),
  effective_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL
);

CREATE FUNCTION billing.note_price() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_notify('billing_prices', NEW.price_id);
  RETURN NULL;
END $$;
CREATE TRIGGER note_price AFTER INSERT ON billing.price
  FOR EACH ROW EXECUTE FUNCTION billing.note_price();

-- How long an open hold may wait for its end. Losing this table loses no money.
CREATE TABLE billing.lease (
  request_id text PRIMARY KEY,
  lease_until timestamptz NOT NULL
);
CREATE INDEX lease_expiry ON billing.lease (lease_until);

CREATE TABLE billing.usage (
  request_id text PRIMARY KEY,
  account_id text NOT NULL,
  attempt_id text NOT NULL,
  key_id text NOT NULL,
  model text NOT NULL,
  build text NOT NULL,
  prompt_tokens integer NOT NULL,
  cached_tokens integer NOT NULL,
  completion_tokens integer NOT NULL,
  charge_micros bigint NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('completed', 'cancelled', 'broken')),
  terminal_sha256 text NOT NULL,
  settled_at timestamptz NOT NULL
);
CREATE INDEX usage_newest ON billing.usage (account_id, settled_at DESC, request_id DESC);

CREATE TABLE billing.earning (
  request_id text PRIMARY KEY,
  account_id text NOT NULL,
  build text NOT NULL,
  amount_micros bigint NOT NULL,
  prompt_tokens integer NOT NULL,
  completion_tokens integer NOT NULL,
  identity_key bytea NOT NULL,
  settled_at timestamptz NOT NULL
);
CREATE INDEX earning_newest ON billing.earning (account_id, settled_at DESC, request_id DESC);

CREATE TABLE billing.receipt (
  request_id text PRIMARY KEY,
  document bytea NOT NULL,
  signature bytea NOT NULL,
  key_id text NOT NULL,
  terminal_sha256 text NOT NULL,
  recorded_at timestamptz NOT NULL
);

GRANT USAGE ON SCHEMA billing TO darkbloom_billing;
GRANT SELECT ON ALL TABLES IN SCHEMA billing TO darkbloom_billing;
GRANT INSERT ON billing.account, billing.api_key, billing.key_change, billing.provider_link,
  billing.price, billing.lease, billing.usage, billing.earning, billing.receipt
  TO darkbloom_billing;
GRANT UPDATE (revoked_at) ON billing.api_key TO darkbloom_billing;
GRANT UPDATE (generation) ON billing.key_generation TO darkbloom_billing;
GRANT UPDATE (lease_until), DELETE ON billing.lease TO darkbloom_billing;
