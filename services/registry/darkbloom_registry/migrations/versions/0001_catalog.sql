-- One row. Every write locks it first, so writes are serialised and a generation names one state.
CREATE TABLE registry.generation (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  generation bigint NOT NULL CHECK (generation >= 0)
);
INSERT INTO registry.generation (generation) VALUES (0);

CREATE TABLE registry.builds (
  id text COLLATE "C" PRIMARY KEY,
  display_name text NOT NULL,
  family text NOT NULL,
  architecture text NOT NULL,
  quantization text NOT NULL,
  max_context_length integer NOT NULL CHECK (max_context_length > 0),
  max_output_length integer NOT NULL CHECK (max_output_length > 0),
  min_ram_gb integer NOT NULL CHECK (min_ram_gb > 0),
  capabilities text[] NOT NULL,
  required_provider_capabilities text[] NOT NULL,
  status text NOT NULL CHECK (status IN ('beta', 'active', 'deprecated', 'retired')),
  description text NOT NULL,
  model_type text NOT NULL,
  hugging_face_id text NOT NULL,
  deprecation_date text NOT NULL,
  runtime_parameters_json text NOT NULL,
  create_time timestamptz NOT NULL
);

CREATE TABLE registry.versions (
  build text COLLATE "C" NOT NULL REFERENCES registry.builds (id),
  version text COLLATE "C" NOT NULL,
  state text NOT NULL CHECK (state IN ('ready', 'active', 'retained', 'retired')),
  aggregate_sha256 text NOT NULL CHECK (aggregate_sha256 ~ '^[0-9a-f]{64}$'),
  identity_sha256 text NOT NULL CHECK (identity_sha256 ~ '^[0-9a-f]{64}$'),
  total_size_bytes bigint NOT NULL CHECK (total_size_bytes >= 0),
  file_count integer NOT NULL CHECK (file_count BETWEEN 1 AND 16384),
  manifest bytea NOT NULL CHECK (octet_length(manifest) <= 1048576),
  register_time timestamptz NOT NULL,
  PRIMARY KEY (build, version)
);
CREATE UNIQUE INDEX versions_one_active ON registry.versions (build) WHERE state = 'active';

-- What was published stays as it was, whoever writes here.
CREATE FUNCTION registry.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a published version is immutable';
END $$;
CREATE TRIGGER versions_immutable
  BEFORE UPDATE OF build, version, aggregate_sha256, identity_sha256, total_size_bytes, file_count,
    manifest, register_time OR DELETE ON registry.versions
  FOR EACH ROW EXECUTE FUNCTION registry.refuse_change();

CREATE TABLE registry.aliases (
  alias_id text COLLATE "C" PRIMARY KEY,
  display_name text NOT NULL,
  desired_build text COLLATE "C" NOT NULL REFERENCES registry.builds (id),
  previous_build text COLLATE "C" REFERENCES registry.builds (id),
  active boolean NOT NULL,
  traffic_percent smallint CHECK (traffic_percent BETWEEN 0 AND 100),
  retired_builds text[] NOT NULL,
  CHECK (desired_build <> alias_id),
  CHECK (desired_build <> previous_build)
);
