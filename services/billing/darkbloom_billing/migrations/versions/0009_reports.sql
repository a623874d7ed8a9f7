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
