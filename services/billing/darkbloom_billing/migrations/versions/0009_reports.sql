-- Prices of providers' own, roll-ups of work for reports and public figures, public names.

-- Empty account: the platform's row. An ended row says that from then on there is no own price.
ALTER TABLE billing.price
  ADD COLUMN account_id text NOT NULL DEFAULT '',
  ADD COLUMN ended boolean NOT NULL DEFAULT false,
  ADD CONSTRAINT platform_price_never_ends CHECK (NOT ended OR account_id <> '');
CREATE INDEX price_in_force
  ON billing.price (account_id, build, effective_at DESC, sequence DESC);

-- Who pays wholesale is part of what each replica's price book knows.
CREATE FUNCTION billing.note_role() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_notify('billing_prices', NEW.account_id);
  RETURN NULL;
END $$;
CREATE TRIGGER note_role AFTER UPDATE OF role ON billing.account
  FOR EACH ROW WHEN (NEW.role IS DISTINCT FROM OLD.role) EXECUTE FUNCTION billing.note_role();
CREATE INDEX account_wholesale ON billing.account (account_id) WHERE role = 'service';

-- Work and rewards that are booked but not yet counted. A row appears in the transaction that books,
-- and goes in the transaction that counts, so nothing is counted twice or forgotten.
CREATE TABLE billing.uncounted (
  request_id text,
  transfer_id bigint,
  CHECK ((request_id IS NULL) <> (transfer_id IS NULL))
);

CREATE FUNCTION billing.note_work() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO billing.uncounted (request_id) SELECT f.request_id FROM fresh f;
  RETURN NULL;
END $$;
CREATE TRIGGER note_work AFTER INSERT ON billing.earning
  REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION billing.note_work();

-- Money from a budget that its owner may withdraw one day is a reward, whatever the programme.
CREATE FUNCTION billing.note_reward() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO billing.uncounted (transfer_id) VALUES (NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER note_reward AFTER INSERT ON ledger.transfer
  FOR EACH ROW WHEN (NEW.debit_class = 'budget' AND NEW.mode = 'single'
    AND NEW.credit_class IN ('user_earned', 'user_maturing'))
  EXECUTE FUNCTION billing.note_reward();

-- Roll-ups. By account and hour for windows and boards, kept for a month; by account, day, machine and
-- build for insights; by account and machine for ever; by minute over everybody, kept for an hour.
CREATE TABLE billing.work_hour (
  account_id text NOT NULL,
  hour timestamptz NOT NULL,
  work_micros bigint NOT NULL,
  reward_micros bigint NOT NULL,
  prompt_tokens bigint NOT NULL,
  completion_tokens bigint NOT NULL,
  jobs bigint NOT NULL,
  PRIMARY KEY (account_id, hour)
);
CREATE INDEX work_hour_time ON billing.work_hour (hour);

CREATE TABLE billing.work_day (
  account_id text NOT NULL,
  day date NOT NULL,
  identity_key bytea NOT NULL,
  build text NOT NULL,
  work_micros bigint NOT NULL,
  reward_micros bigint NOT NULL,
  prompt_tokens bigint NOT NULL,
  completion_tokens bigint NOT NULL,
  jobs bigint NOT NULL,
  PRIMARY KEY (account_id, day, identity_key, build)
);

CREATE TABLE billing.work_life (
  account_id text NOT NULL,
  identity_key bytea NOT NULL,
  work_micros bigint NOT NULL,
  reward_micros bigint NOT NULL,
  prompt_tokens bigint NOT NULL,
  completion_tokens bigint NOT NULL,
  jobs bigint NOT NULL,
  PRIMARY KEY (account_id, identity_key)
);

CREATE TABLE billing.work_minute (
  minute timestamptz PRIMARY KEY,
  prompt_tokens bigint NOT NULL,
  completion_tokens bigint NOT NULL,
  jobs bigint NOT NULL
);

-- Count at most p_limit of what waits; returns how many. One at a time: who finds the lock taken
-- leaves the work to its holder.
CREATE FUNCTION billing.count_work(p_limit int) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

-- What was earned before there were roll-ups.
INSERT INTO billing.uncounted (request_id) SELECT request_id FROM billing.earning;

-- How accounts that chose something appear in public; all others have a pseudonym.
CREATE TABLE billing.public_name (
  account_id text PRIMARY KEY REFERENCES billing.account,
  name text,
  folded text UNIQUE,
  changed_at timestamptz NOT NULL,
  CHECK ((name IS NULL) = (folded IS NULL))
);
COMMENT ON COLUMN billing.public_name.name IS 'NULL: on no board';

-- Whoever is erased keeps no chosen name; a row that says nothing but "hidden" stays.
INSERT INTO billing.erasure_rule VALUES
  (120, 'public_name', 'public_name', 'account_id = $1 AND name IS NOT NULL',
    'name = NULL, folded = NULL');

-- Pseudonyms are keyed, so that nobody who guesses account ids can match them. The key never leaves.
CREATE TABLE billing.pseudonym_key (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  key bytea NOT NULL CHECK (length(key) = 32)
);
INSERT INTO billing.pseudonym_key (key)
  SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());

GRANT SELECT, INSERT, DELETE ON billing.uncounted TO darkbloom_billing;
GRANT SELECT, INSERT, UPDATE ON billing.work_day, billing.work_life TO darkbloom_billing;
GRANT SELECT, INSERT, UPDATE, DELETE ON billing.work_hour, billing.work_minute, billing.public_name
  TO darkbloom_billing;
GRANT SELECT ON billing.pseudonym_key TO darkbloom_billing;
REVOKE ALL ON FUNCTION billing.count_work(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.count_work(int) TO darkbloom_billing;
