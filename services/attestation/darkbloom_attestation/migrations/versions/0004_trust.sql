-- One order over sessions, evidence and tombstones, whatever the clocks of replicas say.
CREATE SEQUENCE attestation.evidence_seq;

-- What trust can be taken from for good: an enclave key (`key:<sha-256>`) or a serial (`serial:<hash>`).
-- Everything that came before the tombstone counts no more.
CREATE TABLE attestation.subjects (
  subject text PRIMARY KEY,
  tombstone_seq bigint NOT NULL DEFAULT 0,
  tombstone_reason text NOT NULL DEFAULT '',
  tombstone_time timestamptz
);

ALTER TABLE attestation.registrations
  ADD COLUMN serial_hash bytea CHECK (octet_length(serial_hash) = 32);
CREATE INDEX registrations_of_identity ON attestation.registrations (identity_key, create_time);

ALTER TABLE attestation.sessions
  ADD COLUMN seq bigint NOT NULL DEFAULT nextval('attestation.evidence_seq'),
  ADD COLUMN posture_since timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN continues text NOT NULL DEFAULT '',
  ADD COLUMN seen_time timestamptz,
  ADD COLUMN proof_time timestamptz;

CREATE TABLE attestation.app_attest_keys (
  key_id bytea PRIMARY KEY CHECK (octet_length(key_id) = 32),
  public_key bytea NOT NULL CHECK (octet_length(public_key) = 65),
  environment text NOT NULL CHECK (environment IN ('production', 'development')),
  owner_account_id text NOT NULL,
  counter bigint NOT NULL CHECK (counter >= 0),
  document bytea NOT NULL,
  attestation bytea NOT NULL,
  create_time timestamptz NOT NULL,
  revoke_time timestamptz,
  revoke_reason text NOT NULL DEFAULT ''
);

-- An attested app said: this session, this K, this enclave key, this serial.
CREATE TABLE attestation.key_proofs (
  evidence_id text PRIMARY KEY,
  seq bigint NOT NULL DEFAULT nextval('attestation.evidence_seq'),
  kind text NOT NULL CHECK (kind IN ('app_attest', 'apns')),
  provider_id text NOT NULL REFERENCES attestation.sessions (provider_id),
  identity_key bytea NOT NULL CHECK (octet_length(identity_key) = 65),
  encryption_key bytea NOT NULL CHECK (octet_length(encryption_key) = 32),
  serial_hash bytea NOT NULL CHECK (octet_length(serial_hash) = 32),
  document bytea NOT NULL,
  signature bytea NOT NULL,
  key_id bytea REFERENCES attestation.app_attest_keys (key_id),
  observe_time timestamptz NOT NULL,
  expire_time timestamptz NOT NULL CHECK (expire_time > observe_time),
  CHECK ((kind = 'app_attest') = (key_id IS NOT NULL)),
  UNIQUE (evidence_id, provider_id, identity_key, encryption_key, serial_hash)
);
CREATE INDEX key_proofs_of_session ON attestation.key_proofs (provider_id, seq);
CREATE INDEX key_proofs_of_key ON attestation.key_proofs (key_id);

-- How a device stands, told by itself below its owner's reach, for one enclave key.
CREATE TABLE attestation.postures (
  evidence_id text PRIMARY KEY,
  seq bigint NOT NULL DEFAULT nextval('attestation.evidence_seq'),
  kind text NOT NULL CHECK (kind IN ('mda', 'security_info')),
  serial_hash bytea NOT NULL CHECK (octet_length(serial_hash) = 32),
  identity_key bytea NOT NULL CHECK (octet_length(identity_key) = 65),
  fingerprint bytea NOT NULL UNIQUE CHECK (octet_length(fingerprint) = 32),
  sip_enabled boolean NOT NULL,
  full_security boolean NOT NULL,
  good boolean NOT NULL GENERATED ALWAYS AS (sip_enabled AND full_security) STORED,
  document bytea NOT NULL,
  observe_time timestamptz NOT NULL,
  expire_time timestamptz NOT NULL CHECK (expire_time > observe_time),
  UNIQUE (evidence_id, serial_hash, identity_key, good)
);
CREATE INDEX postures_of_device ON attestation.postures (identity_key, serial_hash, seq);

