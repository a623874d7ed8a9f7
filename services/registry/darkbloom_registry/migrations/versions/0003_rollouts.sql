CREATE TABLE registry.rollouts (
  rollout_id text COLLATE "C" PRIMARY KEY,
  alias text COLLATE "C" NOT NULL REFERENCES registry.aliases (alias_id),
  from_build text COLLATE "C" NOT NULL REFERENCES registry.builds (id),
  to_build text COLLATE "C" NOT NULL REFERENCES registry.builds (id),
  steps smallint[] NOT NULL,
  step smallint NOT NULL CHECK (step >= 0 AND step < cardinality(steps)),
  state text NOT NULL CHECK (state IN ('running', 'paused', 'done', 'reverted')),
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
  create_time timestamptz NOT NULL,
  step_time timestamptz NOT NULL,
  update_time timestamptz NOT NULL,
  CHECK (from_build <> to_build)
);
CREATE UNIQUE INDEX rollouts_one_live ON registry.rollouts (alias)
  WHERE state IN ('running', 'paused');
CREATE INDEX rollouts_newest ON registry.rollouts (create_time DESC, rollout_id DESC);

-- The last report of each life of a router, so that a repeated one counts once.
CREATE TABLE registry.reporters (
  session text COLLATE "C" PRIMARY KEY,
  sequence bigint NOT NULL,
  report_time timestamptz NOT NULL
);

CREATE TABLE registry.model_states (
  build text COLLATE "C" NOT NULL,
  provider_id text COLLATE "C" NOT NULL,
  stage text NOT NULL CHECK (stage IN ('started', 'downloading', 'verified', 'failed', 'loaded')),
  bytes_done bigint NOT NULL,
  bytes_total bigint NOT NULL,
  error text NOT NULL,
  report_time timestamptz NOT NULL,
  PRIMARY KEY (build, provider_id)
);
CREATE INDEX model_states_old ON registry.model_states (report_time);
