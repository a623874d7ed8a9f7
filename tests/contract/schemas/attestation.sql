CREATE SCHEMA attestation;

CREATE FUNCTION attestation.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
  RAISE EXCEPTION 'the log is append-only';
END $$;

CREATE FUNCTION attestation.refuse_lower_counter() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  IF NEW.counter < OLD.counter THEN
    RAISE EXCEPTION 'a counter only rises' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION attestation.refuse_lower_tombstone() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  IF NEW.tombstone_seq <= OLD.tombstone_seq THEN
    RAISE EXCEPTION 'a tombstone only rises' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION attestation.refuse_update() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  RAISE EXCEPTION 'evidence is never changed' USING ERRCODE = 'restrict_violation';
END $$;

CREATE TABLE attestation.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE attestation.app_attest_keys (
    key_id bytea NOT NULL,
    public_key bytea NOT NULL,
    environment text NOT NULL,
    owner_account_id text NOT NULL,
    counter bigint NOT NULL,
    document bytea NOT NULL,
    attestation bytea NOT NULL,
    create_time timestamp with time zone NOT NULL,
    revoke_time timestamp with time zone,
    revoke_reason text DEFAULT ''::text NOT NULL,
    CONSTRAINT app_attest_keys_counter_check CHECK ((counter >= 0)),
    CONSTRAINT app_attest_keys_environment_check CHECK ((environment = ANY (ARRAY['production'::text, 'development'::text]))),
    CONSTRAINT app_attest_keys_key_id_check CHECK ((octet_length(key_id) = 32)),
    CONSTRAINT app_attest_keys_public_key_check CHECK ((octet_length(public_key) = 65))
);

CREATE TABLE attestation.challenges (
    challenge_id text NOT NULL,
    provider_id text NOT NULL,
    nonce text NOT NULL,
    asked_at text NOT NULL,
    create_time timestamp with time zone NOT NULL,
    expire_time timestamp with time zone NOT NULL,
    state text NOT NULL,
    status bytea,
    signature bytea,
    findings text[],
    judge_time timestamp with time zone,
    CONSTRAINT challenges_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'superseded'::text, 'timeout'::text, 'expired'::text, 'passed'::text, 'failed'::text])))
);

CREATE TABLE attestation.code_challenges (
    provider_id text NOT NULL,
    nonce bytea NOT NULL,
    identity_key bytea NOT NULL,
    encryption_key bytea NOT NULL,
    push_token_hash text NOT NULL,
    channel text NOT NULL,
    create_time timestamp with time zone NOT NULL,
    CONSTRAINT code_challenges_channel_check CHECK ((channel = ANY (ARRAY['apns'::text, 'resume'::text]))),
    CONSTRAINT code_challenges_encryption_key_check CHECK ((octet_length(encryption_key) = 32)),
    CONSTRAINT code_challenges_identity_key_check CHECK ((octet_length(identity_key) = 65)),
    CONSTRAINT code_challenges_nonce_check CHECK ((octet_length(nonce) = 32))
);

CREATE TABLE attestation.code_proofs (
    identity_key bytea NOT NULL,
    encryption_key bytea NOT NULL,
    push_token_hash text NOT NULL,
    version text NOT NULL,
    provider_id text NOT NULL,
    prove_time timestamp with time zone NOT NULL,
    CONSTRAINT code_proofs_encryption_key_check CHECK ((octet_length(encryption_key) = 32)),
    CONSTRAINT code_proofs_identity_key_check CHECK ((octet_length(identity_key) = 65))
);

