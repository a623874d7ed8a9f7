-- Logs that an owner sends in: few for each account, for two weeks, never more than a bound in all.

CREATE TABLE billing.log_report (
  report_id text PRIMARY KEY,
  account_id text NOT NULL REFERENCES billing.account,
  token_id text NOT NULL,
  size integer NOT NULL CHECK (size BETWEEN 1 AND 10485760),
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL
);
CREATE INDEX log_report_account ON billing.log_report (account_id, created_at DESC);
CREATE INDEX log_report_expiry ON billing.log_report (expires_at);

-- A report is there once its parts come to its size.
CREATE TABLE billing.log_report_part (
  report_id text NOT NULL REFERENCES billing.log_report ON DELETE CASCADE,
  number integer NOT NULL CHECK (number BETWEEN 0 AND 9),
  content bytea NOT NULL CHECK (length(content) BETWEEN 1 AND 1048576),
  PRIMARY KEY (report_id, number)
);

-- Make room and begin a report; false: all together are too large. The oldest of an account give way.
CREATE FUNCTION billing.open_log_report(
  p_report text, p_account text, p_token text, p_size integer, p_now timestamptz,
  p_until timestamptz, p_kept integer, p_all bigint)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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

INSERT INTO billing.erasure_rule VALUES
  (240, 'log_reports', 'log_report', 'account_id = $1', NULL);

GRANT SELECT, INSERT, DELETE ON billing.log_report, billing.log_report_part TO darkbloom_billing;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO darkbloom_billing;
