-- A table for each day (UTC), made by the routers a day ahead and dropped whole. What was written
-- before is attached as one more, so that readers and writers of either version go on as they did.
ALTER TABLE routing.attempts RENAME TO attempts_before;
ALTER TABLE routing.refusals RENAME TO refusals_before;
ALTER TABLE routing.attempts_before DROP CONSTRAINT attempts_pkey;
ALTER TABLE routing.refusals_before DROP CONSTRAINT refusals_pkey;
ALTER INDEX routing.attempts_by_request RENAME TO attempts_before_by_request;
ALTER INDEX routing.attempts_by_time RENAME TO attempts_before_by_time;
ALTER INDEX routing.attempts_by_provider RENAME TO attempts_before_by_provider;
ALTER INDEX routing.refusals_by_request RENAME TO refusals_before_by_request;
ALTER INDEX routing.refusals_by_time RENAME TO refusals_before_by_time;
ALTER TABLE routing.refusals_before ALTER COLUMN refusal_id DROP IDENTITY;

CREATE TABLE routing.attempts (LIKE routing.attempts_before) PARTITION BY RANGE (end_time);
ALTER TABLE routing.attempts ADD PRIMARY KEY (attempt_id, end_time);
CREATE INDEX attempts_by_request ON routing.attempts (request_id);
CREATE INDEX attempts_by_time ON routing.attempts (end_time);
CREATE INDEX attempts_by_provider ON routing.attempts (provider_id, end_time);

CREATE TABLE routing.refusals (LIKE routing.refusals_before) PARTITION BY RANGE (end_time);
ALTER TABLE routing.refusals ADD PRIMARY KEY (refusal_id, end_time);
CREATE INDEX refusals_by_request ON routing.refusals (request_id);
CREATE INDEX refusals_by_time ON routing.refusals (end_time);

CREATE SEQUENCE routing.refusal_ids OWNED BY routing.refusals.refusal_id;
ALTER TABLE routing.refusals ALTER COLUMN refusal_id SET DEFAULT nextval('routing.refusal_ids');
SELECT setval('routing.refusal_ids', coalesce(max(refusal_id), 0) + 1, false) FROM routing.refusals_before;

-- Where nobody has made the day: no row is lost for want of a table.
CREATE TABLE routing.attempts_other PARTITION OF routing.attempts DEFAULT;
CREATE TABLE routing.refusals_other PARTITION OF routing.refusals DEFAULT;

DO $$
DECLARE
  stem text;
  newest timestamptz;
BEGIN
  FOREACH stem IN ARRAY ARRAY['attempts', 'refusals'] LOOP
    EXECUTE format('SELECT max(end_time) FROM routing.%I', stem || '_before') INTO newest;
    IF newest IS NULL THEN
      EXECUTE format('DROP TABLE routing.%I', stem || '_before');
    ELSE
      EXECUTE format(
        'ALTER TABLE routing.%I ATTACH PARTITION routing.%I FOR VALUES FROM (MINVALUE) TO (%L)',
        stem, stem || '_before',
        date_trunc('day', greatest(newest, now()), 'UTC') + interval '1 day');
    END IF;
  END LOOP;
END $$;
