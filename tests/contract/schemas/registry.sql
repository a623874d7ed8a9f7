CREATE SCHEMA registry;

CREATE FUNCTION registry.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  RAISE EXCEPTION 'a published version is immutable';
END $$;

CREATE FUNCTION registry.refuse_rewriting() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  RAISE EXCEPTION 'changes are only ever added';
END $$;

CREATE TABLE registry.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE registry.aliases (
    alias_id text NOT NULL COLLATE pg_catalog."C",
    display_name text NOT NULL,
    desired_build text NOT NULL COLLATE pg_catalog."C",
    previous_build text COLLATE pg_catalog."C",
    active boolean NOT NULL,
    traffic_percent smallint,
    retired_builds text[] NOT NULL,
    takeover boolean DEFAULT false NOT NULL,
    CONSTRAINT aliases_check CHECK ((desired_build <> alias_id)),
    CONSTRAINT aliases_check1 CHECK ((desired_build <> previous_build)),
    CONSTRAINT aliases_check2 CHECK (((NOT takeover) OR (NOT (previous_build IS DISTINCT FROM alias_id)))),
    CONSTRAINT aliases_traffic_percent_check CHECK (((traffic_percent >= 0) AND (traffic_percent <= 100)))
);

CREATE TABLE registry.approvals (
    digest bytea NOT NULL,
    label text NOT NULL,
    ask_time timestamp with time zone NOT NULL,
    CONSTRAINT approvals_digest_check CHECK ((octet_length(digest) = 32))
);

CREATE TABLE registry.builds (
    id text NOT NULL COLLATE pg_catalog."C",
    display_name text NOT NULL,
    family text NOT NULL,
    architecture text NOT NULL,
    quantization text NOT NULL,
    max_context_length integer NOT NULL,
    max_output_length integer NOT NULL,
    min_ram_gb integer NOT NULL,
    capabilities text[] NOT NULL,
    required_provider_capabilities text[] NOT NULL,
    status text NOT NULL,
    description text NOT NULL,
    model_type text NOT NULL,
    hugging_face_id text NOT NULL,
    deprecation_date text NOT NULL,
    runtime_parameters_json text NOT NULL,
    create_time timestamp with time zone NOT NULL,
    marketplace_slug text DEFAULT ''::text NOT NULL,
    CONSTRAINT builds_max_context_length_check CHECK ((max_context_length > 0)),
    CONSTRAINT builds_max_output_length_check CHECK ((max_output_length > 0)),
    CONSTRAINT builds_min_ram_gb_check CHECK ((min_ram_gb > 0)),
    CONSTRAINT builds_status_check CHECK ((status = ANY (ARRAY['beta'::text, 'active'::text, 'deprecated'::text, 'retired'::text])))
);

CREATE TABLE registry.changes (
    generation bigint NOT NULL,
    change_time timestamp with time zone NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb NOT NULL
);

CREATE TABLE registry.download_grants (
    session text NOT NULL COLLATE pg_catalog."C",
    sequence bigint NOT NULL,
    machines integer NOT NULL,
    grant_time timestamp with time zone NOT NULL
);

CREATE TABLE registry.generation (
    singleton boolean DEFAULT true NOT NULL,
    generation bigint NOT NULL,
    CONSTRAINT generation_generation_check CHECK ((generation >= 0)),
    CONSTRAINT generation_singleton_check CHECK (singleton)
);

CREATE TABLE registry.holdings (
    session text NOT NULL COLLATE pg_catalog."C",
    build text NOT NULL COLLATE pg_catalog."C",
    wished integer NOT NULL,
    holding integer NOT NULL,
    current integer NOT NULL,
    warm integer NOT NULL
);

CREATE TABLE registry.marketplace_aliases (
    alias_id text NOT NULL COLLATE pg_catalog."C",
    display_name text NOT NULL,
    source_model text NOT NULL COLLATE pg_catalog."C",
    marketplace_slug text NOT NULL,
    hugging_face_id text NOT NULL,
    active boolean NOT NULL,
    CONSTRAINT marketplace_aliases_check CHECK ((source_model <> alias_id))
);

