CREATE SCHEMA routing;

CREATE TABLE routing.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE routing.attempts (
    attempt_id text NOT NULL,
    request_id text NOT NULL,
    replica text NOT NULL,
    number integer NOT NULL,
    build text NOT NULL,
    provider_id text NOT NULL,
    hedge boolean NOT NULL,
    remote boolean NOT NULL,
    path text NOT NULL,
    candidates integer NOT NULL,
    price_ms double precision NOT NULL,
    runner_up text NOT NULL,
    runner_up_ms double precision,
    breakdown jsonb NOT NULL,
    outcome text NOT NULL,
    write_submitted boolean NOT NULL,
    write_completed boolean NOT NULL,
    provider_accepted boolean NOT NULL,
    provider_complete_observed boolean NOT NULL,
    queue_ms integer NOT NULL,
    first_content_ms integer,
    duration_ms integer NOT NULL,
    end_time timestamp with time zone NOT NULL
)
PARTITION BY RANGE (end_time);

CREATE TABLE routing.attempts_other (
    attempt_id text CONSTRAINT attempts_attempt_id_not_null NOT NULL,
    request_id text CONSTRAINT attempts_request_id_not_null NOT NULL,
    replica text CONSTRAINT attempts_replica_not_null NOT NULL,
    number integer CONSTRAINT attempts_number_not_null NOT NULL,
    build text CONSTRAINT attempts_build_not_null NOT NULL,
    provider_id text CONSTRAINT attempts_provider_id_not_null NOT NULL,
    hedge boolean CONSTRAINT attempts_hedge_not_null NOT NULL,
    remote boolean CONSTRAINT attempts_remote_not_null NOT NULL,
    path text CONSTRAINT attempts_path_not_null NOT NULL,
    candidates integer CONSTRAINT attempts_candidates_not_null NOT NULL,
    price_ms double precision CONSTRAINT attempts_price_ms_not_null NOT NULL,
    runner_up text CONSTRAINT attempts_runner_up_not_null NOT NULL,
    runner_up_ms double precision,
    breakdown jsonb CONSTRAINT attempts_breakdown_not_null NOT NULL,
    outcome text CONSTRAINT attempts_outcome_not_null NOT NULL,
    write_submitted boolean CONSTRAINT attempts_write_submitted_not_null NOT NULL,
    write_completed boolean CONSTRAINT attempts_write_completed_not_null NOT NULL,
    provider_accepted boolean CONSTRAINT attempts_provider_accepted_not_null NOT NULL,
    provider_complete_observed boolean CONSTRAINT attempts_provider_complete_observed_not_null NOT NULL,
    queue_ms integer CONSTRAINT attempts_queue_ms_not_null NOT NULL,
    first_content_ms integer,
    duration_ms integer CONSTRAINT attempts_duration_ms_not_null NOT NULL,
    end_time timestamp with time zone CONSTRAINT attempts_end_time_not_null NOT NULL
);

CREATE TABLE routing.refusals (
    refusal_id bigint NOT NULL,
    request_id text NOT NULL,
    replica text NOT NULL,
    build text NOT NULL,
    http_status integer NOT NULL,
    reason text NOT NULL,
    attempts integer NOT NULL,
    gates jsonb NOT NULL,
    could_have_served boolean,
    waited_ms integer NOT NULL,
    end_time timestamp with time zone NOT NULL
)
PARTITION BY RANGE (end_time);

CREATE SEQUENCE routing.refusal_ids
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE routing.refusal_ids OWNED BY routing.refusals.refusal_id;

CREATE TABLE routing.refusals_other (
    refusal_id bigint DEFAULT nextval('routing.refusal_ids'::regclass) CONSTRAINT refusals_refusal_id_not_null NOT NULL,
    request_id text CONSTRAINT refusals_request_id_not_null NOT NULL,
    replica text CONSTRAINT refusals_replica_not_null NOT NULL,
    build text CONSTRAINT refusals_build_not_null NOT NULL,
    http_status integer CONSTRAINT refusals_http_status_not_null NOT NULL,
    reason text CONSTRAINT refusals_reason_not_null NOT NULL,
    attempts integer CONSTRAINT refusals_attempts_not_null NOT NULL,
    gates jsonb CONSTRAINT refusals_gates_not_null NOT NULL,
    could_have_served boolean,
    waited_ms integer CONSTRAINT refusals_waited_ms_not_null NOT NULL,
    end_time timestamp with time zone CONSTRAINT refusals_end_time_not_null NOT NULL
);

ALTER TABLE ONLY routing.attempts ATTACH PARTITION routing.attempts_other DEFAULT;

ALTER TABLE ONLY routing.refusals ATTACH PARTITION routing.refusals_other DEFAULT;

ALTER TABLE ONLY routing.refusals ALTER COLUMN refusal_id SET DEFAULT nextval('routing.refusal_ids'::regclass);

ALTER TABLE ONLY routing.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY routing.attempts
    ADD CONSTRAINT attempts_pkey PRIMARY KEY (attempt_id, end_time);

ALTER TABLE ONLY routing.attempts_other
    ADD CONSTRAINT attempts_other_pkey PRIMARY KEY (attempt_id, end_time);

ALTER TABLE ONLY routing.refusals
    ADD CONSTRAINT refusals_pkey PRIMARY KEY (refusal_id, end_time);

ALTER TABLE ONLY routing.refusals_other
    ADD CONSTRAINT refusals_other_pkey PRIMARY KEY (refusal_id, end_time);

CREATE INDEX attempts_by_provider ON ONLY routing.attempts USING btree (provider_id, end_time);

CREATE INDEX attempts_by_request ON ONLY routing.attempts USING btree (request_id);

CREATE INDEX attempts_by_time ON ONLY routing.attempts USING btree (end_time);

CREATE INDEX attempts_other_end_time_idx ON routing.attempts_other USING btree (end_time);

CREATE INDEX attempts_other_provider_id_end_time_idx ON routing.attempts_other USING btree (provider_id, end_time);

CREATE INDEX attempts_other_request_id_idx ON routing.attempts_other USING btree (request_id);

CREATE INDEX refusals_by_request ON ONLY routing.refusals USING btree (request_id);

CREATE INDEX refusals_by_time ON ONLY routing.refusals USING btree (end_time);

CREATE INDEX refusals_other_end_time_idx ON routing.refusals_other USING btree (end_time);

CREATE INDEX refusals_other_request_id_idx ON routing.refusals_other USING btree (request_id);

ALTER INDEX routing.attempts_by_time ATTACH PARTITION routing.attempts_other_end_time_idx;

ALTER INDEX routing.attempts_pkey ATTACH PARTITION routing.attempts_other_pkey;

ALTER INDEX routing.attempts_by_provider ATTACH PARTITION routing.attempts_other_provider_id_end_time_idx;

ALTER INDEX routing.attempts_by_request ATTACH PARTITION routing.attempts_other_request_id_idx;

ALTER INDEX routing.refusals_by_time ATTACH PARTITION routing.refusals_other_end_time_idx;

ALTER INDEX routing.refusals_pkey ATTACH PARTITION routing.refusals_other_pkey;

ALTER INDEX routing.refusals_by_request ATTACH PARTITION routing.refusals_other_request_id_idx;
