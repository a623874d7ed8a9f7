-- Who reads history, best on a replica: counts and amounts by id. No user, key, link, note, or anything
-- that Stripe calls somebody.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'darkbloom_reader') THEN
    CREATE ROLE darkbloom_reader NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN
  -- Whoever may make roles does it later, and calls the function below.
  NULL;
END $$;

CREATE FUNCTION billing.grant_history() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'darkbloom_reader') THEN
    RETURN false;
  END IF;
  GRANT USAGE ON SCHEMA ledger, billing TO darkbloom_reader;
  GRANT SELECT ON ledger.account, ledger.event, ledger.transfer, ledger.posting, ledger.block,
    billing.usage, billing.earning, billing.bonus TO darkbloom_reader;
  GRANT SELECT (withdrawal_id, account_id, amount_micros, fee_micros, net_micros, method, status,
    failure_reason, created_at, updated_at) ON billing.withdrawal TO darkbloom_reader;
  RETURN true;
END $$;
REVOKE ALL ON FUNCTION billing.grant_history() FROM PUBLIC;
SELECT billing.grant_history();
