ALTER TABLE attestation.code_releases
  ADD COLUMN staged boolean NOT NULL DEFAULT false,
  ADD COLUMN manifest bytea,
  ADD COLUMN manifest_signature bytea,
  ADD COLUMN manifest_key_id text,
  ADD CHECK (NOT (active AND staged)),
  ADD CHECK ((manifest IS NULL) = (manifest_signature IS NULL)
    AND (manifest IS NULL) = (manifest_key_id IS NULL));

-- The transparency log. Indices have no gaps; nothing in these tables ever changes or goes.
CREATE TABLE attestation.log_entries (
  log_index bigint PRIMARY KEY CHECK (log_index >= 0),
  kind text NOT NULL
    CHECK (kind IN ('release', 'receipt_key', 'verdict_key', 'catalog', 'receipts')),
  entry_key text UNIQUE,
  body bytea NOT NULL CHECK (octet_length(body) <= 1048576)
);
CREATE INDEX log_entries_kind ON attestation.log_entries (kind, log_index);

-- Without a foreign key: its check would need the privilege to update, which nobody has.
CREATE TABLE attestation.log_subjects (
  kind text NOT NULL,
  subject text NOT NULL,
  log_index bigint NOT NULL,
  PRIMARY KEY (kind, subject, log_index)
);

-- Perfect subtrees: leaves `place << level` up to the next place.
CREATE TABLE attestation.log_nodes (
  level smallint NOT NULL CHECK (level >= 0),
  place bigint NOT NULL CHECK (place >= 0),
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (level, place)
);

-- The trigger binds the owner too; the privileges are taken from him as well, so that only a
-- superuser who disables the trigger on purpose could rewrite history, and published heads would
-- convict him.
CREATE FUNCTION attestation.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  RAISE EXCEPTION 'the log is append-only';
END $$;

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['log_entries', 'log_subjects', 'log_nodes'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON attestation.%I '
      'FOR EACH ROW EXECUTE FUNCTION attestation.refuse_change()', name);
    EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON attestation.%I '
      'FOR EACH STATEMENT EXECUTE FUNCTION attestation.refuse_change()', name);
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON attestation.%I FROM PUBLIC, CURRENT_USER',
      name);
  END LOOP;
END $$;