CREATE TABLE attestation.code_releases (
    code_release text NOT NULL,
    version text NOT NULL,
    platform text NOT NULL,
    python_hash text NOT NULL,
    runtime_hash text NOT NULL,
    template_hashes jsonb NOT NULL,
    development boolean NOT NULL,
    active boolean NOT NULL,
    create_time timestamp with time zone NOT NULL,
    staged boolean DEFAULT false NOT NULL,
    manifest bytea,
    manifest_signature bytea,
    manifest_key_id text,
    offer_percent smallint DEFAULT 100 NOT NULL,
    offer_held text DEFAULT ''::text NOT NULL,
    offer_time timestamp with time zone DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone NOT NULL,
    CONSTRAINT code_releases_check CHECK ((NOT (active AND staged))),
    CONSTRAINT code_releases_check1 CHECK ((((manifest IS NULL) = (manifest_signature IS NULL)) AND ((manifest IS NULL) = (manifest_key_id IS NULL)))),
    CONSTRAINT code_releases_offer_percent_check CHECK ((offer_percent = ANY (ARRAY[1, 10, 100])))
);

CREATE SEQUENCE attestation.evidence_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE attestation.generation (
    singleton boolean DEFAULT true NOT NULL,
    generation bigint NOT NULL,
    CONSTRAINT generation_generation_check CHECK ((generation >= 0)),
    CONSTRAINT generation_singleton_check CHECK (singleton)
);

CREATE TABLE attestation.key_proofs (
    evidence_id text NOT NULL,
    seq bigint DEFAULT nextval('attestation.evidence_seq'::regclass) NOT NULL,
    kind text NOT NULL,
    provider_id text NOT NULL,
    identity_key bytea NOT NULL,
    encryption_key bytea NOT NULL,
    serial_hash bytea NOT NULL,
    document bytea NOT NULL,
    signature bytea NOT NULL,
    key_id bytea,
    observe_time timestamp with time zone NOT NULL,
    expire_time timestamp with time zone NOT NULL,
    CONSTRAINT key_proofs_check CHECK ((expire_time > observe_time)),
    CONSTRAINT key_proofs_check1 CHECK (((kind = 'app_attest'::text) = (key_id IS NOT NULL))),
    CONSTRAINT key_proofs_encryption_key_check CHECK ((octet_length(encryption_key) = 32)),
    CONSTRAINT key_proofs_identity_key_check CHECK ((octet_length(identity_key) = 65)),
    CONSTRAINT key_proofs_kind_check CHECK ((kind = ANY (ARRAY['app_attest'::text, 'apns'::text]))),
    CONSTRAINT key_proofs_serial_hash_check CHECK ((octet_length(serial_hash) = 32))
);

CREATE TABLE attestation.log_entries (
    log_index bigint NOT NULL,
    kind text NOT NULL,
    entry_key text,
    body bytea NOT NULL,
    CONSTRAINT log_entries_body_check CHECK ((octet_length(body) <= 1048576)),
    CONSTRAINT log_entries_kind_check CHECK ((kind = ANY (ARRAY['release'::text, 'receipt_key'::text, 'verdict_key'::text, 'catalog'::text, 'receipts'::text]))),
    CONSTRAINT log_entries_log_index_check CHECK ((log_index >= 0))
);

CREATE TABLE attestation.log_nodes (
    level smallint NOT NULL,
    place bigint NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT log_nodes_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT log_nodes_level_check CHECK ((level >= 0)),
    CONSTRAINT log_nodes_place_check CHECK ((place >= 0))
);

CREATE TABLE attestation.log_subjects (
    kind text NOT NULL,
    subject text NOT NULL,
    log_index bigint NOT NULL
);

CREATE TABLE attestation.mdm_commands (
    command_uuid text NOT NULL,
    udid text NOT NULL,
    request_type text NOT NULL,
    provider_id text NOT NULL,
    create_time timestamp with time zone NOT NULL,
    CONSTRAINT mdm_commands_request_type_check CHECK ((request_type = ANY (ARRAY['SecurityInfo'::text, 'DeviceInformation'::text])))
);

CREATE TABLE attestation.offer_changes (
    change_id bigint NOT NULL,
    code_release text NOT NULL,
    change_time timestamp with time zone NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    percent smallint NOT NULL,
    reason text NOT NULL,
    CONSTRAINT offer_changes_action_check CHECK ((action = ANY (ARRAY['begun'::text, 'widened'::text, 'held'::text, 'resumed'::text]))),
    CONSTRAINT offer_changes_actor_check CHECK ((actor <> ''::text))
);

