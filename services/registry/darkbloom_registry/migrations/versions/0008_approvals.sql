-- Calls that wait for a second key; gone with it, or after an hour.
CREATE TABLE registry.approvals (
  digest bytea NOT NULL CHECK (octet_length(digest) = 32),
  label text NOT NULL,
  ask_time timestamptz NOT NULL,
  PRIMARY KEY (digest, label)
);
