-- Where a push reaches an app. A delivery address, private: never published, gone with its session.
CREATE TABLE attestation.push_addresses (
  provider_id text PRIMARY KEY REFERENCES attestation.sessions (provider_id) ON DELETE CASCADE,
  token text NOT NULL CHECK (token ~ '^[0-9a-f]{64,200}$'),
  environment text NOT NULL CHECK (environment IN ('production', 'development'))
);

-- What was asked; an answer takes its row out, so it counts once. One is outstanding per session.
CREATE TABLE attestation.code_challenges (
  provider_id text PRIMARY KEY REFERENCES attestation.sessions (provider_id) ON DELETE CASCADE,
  nonce bytea NOT NULL CHECK (octet_length(nonce) = 32),
  identity_key bytea NOT NULL CHECK (octet_length(identity_key) = 65),
  encryption_key bytea NOT NULL CHECK (octet_length(encryption_key) = 32),
  push_token_hash text NOT NULL,
  channel text NOT NULL CHECK (channel IN ('apns', 'resume')),
  create_time timestamptz NOT NULL
);

-- The newest answered push of an identity: it authorises a question over the stream, never a grant.
CREATE TABLE attestation.code_proofs (
  identity_key bytea PRIMARY KEY CHECK (octet_length(identity_key) = 65),
  encryption_key bytea NOT NULL CHECK (octet_length(encryption_key) = 32),
  push_token_hash text NOT NULL,
  version text NOT NULL,
  provider_id text NOT NULL REFERENCES attestation.sessions (provider_id) ON DELETE CASCADE,
  prove_time timestamptz NOT NULL
);
CREATE INDEX code_proofs_of_session ON attestation.code_proofs (provider_id);