ALTER TABLE attestation.offer_changes ALTER COLUMN change_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME attestation.offer_changes_change_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE attestation.postures (
    evidence_id text NOT NULL,
    seq bigint DEFAULT nextval('attestation.evidence_seq'::regclass) NOT NULL,
    kind text NOT NULL,
    serial_hash bytea NOT NULL,
    identity_key bytea NOT NULL,
    fingerprint bytea NOT NULL,
    sip_enabled boolean NOT NULL,
    full_security boolean NOT NULL,
    good boolean GENERATED ALWAYS AS ((sip_enabled AND full_security)) STORED NOT NULL,
    document bytea NOT NULL,
    observe_time timestamp with time zone NOT NULL,
    expire_time timestamp with time zone NOT NULL,
    CONSTRAINT postures_check CHECK ((expire_time > observe_time)),
    CONSTRAINT postures_fingerprint_check CHECK ((octet_length(fingerprint) = 32)),
    CONSTRAINT postures_identity_key_check CHECK ((octet_length(identity_key) = 65)),
    CONSTRAINT postures_kind_check CHECK ((kind = ANY (ARRAY['mda'::text, 'security_info'::text]))),
    CONSTRAINT postures_serial_hash_check CHECK ((octet_length(serial_hash) = 32))
);

CREATE TABLE attestation.push_addresses (
    provider_id text NOT NULL,
    token text NOT NULL,
    environment text NOT NULL,
    CONSTRAINT push_addresses_environment_check CHECK ((environment = ANY (ARRAY['production'::text, 'development'::text]))),
    CONSTRAINT push_addresses_token_check CHECK ((token ~ '^[0-9a-f]{64,200}$'::text))
);

CREATE TABLE attestation.receipt_keys (
    key_id text NOT NULL,
    public_key bytea NOT NULL,
    gateway text NOT NULL,
    create_time timestamp with time zone NOT NULL,
    retire_time timestamp with time zone,
    CONSTRAINT receipt_keys_public_key_check CHECK ((octet_length(public_key) = 32))
);

CREATE TABLE attestation.registrations (
    registration_id text NOT NULL,
    provider_id text NOT NULL,
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
    trust_level text NOT NULL,
    findings text[] NOT NULL,
    identity_key bytea NOT NULL,
    binary_hash text,
    create_time timestamp with time zone NOT NULL,
    public_signature bytea DEFAULT '\x'::bytea NOT NULL,
    serial_hash bytea,
    CONSTRAINT registrations_check CHECK (((NOT accepted) OR ((octet_length(identity_key) = 65) AND (octet_length(encryption_key) = 32)))),
    CONSTRAINT registrations_identity_key_check CHECK ((octet_length(identity_key) = ANY (ARRAY[0, 65]))),
    CONSTRAINT registrations_public_signature_check CHECK ((octet_length(public_signature) <= 256)),
    CONSTRAINT registrations_serial_hash_check CHECK ((octet_length(serial_hash) = 32)),
    CONSTRAINT registrations_trust_level_check CHECK ((trust_level = ANY (ARRAY['none'::text, 'self_signed'::text])))
);

CREATE TABLE attestation.revocations (
    generation bigint NOT NULL,
    revocation_id text NOT NULL,
    verdict_id text NOT NULL,
    reason text NOT NULL,
    document bytea NOT NULL,
    signature bytea NOT NULL,
    key_id text NOT NULL,
    issue_time timestamp with time zone NOT NULL,
    CONSTRAINT revocations_generation_check CHECK ((generation > 0))
);

CREATE TABLE attestation.sessions (
    provider_id text NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    timeouts integer DEFAULT 0 NOT NULL,
    untrusted text DEFAULT ''::text NOT NULL,
    seq bigint DEFAULT nextval('attestation.evidence_seq'::regclass) NOT NULL,
    posture_since timestamp with time zone DEFAULT now() NOT NULL,
    continues text DEFAULT ''::text NOT NULL,
    seen_time timestamp with time zone,
    proof_time timestamp with time zone
);

