-- Why each request went where it went, or nowhere. Counts, times and closed words; nothing of a prompt.
CREATE TABLE routing.attempts (
  attempt_id text PRIMARY KEY,
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
  end_time timestamptz NOT NULL
);
CREATE INDEX attempts_by_request ON routing.attempts (request_id);
CREATE INDEX attempts_by_time ON routing.attempts (end_time);
CREATE INDEX attempts_by_provider ON routing.attempts (provider_id, end_time);

CREATE TABLE routing.refusals (
  refusal_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  request_id text NOT NULL,
  replica text NOT NULL,
  build text NOT NULL,
  http_status integer NOT NULL,
  reason text NOT NULL,
  attempts integer NOT NULL,
  gates jsonb NOT NULL,
  -- Null where nobody looked: the request was refused before the fleet was asked.
  could_have_served boolean,
  waited_ms integer NOT NULL,
  end_time timestamptz NOT NULL
);
CREATE INDEX refusals_by_request ON routing.refusals (request_id);
CREATE INDEX refusals_by_time ON routing.refusals (end_time);
