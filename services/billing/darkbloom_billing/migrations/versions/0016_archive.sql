-- What a receipt holds besides the countersign. Never its key: without it nobody, not even who
-- holds this table, can confirm a guess of what was asked or answered.
CREATE TABLE billing.receipt_proof (
  request_id text PRIMARY KEY,
  account_id text NOT NULL,
  attempt_id text NOT NULL,
  terminal bytea NOT NULL CHECK (length(terminal) <= 65536),
  terminal_signature bytea NOT NULL CHECK (length(terminal_signature) <= 256),
  verdict bytea NOT NULL CHECK (length(verdict) <= 65536),
  verdict_signature bytea NOT NULL CHECK (length(verdict_signature) <= 256),
  verdict_key_id text NOT NULL,
  identity_key bytea NOT NULL CHECK (length(identity_key) <= 65),
  recorded_at timestamptz NOT NULL,
  batch_id text,
  place integer,
  CHECK ((batch_id IS NULL) = (place IS NULL))
);
CREATE INDEX receipt_proof_attempt ON billing.receipt_proof (attempt_id);
CREATE INDEX receipt_proof_unsealed ON billing.receipt_proof (recorded_at, request_id)
  WHERE batch_id IS NULL;
CREATE INDEX receipt_proof_age ON billing.receipt_proof (recorded_at);

-- One leaf of the transparency log each. The leaves stay when a receipt of the batch is erased, so
-- that the others can still be proven.
CREATE TABLE billing.receipt_batch (
  batch_id text PRIMARY KEY,
  root_hash bytea NOT NULL CHECK (length(root_hash) = 32),
  leaves bytea NOT NULL CHECK (length(leaves) BETWEEN 32 AND 131072 AND length(leaves) % 32 = 0),
  sealed_at timestamptz NOT NULL,
  log_index bigint
);
CREATE INDEX receipt_batch_unanchored ON billing.receipt_batch (sealed_at) WHERE log_index IS NULL;
CREATE INDEX receipt_batch_age ON billing.receipt_batch (sealed_at);

INSERT INTO billing.erasure_rule VALUES
  (250, 'receipts', 'receipt_proof', 'account_id = $1', NULL);

GRANT SELECT, INSERT, DELETE ON billing.receipt_proof, billing.receipt_batch TO darkbloom_billing;
GRANT UPDATE (batch_id, place) ON billing.receipt_proof TO darkbloom_billing;
GRANT UPDATE (log_index) ON billing.receipt_batch TO darkbloom_billing;