CREATE TABLE registry.model_states (
    build text NOT NULL COLLATE pg_catalog."C",
    provider_id text NOT NULL COLLATE pg_catalog."C",
    stage text NOT NULL,
    bytes_done bigint NOT NULL,
    bytes_total bigint NOT NULL,
    error text NOT NULL,
    report_time timestamp with time zone NOT NULL,
    machine text DEFAULT ''::text NOT NULL,
    CONSTRAINT model_states_stage_check CHECK ((stage = ANY (ARRAY['started'::text, 'downloading'::text, 'verified'::text, 'failed'::text, 'loaded'::text])))
);

CREATE TABLE registry.publishing_keys (
    key_sha256 bytea NOT NULL,
    label text NOT NULL,
    scopes text[] NOT NULL,
    active boolean DEFAULT true NOT NULL,
    CONSTRAINT publishing_keys_key_sha256_check CHECK ((octet_length(key_sha256) = 32)),
    CONSTRAINT publishing_keys_scopes_check CHECK ((scopes <@ ARRAY['publish'::text, 'promote'::text, 'alias'::text]))
);

CREATE TABLE registry.readers (
    session text NOT NULL COLLATE pg_catalog."C",
    room text NOT NULL,
    replica text NOT NULL,
    generation bigint NOT NULL,
    confirm_time timestamp with time zone NOT NULL
);

CREATE TABLE registry.reporters (
    session text NOT NULL COLLATE pg_catalog."C",
    sequence bigint NOT NULL,
    report_time timestamp with time zone NOT NULL
);

CREATE TABLE registry.rollouts (
    rollout_id text NOT NULL COLLATE pg_catalog."C",
    alias text NOT NULL COLLATE pg_catalog."C",
    from_build text NOT NULL COLLATE pg_catalog."C",
    to_build text NOT NULL COLLATE pg_catalog."C",
    steps smallint[] NOT NULL,
    step smallint NOT NULL,
    state text NOT NULL,
    min_requests integer NOT NULL,
    soak interval NOT NULL,
    min_success_percent smallint NOT NULL,
    max_load_failures integer NOT NULL,
    max_ttft_p95 interval,
    max_untrusted integer NOT NULL,
    successes bigint NOT NULL,
    failures bigint NOT NULL,
    load_failures bigint NOT NULL,
    untrusted bigint NOT NULL,
    ttft_buckets bigint[] NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    create_time timestamp with time zone NOT NULL,
    step_time timestamp with time zone NOT NULL,
    update_time timestamp with time zone NOT NULL,
    previous_build text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    step_generation bigint DEFAULT 0 NOT NULL,
    CONSTRAINT rollouts_check CHECK (((step >= 0) AND (step < cardinality(steps)))),
    CONSTRAINT rollouts_check1 CHECK ((from_build <> to_build)),
    CONSTRAINT rollouts_state_check CHECK ((state = ANY (ARRAY['running'::text, 'paused'::text, 'done'::text, 'reverted'::text])))
);