-- What the device manager was asked to ask; an answer takes its row out, so it counts once.
CREATE TABLE attestation.mdm_commands (
  command_uuid text PRIMARY KEY,
  udid text NOT NULL,
  request_type text NOT NULL CHECK (request_type IN ('SecurityInfo', 'DeviceInformation')),
  provider_id text NOT NULL REFERENCES attestation.sessions (provider_id),
  create_time timestamptz NOT NULL
);
CREATE INDEX mdm_commands_of_session ON attestation.mdm_commands (provider_id);

-- `hardware` names both, and both are about the same session, K, enclave key and serial.
ALTER TABLE attestation.verdicts
  DROP CONSTRAINT verdicts_trust_level_check,
  DROP CONSTRAINT verdicts_admission_check,
  ADD COLUMN key_proof_id text,
  ADD COLUMN posture_id text,
  ADD COLUMN identity_key bytea,
  ADD COLUMN encryption_key bytea,
  ADD COLUMN serial_hash bytea,
  ADD COLUMN posture_good boolean,
  ADD CONSTRAINT verdicts_trust_level_check
    CHECK (trust_level IN ('none', 'self_signed', 'hardware')),
  ADD CONSTRAINT verdicts_admission_check
    CHECK (admission IN ('public', 'owner', 'development')),
  ADD CONSTRAINT verdicts_public_is_hardware
    CHECK (admission <> 'public' OR trust_level = 'hardware'),
  ADD CONSTRAINT verdicts_hardware_has_both CHECK (trust_level <> 'hardware' OR (
    key_proof_id IS NOT NULL AND posture_id IS NOT NULL AND identity_key IS NOT NULL
    AND encryption_key IS NOT NULL AND serial_hash IS NOT NULL AND posture_good IS TRUE)),
  ADD CONSTRAINT verdicts_key_proof
    FOREIGN KEY (key_proof_id, provider_id, identity_key, encryption_key, serial_hash)
    REFERENCES attestation.key_proofs
      (evidence_id, provider_id, identity_key, encryption_key, serial_hash),
  ADD CONSTRAINT verdicts_posture
    FOREIGN KEY (posture_id, serial_hash, identity_key, posture_good)
    REFERENCES attestation.postures (evidence_id, serial_hash, identity_key, good);
CREATE INDEX verdicts_of_device ON attestation.verdicts (serial_hash, expire_time)
  WHERE trust_level = 'hardware';
CREATE INDEX verdicts_of_identity ON attestation.verdicts (identity_key, expire_time)
  WHERE trust_level = 'hardware';
CREATE INDEX verdicts_of_key_proof ON attestation.verdicts (key_proof_id);
CREATE INDEX verdicts_of_posture ON attestation.verdicts (posture_id);

-- Evidence is what it was: rows are added, and deleted when nobody can ask for them any more.
CREATE FUNCTION attestation.refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'evidence is never changed' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER key_proofs_fixed BEFORE UPDATE ON attestation.key_proofs
  FOR EACH ROW EXECUTE FUNCTION attestation.refuse_update();
CREATE TRIGGER postures_fixed BEFORE UPDATE ON attestation.postures
  FOR EACH ROW EXECUTE FUNCTION attestation.refuse_update();

-- A tombstone and a counter only rise.
CREATE FUNCTION attestation.refuse_lower_tombstone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.tombstone_seq <= OLD.tombstone_seq THEN
    RAISE EXCEPTION 'a tombstone only rises' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER subjects_rise BEFORE UPDATE ON attestation.subjects
  FOR EACH ROW EXECUTE FUNCTION attestation.refuse_lower_tombstone();
CREATE FUNCTION attestation.refuse_lower_counter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.counter < OLD.counter THEN
    RAISE EXCEPTION 'a counter only rises' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER app_attest_keys_rise BEFORE UPDATE ON attestation.app_attest_keys
  FOR EACH ROW EXECUTE FUNCTION attestation.refuse_lower_counter();
