-- What was presented and what it was found to be worth. No software evidence is worth `hardware`.
CREATE TABLE attestation.registrations (
  registration_id text PRIMARY KEY,
  provider_id text NOT NULL UNIQUE,
  blob bytea NOT NULL,
  signature bytea NOT NULL,
  encryption_key bytea NOT NULL,
  version text NOT NULL,
  backend text NOT NULL,
  python_hash text NOT NULL,
  runtime_hash text NOT NULL,
  template_hashes jsonb NOT NULL,
  owner_account_id text NOT NULL,
  accepted boolean NOT NULL,
  trust_level text NOT NULL CHECK (trust_level IN ('none', 'self_signed')),
  findings text[] NOT NULL,
  identity_key bytea NOT NULL CHECK (octet_length(identity_key) IN (0, 65)),
  binary_hash text,
  create_time timestamptz NOT NULL,
  CHECK (NOT accepted OR (octet_length(identity_key) = 65 AND octet_length(encryption_key) = 32))
);

CREATE TABLE attestation.sessions (
  provider_id text PRIMARY KEY REFERENCES attestation.registrations (provider_id),
  failures integer NOT NULL DEFAULT 0,
  timeouts integer NOT NULL DEFAULT 0,
  untrusted text NOT NULL DEFAULT ''
);

CREATE TABLE attestation.challenges (
  challenge_id text PRIMARY KEY,
  provider_id text NOT NULL REFERENCES attestation.sessions (provider_id),
  nonce text NOT NULL UNIQUE,
  asked_at text NOT NULL,
  create_time timestamptz NOT NULL,
  expire_time timestamptz NOT NULL,
  state text NOT NULL
    CHECK (state IN ('pending', 'superseded', 'timeout', 'expired', 'passed', 'failed')),
  status bytea,
  signature bytea,
  findings text[],
  judge_time timestamptz
);
CREATE UNIQUE INDEX challenges_one_pending ON attestation.challenges (provider_id)
  WHERE state = 'pending';

CREATE TABLE attestation.verdicts (
  verdict_id text PRIMARY KEY,
  provider_id text NOT NULL REFERENCES attestation.sessions (provider_id),
  code_release text NOT NULL,
  trust_level text NOT NULL CHECK (trust_level IN ('none', 'self_signed')),
  admission text NOT NULL CHECK (admission IN ('owner', 'development')),
  document bytea NOT NULL,
  signature bytea NOT NULL,
  key_id text NOT NULL,
  issue_time timestamptz NOT NULL,
  expire_time timestamptz NOT NULL,
  CHECK (expire_time <= issue_time + interval '16 minutes')
);
CREATE INDEX verdicts_of_session ON attestation.verdicts (provider_id, expire_time);
CREATE INDEX verdicts_of_release ON attestation.verdicts (code_release, expire_time);

-- One row, locked by whoever revokes: generations appear in order, so no watcher can skip one.
CREATE TABLE attestation.generation (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  generation bigint NOT NULL CHECK (generation >= 0)
);
INSERT INTO attestation.generation (generation) VALUES (0);

CREATE TABLE attestation.revocations (
  generation bigint PRIMARY KEY CHECK (generation > 0),
  revocation_id text NOT NULL UNIQUE,
  verdict_id text NOT NULL UNIQUE REFERENCES attestation.verdicts (verdict_id),
  reason text NOT NULL,
  document bytea NOT NULL,
  signature bytea NOT NULL,
  key_id text NOT NULL,
  issue_time timestamptz NOT NULL
);

CREATE TABLE attestation.violations (
  report_id text PRIMARY KEY,
  provider_id text NOT NULL REFERENCES attestation.sessions (provider_id),
  attempt_id text NOT NULL,
  kind text NOT NULL,
  revocation_id text REFERENCES attestation.revocations (revocation_id),
  create_time timestamptz NOT NULL
);

CREATE TABLE attestation.code_releases (
  code_release text PRIMARY KEY,
  version text NOT NULL,
  platform text NOT NULL,
  python_hash text NOT NULL,
  runtime_hash text NOT NULL,
  template_hashes jsonb NOT NULL,
  development boolean NOT NULL,
  active boolean NOT NULL,
  create_time timestamptz NOT NULL
);

CREATE TABLE attestation.receipt_keys (
  key_id text PRIMARY KEY,
  public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
  gateway text NOT NULL,
  create_time timestamptz NOT NULL,
  retire_time timestamptz
);
