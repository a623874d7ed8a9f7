-- The general ledger: immutable two-sided transfers, balances that only a transfer can move.
-- Money is integer micro-USD (unit uUSD); key caps use the same machinery in their own unit (cap).

CREATE SCHEMA ledger;

CREATE TABLE ledger.account (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  path text NOT NULL UNIQUE,
  class text NOT NULL,
  unit text NOT NULL DEFAULT 'uUSD',
  normal "char" NOT NULL CHECK (normal IN ('D', 'C')),
  floor_zero boolean NOT NULL DEFAULT true,
  zero_at_commit boolean NOT NULL DEFAULT false,
  closed boolean NOT NULL DEFAULT false,
  dr bigint NOT NULL DEFAULT 0 CHECK (dr >= 0),
  cr bigint NOT NULL DEFAULT 0 CHECK (cr >= 0),
  dr_pend bigint NOT NULL DEFAULT 0 CHECK (dr_pend >= 0),
  cr_pend bigint NOT NULL DEFAULT 0 CHECK (cr_pend >= 0),
  version bigint NOT NULL DEFAULT 0,
  UNIQUE (id, unit, class),
  CHECK (floor_zero OR class = 'equity'),
  CONSTRAINT born_empty CHECK (version > 0 OR dr + cr + dr_pend + cr_pend = 0),
  CONSTRAINT no_overdraft CHECK (NOT floor_zero OR CASE normal
      WHEN 'C' THEN dr + dr_pend <= cr ELSE cr + cr_pend <= dr END)
) WITH (fillfactor = 50);  -- balances change in place: room for HOT updates

-- Every flow of money that may exist. A later programme adds its rows here first.
CREATE TABLE ledger.rule (
  code text,
  debit_class text,
  credit_class text,
  PRIMARY KEY (code, debit_class, credit_class)
);

INSERT INTO ledger.rule VALUES
  ('funding', 'stripe_asset', 'equity'),
  ('funding', 'equity', 'budget'),
  ('grant', 'budget', 'user_promo'),
  ('hold', 'user_promo', 'user_charge'),
  ('hold', 'user_credit', 'user_charge'),
  ('hold', 'user_earned', 'user_charge'),
  ('payout', 'user_charge', 'user_earned'),
  ('cap', 'cap_source', 'key_cap'),
  ('hold', 'key_cap', 'cap_sink');

CREATE TABLE ledger.event (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  idem_key text COLLATE "C" NOT NULL UNIQUE,
  kind text NOT NULL,
  body_hash bytea NOT NULL,
  body jsonb NOT NULL,
  result jsonb NOT NULL,
  occurred_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ledger.transfer (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id bigint NOT NULL REFERENCES ledger.event,
  mode text NOT NULL CHECK (mode IN ('single', 'pending', 'post', 'void')),
  code text NOT NULL,
  unit text NOT NULL,
  debit_id bigint NOT NULL,
  debit_class text NOT NULL,
  credit_id bigint NOT NULL,
  credit_class text NOT NULL,
  amount bigint NOT NULL CHECK (amount > 0),
  pending_id bigint REFERENCES ledger.transfer,
  created_at timestamptz NOT NULL DEFAULT now(),
  CHECK (debit_id <> credit_id),
  CHECK ((mode IN ('post', 'void')) = (pending_id IS NOT NULL)),
  FOREIGN KEY (debit_id, unit, debit_class) REFERENCES ledger.account (id, unit, class),
  FOREIGN KEY (credit_id, unit, credit_class) REFERENCES ledger.account (id, unit, class),
  FOREIGN KEY (code, debit_class, credit_class) REFERENCES ledger.rule
);
CREATE UNIQUE INDEX transfer_resolved_once ON ledger.transfer (pending_id)
  WHERE pending_id IS NOT NULL;
CREATE INDEX transfer_event ON ledger.transfer (event_id);

-- Without foreign keys: its only writer is the trigger below, which has both rows in its hands, and
-- the four checks of each transfer would cost a tenth of the whole ledger's time. The auditor looks.
CREATE TABLE ledger.posting (
  account_id bigint NOT NULL,
  version bigint NOT NULL,
  transfer_id bigint NOT NULL,
  side "char" NOT NULL CHECK (side IN ('D', 'C')),
  dr bigint NOT NULL,
  cr bigint NOT NULL,
  dr_pend bigint NOT NULL,
  cr_pend bigint NOT NULL,
  PRIMARY KEY (account_id, version),
  UNIQUE (transfer_id, side)
);

-- The only writer of balances: moves both accounts of a new transfer, lower id first, and writes
-- one posting per side. Runs as the owner, so the service needs no UPDATE privilege.
CREATE FUNCTION ledger.apply_transfer() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  p ledger.transfer;
  acc ledger.account;
  sd "char";
  acct bigint;
  d_post bigint := 0;
  d_pend bigint := 0;
BEGIN
  IF NEW.pending_id IS NOT NULL THEN
    SELECT * INTO p FROM ledger.transfer WHERE id = NEW.pending_id;
    IF p.mode IS DISTINCT FROM 'pending'
       OR (p.debit_id, p.credit_id, p.unit) IS DISTINCT FROM (NEW.debit_id, NEW.credit_id, NEW.unit)
       OR NEW.amount > p.amount OR (NEW.mode = 'void' AND NEW.amount <> p.amount) THEN
      RAISE EXCEPTION 'bad resolution of pending transfer %', NEW.pending_id
        USING ERRCODE = 'LG001';
    END IF;
  END IF;

  CASE NEW.mode
    WHEN 'single' THEN d_post := NEW.amount;
    WHEN 'pending' THEN d_pend := NEW.amount;
    WHEN 'post' THEN d_post := NEW.amount; d_pend := -p.amount;
    WHEN 'void' THEN d_pend := -p.amount;
  END CASE;

  FOREACH sd IN ARRAY (CASE WHEN NEW.debit_id < NEW.credit_id
      THEN ARRAY['D', 'C']::"char"[] ELSE ARRAY['C', 'D']::"char"[] END) LOOP
    acct := CASE sd WHEN 'D' THEN NEW.debit_id ELSE NEW.credit_id END;
    UPDATE ledger.account a SET
      dr = a.dr + CASE sd WHEN 'D' THEN d_post ELSE 0 END,
      dr_pend = a.dr_pend + CASE sd WHEN 'D' THEN d_pend ELSE 0 END,
      cr = a.cr + CASE sd WHEN 'C' THEN d_post ELSE 0 END,
      cr_pend = a.cr_pend + CASE sd WHEN 'C' THEN d_pend ELSE 0 END,
      version = a.version + 1
    WHERE a.id = acct RETURNING * INTO acc;
    IF acc.closed AND NEW.mode IN ('single', 'pending') THEN
      RAISE EXCEPTION 'account % is closed', acc.path USING ERRCODE = 'LG002';
    END IF;
    INSERT INTO ledger.posting
      VALUES (acc.id, acc.version, NEW.id, sd, acc.dr, acc.cr, acc.dr_pend, acc.cr_pend);
  END LOOP;
  RETURN NULL;
END $$;
CREATE TRIGGER apply_transfer AFTER INSERT ON ledger.transfer
  FOR EACH ROW EXECUTE FUNCTION ledger.apply_transfer();

CREATE FUNCTION ledger.guard_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.path, NEW.unit, NEW.class, NEW.normal, NEW.zero_at_commit)
       IS DISTINCT FROM (OLD.id, OLD.path, OLD.unit, OLD.class, OLD.normal, OLD.zero_at_commit)
     OR (OLD.floor_zero AND NOT NEW.floor_zero)
     OR NEW.version <> OLD.version + ((NEW.dr, NEW.cr, NEW.dr_pend, NEW.cr_pend)
       IS DISTINCT FROM (OLD.dr, OLD.cr, OLD.dr_pend, OLD.cr_pend))::int
  THEN
    RAISE EXCEPTION 'account % may change only through a transfer', OLD.path
      USING ERRCODE = 'LG003';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_account BEFORE UPDATE ON ledger.account
  FOR EACH ROW EXECUTE FUNCTION ledger.guard_account();

