-- Leave to fetch that was given to routers lately; bounded by the fleet's setting, gone in a minute.
CREATE TABLE registry.download_grants (
  session text COLLATE "C" NOT NULL,
  sequence bigint NOT NULL,
  machines integer NOT NULL,
  grant_time timestamptz NOT NULL,
  PRIMARY KEY (session, sequence)
);
