-- Users, sign-in, keys with every limit, device codes, provider tokens.

-- An account on its way out: none of its credentials counts from then on.
ALTER TABLE billing.account ADD COLUMN closing_at timestamptz;

-- Who has signed in: an issuer's word for a person, and the account that is theirs.
CREATE TABLE billing.app_user (
  user_id text PRIMARY KEY,
  issuer text NOT NULL,
  subject text NOT NULL,
  account_id text NOT NULL REFERENCES billing.account,
  email text NOT NULL,
  email_verified boolean NOT NULL,
  created_at timestamptz NOT NULL,
  UNIQUE (issuer, subject)
);
CREATE INDEX app_user_account ON billing.app_user (account_id);

-- Return the user behind an issuer's word, made with an account on first use; two first uses at once
-- make one. A changed e-mail is taken over.
CREATE FUNCTION billing.sign_in(
  p_issuer text, p_subject text, p_email text, p_verified boolean, p_name text,
  p_user text, p_account text, p_now timestamptz)
RETURNS SETOF billing.app_user LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

-- Keys: the rest of their limits. A limit of 0 lets nothing through.
ALTER TABLE billing.api_key
  DROP CONSTRAINT api_key_rpm_limit_check,
  ADD CONSTRAINT api_key_rpm_limit_check CHECK (rpm_limit >= 0),
  ADD COLUMN itpm_limit bigint CHECK (itpm_limit >= 0),
  ADD COLUMN otpm_limit bigint CHECK (otpm_limit >= 0),
  ADD COLUMN self_route_only boolean NOT NULL DEFAULT false,
  ADD COLUMN disabled boolean NOT NULL DEFAULT false;
CREATE INDEX api_key_account ON billing.api_key (account_id);

-- Apart from the keys, so that a use is not a change that every gateway must hear of.
CREATE TABLE billing.api_key_use (
  key_id text PRIMARY KEY REFERENCES billing.api_key,
  used_at timestamptz NOT NULL
);

-- A change names a key (its old hash too, where it was rotated) or a whole account.
ALTER TABLE billing.key_change ADD COLUMN account_id text NOT NULL DEFAULT '';

CREATE FUNCTION billing.note_change(p_key text, p_hash bytea, p_account text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  next bigint;
BEGIN
  UPDATE billing.key_generation SET generation = generation + 1 RETURNING generation INTO next;
  INSERT INTO billing.key_change (generation, key_id, key_hash, account_id)
    VALUES (next, p_key, p_hash, p_account);
  PERFORM pg_notify('billing_keys', next::text);
END $$;

CREATE OR REPLACE FUNCTION billing.note_key_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.key_hash <> NEW.key_hash THEN
    PERFORM billing.note_change(OLD.key_id, OLD.key_hash, '');
  END IF;
  PERFORM billing.note_change(NEW.key_id, NEW.key_hash, '');
  RETURN NULL;
END $$;

CREATE FUNCTION billing.note_account_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM billing.note_change('', '', NEW.account_id);
  RETURN NULL;
END $$;
CREATE TRIGGER note_account_change AFTER UPDATE ON billing.account
  FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION billing.note_account_change();

-- Device codes ------------------------------------------------------------------------------------

-- Kept for a while after their end, so that a late poll hears why.
CREATE TABLE billing.device_code (
  code_hash bytea PRIMARY KEY CHECK (length(code_hash) = 32),
  user_code text NOT NULL UNIQUE,
  machine_name text NOT NULL,
  source bytea NOT NULL,
  state text NOT NULL DEFAULT 'pending'
    CHECK (state IN ('pending', 'approved', 'denied', 'consumed')),
  account_id text REFERENCES billing.account,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  next_poll_at timestamptz NOT NULL,
  CHECK ((account_id IS NULL) = (state = 'pending'))
);
CREATE INDEX device_code_source ON billing.device_code (source, expires_at);
CREATE INDEX device_code_expiry ON billing.device_code (expires_at);

-- Codes that an account typed and that do not exist: a guesser has few tries.
CREATE TABLE billing.device_guess (
  account_id text PRIMARY KEY REFERENCES billing.account,
  misses integer NOT NULL,
  since timestamptz NOT NULL
);

CREATE TABLE billing.provider_token (
  token_id text PRIMARY KEY,
  account_id text NOT NULL REFERENCES billing.account,
  token_hash bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
  label text NOT NULL,
  machine_name text NOT NULL,
  created_at timestamptz NOT NULL,
  revoked_at timestamptz
);
CREATE INDEX provider_token_account ON billing.provider_token (account_id);

CREATE TABLE billing.link_challenge (
  nonce_hash bytea PRIMARY KEY CHECK (length(nonce_hash) = 32),
  account_id text NOT NULL REFERENCES billing.account,
  identity_key bytea NOT NULL,
  expires_at timestamptz NOT NULL
);
CREATE INDEX link_challenge_account ON billing.link_challenge (account_id, expires_at);
CREATE INDEX link_challenge_expiry ON billing.link_challenge (expires_at);

-- Begin a device login; false: this source, or everybody together, has too many open.
CREATE FUNCTION billing.open_device_code(
  p_hash bytea, p_user_code text, p_machine text, p_source bytea, p_now timestamptz,
  p_until timestamptz, p_next_poll timestamptz, p_per_source bigint, p_all bigint)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('device_code', 0));
  IF EXISTS (SELECT FROM billing.device_code d WHERE d.code_hash = p_hash) THEN
    RETURN 'opened';
  END IF;
  IF (SELECT count(*) FROM billing.device_code d
      WHERE d.source = p_source AND d.expires_at > p_now) >= p_per_source
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