CREATE FUNCTION ledger.check_account() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  a ledger.account;
BEGIN
  IF NEW.version > 0 AND NOT EXISTS (
      SELECT 1 FROM ledger.posting p WHERE p.account_id = NEW.id AND p.version = NEW.version
      AND (p.dr, p.cr, p.dr_pend, p.cr_pend) = (NEW.dr, NEW.cr, NEW.dr_pend, NEW.cr_pend)) THEN
    RAISE EXCEPTION 'account % moved without a posting', NEW.path USING ERRCODE = 'LG004';
  END IF;
  IF NEW.zero_at_commit THEN
    SELECT * INTO a FROM ledger.account WHERE id = NEW.id;
    IF a.dr <> a.cr THEN
      RAISE EXCEPTION 'clearing account % not empty at commit', a.path USING ERRCODE = 'LG005';
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_account AFTER INSERT OR UPDATE ON ledger.account
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger.check_account();

CREATE FUNCTION ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on % refused: append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'LG006';
END $$;
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['event', 'transfer', 'posting'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ledger.%I '
      'FOR EACH ROW EXECUTE FUNCTION ledger.refuse()', t);
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ledger.%I '
      'FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse()', t);
  END LOOP;
END $$;
CREATE TRIGGER no_delete BEFORE DELETE ON ledger.account
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse();

-- Every command locks all its accounts first and in id order, so commands cannot deadlock.
CREATE FUNCTION ledger.lock_accounts(ids bigint[]) RETURNS SETOF bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
  SELECT id FROM ledger.account WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE
$$;

-- What each transfer does to the posted and the pending side of its two accounts: for the auditor.
CREATE VIEW ledger.effect AS
  SELECT t.id, s.account_id, s.side,
    CASE t.mode WHEN 'single' THEN t.amount WHEN 'post' THEN t.amount ELSE 0 END AS posted,
    CASE t.mode WHEN 'pending' THEN t.amount WHEN 'post' THEN -p.amount
      WHEN 'void' THEN -p.amount ELSE 0 END AS pending
  FROM ledger.transfer t LEFT JOIN ledger.transfer p ON p.id = t.pending_id
  CROSS JOIN LATERAL (VALUES (t.debit_id, 'D'::"char"), (t.credit_id, 'C'::"char"))
    AS s (account_id, side);

-- The owner's capital and the budget that grants are paid from.
INSERT INTO ledger.account (path, class, normal) VALUES
  ('asset:owner:available', 'stripe_asset', 'D'),
  ('platform:equity', 'equity', 'C'),
  ('platform:budget:promo', 'budget', 'C');

-- Roles belong to the whole cluster: another database of it may be making the same one right now.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'darkbloom_billing') THEN
    CREATE ROLE darkbloom_billing NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO darkbloom_billing;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO darkbloom_billing;
GRANT INSERT ON ledger.event, ledger.transfer TO darkbloom_billing;
GRANT INSERT (path, class, unit, normal, zero_at_commit) ON ledger.account TO darkbloom_billing;
GRANT EXECUTE ON FUNCTION ledger.lock_accounts(bigint[]) TO darkbloom_billing;