CREATE TABLE registry.versions (
    build text NOT NULL COLLATE pg_catalog."C",
    version text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL,
    aggregate_sha256 text NOT NULL,
    identity_sha256 text NOT NULL,
    total_size_bytes bigint NOT NULL,
    file_count integer NOT NULL,
    manifest bytea NOT NULL,
    register_time timestamp with time zone NOT NULL,
    sources text[] DEFAULT '{}'::text[] NOT NULL,
    template_sha256 text,
    template_fixtures jsonb,
    CONSTRAINT versions_aggregate_sha256_check CHECK ((aggregate_sha256 ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT versions_file_count_check CHECK (((file_count >= 1) AND (file_count <= 16384))),
    CONSTRAINT versions_identity_sha256_check CHECK ((identity_sha256 ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT versions_manifest_check CHECK ((octet_length(manifest) <= 1048576)),
    CONSTRAINT versions_state_check CHECK ((state = ANY (ARRAY['ready'::text, 'active'::text, 'retained'::text, 'retired'::text]))),
    CONSTRAINT versions_total_size_bytes_check CHECK ((total_size_bytes >= 0))
);

ALTER TABLE ONLY registry.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY registry.aliases
    ADD CONSTRAINT aliases_pkey PRIMARY KEY (alias_id);

ALTER TABLE ONLY registry.approvals
    ADD CONSTRAINT approvals_pkey PRIMARY KEY (digest, label);

ALTER TABLE ONLY registry.builds
    ADD CONSTRAINT builds_pkey PRIMARY KEY (id);

ALTER TABLE ONLY registry.changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY (generation);

ALTER TABLE ONLY registry.download_grants
    ADD CONSTRAINT download_grants_pkey PRIMARY KEY (session, sequence);

ALTER TABLE ONLY registry.generation
    ADD CONSTRAINT generation_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY registry.holdings
    ADD CONSTRAINT holdings_pkey PRIMARY KEY (session, build);

ALTER TABLE ONLY registry.marketplace_aliases
    ADD CONSTRAINT marketplace_aliases_pkey PRIMARY KEY (alias_id);

ALTER TABLE ONLY registry.model_states
    ADD CONSTRAINT model_states_pkey PRIMARY KEY (build, provider_id);

ALTER TABLE ONLY registry.publishing_keys
    ADD CONSTRAINT publishing_keys_label_key UNIQUE (label);

ALTER TABLE ONLY registry.publishing_keys
    ADD CONSTRAINT publishing_keys_pkey PRIMARY KEY (key_sha256);

ALTER TABLE ONLY registry.readers
    ADD CONSTRAINT readers_pkey PRIMARY KEY (session);

ALTER TABLE ONLY registry.reporters
    ADD CONSTRAINT reporters_pkey PRIMARY KEY (session);

ALTER TABLE ONLY registry.rollouts
    ADD CONSTRAINT rollouts_pkey PRIMARY KEY (rollout_id);

ALTER TABLE ONLY registry.versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (build, version);

CREATE INDEX model_states_machine ON registry.model_states USING btree (build, machine);

CREATE INDEX model_states_old ON registry.model_states USING btree (report_time);

CREATE INDEX rollouts_newest ON registry.rollouts USING btree (create_time DESC, rollout_id DESC);

CREATE UNIQUE INDEX rollouts_one_live ON registry.rollouts USING btree (alias) WHERE (state = ANY (ARRAY['running'::text, 'paused'::text]));

CREATE UNIQUE INDEX versions_one_active ON registry.versions USING btree (build) WHERE (state = 'active'::text);

CREATE TRIGGER changes_append_only BEFORE DELETE OR UPDATE ON registry.changes FOR EACH ROW EXECUTE FUNCTION registry.refuse_rewriting();

CREATE TRIGGER changes_never_emptied BEFORE TRUNCATE ON registry.changes FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_rewriting();

CREATE TRIGGER versions_immutable BEFORE DELETE OR UPDATE OF build, version, aggregate_sha256, identity_sha256, total_size_bytes, file_count, manifest, register_time ON registry.versions FOR EACH ROW EXECUTE FUNCTION registry.refuse_change();

ALTER TABLE ONLY registry.aliases
    ADD CONSTRAINT aliases_desired_build_fkey FOREIGN KEY (desired_build) REFERENCES registry.builds(id);

ALTER TABLE ONLY registry.aliases
    ADD CONSTRAINT aliases_previous_build_fkey FOREIGN KEY (previous_build) REFERENCES registry.builds(id);

ALTER TABLE ONLY registry.holdings
    ADD CONSTRAINT holdings_session_fkey FOREIGN KEY (session) REFERENCES registry.readers(session) ON DELETE CASCADE;

ALTER TABLE ONLY registry.rollouts
    ADD CONSTRAINT rollouts_from_build_fkey FOREIGN KEY (from_build) REFERENCES registry.builds(id);

ALTER TABLE ONLY registry.rollouts
    ADD CONSTRAINT rollouts_to_build_fkey FOREIGN KEY (to_build) REFERENCES registry.builds(id);

ALTER TABLE ONLY registry.versions
    ADD CONSTRAINT versions_build_fkey FOREIGN KEY (build) REFERENCES registry.builds(id);
