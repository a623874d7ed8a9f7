CREATE TABLE registry.publishing_keys (
  key_sha256 bytea PRIMARY KEY CHECK (octet_length(key_sha256) = 32),
  label text NOT NULL UNIQUE,
  scopes text[] NOT NULL CHECK (scopes <@ ARRAY['publish', 'promote', 'alias']),
  active boolean NOT NULL DEFAULT true
);

CREATE TABLE registry.changes (
  generation bigint PRIMARY KEY,
  change_time timestamptz NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  subject text NOT NULL,
  detail jsonb NOT NULL
);

-- A record that can be rewritten is none.
CREATE FUNCTION registry.refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'changes are only ever added';
END $$;
CREATE TRIGGER changes_append_only
  BEFORE UPDATE OR DELETE ON registry.changes
  FOR EACH ROW EXECUTE FUNCTION registry.refuse_rewriting();