CREATE TABLE attestation.subjects (
    subject text NOT NULL,
    tombstone_seq bigint DEFAULT 0 NOT NULL,
    tombstone_reason text DEFAULT ''::text NOT NULL,
    tombstone_time timestamp with time zone
);

CREATE TABLE attestation.verdicts (
    verdict_id text NOT NULL,
    provider_id text NOT NULL,
    code_release text NOT NULL,
    trust_level text NOT NULL,
    admission text NOT NULL,
    document bytea NOT NULL,
    signature bytea NOT NULL,
    key_id text NOT NULL,
    issue_time timestamp with time zone NOT NULL,
    expire_time timestamp with time zone NOT NULL,
    key_proof_id text,
    posture_id text,
    identity_key bytea,
    encryption_key bytea,
    serial_hash bytea,
    posture_good boolean,
    CONSTRAINT verdicts_admission_check CHECK ((admission = ANY (ARRAY['public'::text, 'owner'::text, 'development'::text]))),
    CONSTRAINT verdicts_check CHECK ((expire_time <= (issue_time + '00:16:00'::interval))),
    CONSTRAINT verdicts_hardware_has_both CHECK (((trust_level <> 'hardware'::text) OR ((key_proof_id IS NOT NULL) AND (posture_id IS NOT NULL) AND (identity_key IS NOT NULL) AND (encryption_key IS NOT NULL) AND (serial_hash IS NOT NULL) AND (posture_good IS TRUE)))),
    CONSTRAINT verdicts_public_is_hardware CHECK (((admission <> 'public'::text) OR (trust_level = 'hardware'::text))),
    CONSTRAINT verdicts_trust_level_check CHECK ((trust_level = ANY (ARRAY['none'::text, 'self_signed'::text, 'hardware'::text])))
);

CREATE TABLE attestation.violations (
    report_id text NOT NULL,
    provider_id text NOT NULL,
    attempt_id text NOT NULL,
    kind text NOT NULL,
    revocation_id text,
    create_time timestamp with time zone NOT NULL
);

ALTER TABLE ONLY attestation.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY attestation.app_attest_keys
    ADD CONSTRAINT app_attest_keys_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY attestation.challenges
    ADD CONSTRAINT challenges_nonce_key UNIQUE (nonce);

ALTER TABLE ONLY attestation.challenges
    ADD CONSTRAINT challenges_pkey PRIMARY KEY (challenge_id);

ALTER TABLE ONLY attestation.code_challenges
    ADD CONSTRAINT code_challenges_pkey PRIMARY KEY (provider_id);

ALTER TABLE ONLY attestation.code_proofs
    ADD CONSTRAINT code_proofs_pkey PRIMARY KEY (identity_key);

ALTER TABLE ONLY attestation.code_releases
    ADD CONSTRAINT code_releases_pkey PRIMARY KEY (code_release);

ALTER TABLE ONLY attestation.generation
    ADD CONSTRAINT generation_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY attestation.key_proofs
    ADD CONSTRAINT key_proofs_evidence_id_provider_id_identity_key_encryption__key UNIQUE (evidence_id, provider_id, identity_key, encryption_key, serial_hash);

ALTER TABLE ONLY attestation.key_proofs
    ADD CONSTRAINT key_proofs_pkey PRIMARY KEY (evidence_id);

ALTER TABLE ONLY attestation.log_entries
    ADD CONSTRAINT log_entries_entry_key_key UNIQUE (entry_key);

ALTER TABLE ONLY attestation.log_entries
    ADD CONSTRAINT log_entries_pkey PRIMARY KEY (log_index);

ALTER TABLE ONLY attestation.log_nodes
    ADD CONSTRAINT log_nodes_pkey PRIMARY KEY (level, place);

ALTER TABLE ONLY attestation.log_subjects
    ADD CONSTRAINT log_subjects_pkey PRIMARY KEY (kind, subject, log_index);

ALTER TABLE ONLY attestation.mdm_commands
    ADD CONSTRAINT mdm_commands_pkey PRIMARY KEY (command_uuid);