-- One poll. Of an approved code the first makes the token and ends it; a repetition with the same
-- token, whose answer was lost on the way to us, is that first one again.
CREATE FUNCTION billing.poll_device_code(
  p_hash bytea, p_now timestamptz, p_next_poll timestamptz, p_token text, p_token_hash bytea)
RETURNS TABLE (state text, account_id text, wait_until timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

-- Look at a typed code, or decide on it. Misses are counted: a guesser's account has to wait.
CREATE FUNCTION billing.judge_device_code(
  p_user_code text, p_account text, p_decision text, p_now timestamptz,
  p_misses integer, p_forget timestamptz)
RETURNS TABLE (verdict text, machine_name text, state text, created_at timestamptz,
  expires_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

-- Use up a nonce; true: it was there for this account and this key, in time.
CREATE FUNCTION billing.use_link_challenge(
  p_hash bytea, p_account text, p_identity bytea, p_now timestamptz)
RETURNS boolean LANGUAGE sql SET search_path = pg_catalog AS $$
  WITH used AS (DELETE FROM billing.link_challenge c WHERE c.nonce_hash = p_hash
    RETURNING c.account_id, c.identity_key, c.expires_at)
  SELECT EXISTS (SELECT FROM used u WHERE u.account_id = p_account
    AND u.identity_key = p_identity AND u.expires_at > p_now)
$$;

GRANT SELECT, INSERT ON billing.app_user, billing.api_key_use, billing.device_code,
  billing.device_guess, billing.provider_token, billing.link_challenge TO darkbloom_billing;
GRANT UPDATE (closing_at) ON billing.account TO darkbloom_billing;
GRANT UPDATE (email, email_verified), DELETE ON billing.app_user TO darkbloom_billing;
GRANT UPDATE (key_hash, label, name, disabled, allowed_models, rpm_limit, itpm_limit, otpm_limit,
  self_route_only, expires_at) ON billing.api_key TO darkbloom_billing;
GRANT UPDATE (used_at) ON billing.api_key_use TO darkbloom_billing;
GRANT UPDATE (state, account_id, next_poll_at), DELETE ON billing.device_code TO darkbloom_billing;
GRANT UPDATE (misses, since), DELETE ON billing.device_guess TO darkbloom_billing;
GRANT UPDATE (revoked_at), DELETE ON billing.provider_token TO darkbloom_billing;
GRANT DELETE ON billing.link_challenge TO darkbloom_billing;

-- Create a key with every field. A repeat is judged by the caller, who reads what is there.
CREATE FUNCTION billing.create_full_key(
  p_key text, p_account text, p_hash bytea, p_name text, p_label text, p_models text[],
  p_limit bigint, p_reset text, p_rpm integer, p_itpm bigint, p_otpm bigint, p_self boolean,
  p_expires timestamptz, p_now timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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