ALTER TABLE ONLY attestation.offer_changes
    ADD CONSTRAINT offer_changes_pkey PRIMARY KEY (change_id);

ALTER TABLE ONLY attestation.postures
    ADD CONSTRAINT postures_evidence_id_serial_hash_identity_key_good_key UNIQUE (evidence_id, serial_hash, identity_key, good);

ALTER TABLE ONLY attestation.postures
    ADD CONSTRAINT postures_fingerprint_key UNIQUE (fingerprint);

ALTER TABLE ONLY attestation.postures
    ADD CONSTRAINT postures_pkey PRIMARY KEY (evidence_id);

ALTER TABLE ONLY attestation.push_addresses
    ADD CONSTRAINT push_addresses_pkey PRIMARY KEY (provider_id);

ALTER TABLE ONLY attestation.receipt_keys
    ADD CONSTRAINT receipt_keys_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY attestation.registrations
    ADD CONSTRAINT registrations_pkey PRIMARY KEY (registration_id);

ALTER TABLE ONLY attestation.registrations
    ADD CONSTRAINT registrations_provider_id_key UNIQUE (provider_id);

ALTER TABLE ONLY attestation.revocations
    ADD CONSTRAINT revocations_pkey PRIMARY KEY (generation);

ALTER TABLE ONLY attestation.revocations
    ADD CONSTRAINT revocations_revocation_id_key UNIQUE (revocation_id);

ALTER TABLE ONLY attestation.revocations
    ADD CONSTRAINT revocations_verdict_id_key UNIQUE (verdict_id);

ALTER TABLE ONLY attestation.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (provider_id);

ALTER TABLE ONLY attestation.subjects
    ADD CONSTRAINT subjects_pkey PRIMARY KEY (subject);

ALTER TABLE ONLY attestation.verdicts
    ADD CONSTRAINT verdicts_pkey PRIMARY KEY (verdict_id);

ALTER TABLE ONLY attestation.violations
    ADD CONSTRAINT violations_pkey PRIMARY KEY (report_id);

CREATE UNIQUE INDEX challenges_one_pending ON attestation.challenges USING btree (provider_id) WHERE (state = 'pending'::text);

CREATE INDEX challenges_passed ON attestation.challenges USING btree (provider_id, judge_time) WHERE (state = 'passed'::text);

CREATE INDEX code_proofs_of_session ON attestation.code_proofs USING btree (provider_id);

CREATE INDEX key_proofs_of_key ON attestation.key_proofs USING btree (key_id);

CREATE INDEX key_proofs_of_session ON attestation.key_proofs USING btree (provider_id, seq);

CREATE INDEX log_entries_kind ON attestation.log_entries USING btree (kind, log_index);

CREATE INDEX mdm_commands_of_session ON attestation.mdm_commands USING btree (provider_id);

CREATE INDEX offer_changes_of_release ON attestation.offer_changes USING btree (code_release, change_id);

CREATE INDEX postures_of_device ON attestation.postures USING btree (identity_key, serial_hash, seq);

CREATE INDEX registrations_of_identity ON attestation.registrations USING btree (identity_key, create_time);

CREATE INDEX registrations_of_time ON attestation.registrations USING btree (create_time);

CREATE INDEX verdicts_of_device ON attestation.verdicts USING btree (serial_hash, expire_time) WHERE (trust_level = 'hardware'::text);

CREATE INDEX verdicts_of_identity ON attestation.verdicts USING btree (identity_key, expire_time) WHERE (trust_level = 'hardware'::text);

CREATE INDEX verdicts_of_key_proof ON attestation.verdicts USING btree (key_proof_id);

CREATE INDEX verdicts_of_posture ON attestation.verdicts USING btree (posture_id);

CREATE INDEX verdicts_of_release ON attestation.verdicts USING btree (code_release, expire_time);

CREATE INDEX verdicts_of_session ON attestation.verdicts USING btree (provider_id, expire_time);

CREATE TRIGGER app_attest_keys_rise BEFORE UPDATE ON attestation.app_attest_keys FOR EACH ROW EXECUTE FUNCTION attestation.refuse_lower_counter();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON attestation.log_entries FOR EACH ROW EXECUTE FUNCTION attestation.refuse_change();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON attestation.log_nodes FOR EACH ROW EXECUTE FUNCTION attestation.refuse_change();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON attestation.log_subjects FOR EACH ROW EXECUTE FUNCTION attestation.refuse_change();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON attestation.offer_changes FOR EACH ROW EXECUTE FUNCTION attestation.refuse_change();

CREATE TRIGGER key_proofs_fixed BEFORE UPDATE ON attestation.key_proofs FOR EACH ROW EXECUTE FUNCTION attestation.refuse_update();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON attestation.log_entries FOR EACH STATEMENT EXECUTE FUNCTION attestation.refuse_change();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON attestation.log_nodes FOR EACH STATEMENT EXECUTE FUNCTION attestation.refuse_change();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON attestation.log_subjects FOR EACH STATEMENT EXECUTE FUNCTION attestation.refuse_change();

CREATE TRIGGER postures_fixed BEFORE UPDATE ON attestation.postures FOR EACH ROW EXECUTE FUNCTION attestation.refuse_update();

CREATE TRIGGER subjects_rise BEFORE UPDATE ON attestation.subjects FOR EACH ROW EXECUTE FUNCTION attestation.refuse_lower_tombstone();

ALTER TABLE ONLY attestation.challenges
    ADD CONSTRAINT challenges_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.sessions(provider_id);

ALTER TABLE ONLY attestation.code_challenges
    ADD CONSTRAINT code_challenges_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.sessions(provider_id) ON DELETE CASCADE;

ALTER TABLE ONLY attestation.code_proofs
    ADD CONSTRAINT code_proofs_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.sessions(provider_id) ON DELETE CASCADE;

ALTER TABLE ONLY attestation.key_proofs
    ADD CONSTRAINT key_proofs_key_id_fkey FOREIGN KEY (key_id) REFERENCES attestation.app_attest_keys(key_id);

ALTER TABLE ONLY attestation.key_proofs
    ADD CONSTRAINT key_proofs_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.sessions(provider_id);

ALTER TABLE ONLY attestation.mdm_commands
    ADD CONSTRAINT mdm_commands_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.sessions(provider_id);

ALTER TABLE ONLY attestation.offer_changes
    ADD CONSTRAINT offer_changes_code_release_fkey FOREIGN KEY (code_release) REFERENCES attestation.code_releases(code_release);

ALTER TABLE ONLY attestation.push_addresses
    ADD CONSTRAINT push_addresses_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.sessions(provider_id) ON DELETE CASCADE;

ALTER TABLE ONLY attestation.revocations
    ADD CONSTRAINT revocations_verdict_id_fkey FOREIGN KEY (verdict_id) REFERENCES attestation.verdicts(verdict_id);

ALTER TABLE ONLY attestation.sessions
    ADD CONSTRAINT sessions_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.registrations(provider_id);

ALTER TABLE ONLY attestation.verdicts
    ADD CONSTRAINT verdicts_key_proof FOREIGN KEY (key_proof_id, provider_id, identity_key, encryption_key, serial_hash) REFERENCES attestation.key_proofs(evidence_id, provider_id, identity_key, encryption_key, serial_hash);

ALTER TABLE ONLY attestation.verdicts
    ADD CONSTRAINT verdicts_posture FOREIGN KEY (posture_id, serial_hash, identity_key, posture_good) REFERENCES attestation.postures(evidence_id, serial_hash, identity_key, good);

ALTER TABLE ONLY attestation.verdicts
    ADD CONSTRAINT verdicts_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.sessions(provider_id);

ALTER TABLE ONLY attestation.violations
    ADD CONSTRAINT violations_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES attestation.sessions(provider_id);

ALTER TABLE ONLY attestation.violations
    ADD CONSTRAINT violations_revocation_id_fkey FOREIGN KEY (revocation_id) REFERENCES attestation.revocations(revocation_id);
