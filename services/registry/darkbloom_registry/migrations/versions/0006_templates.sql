-- What the chat template of a version made of the registry's fixtures; null where nobody sent it.
ALTER TABLE registry.versions ADD COLUMN template_sha256 text;
ALTER TABLE registry.versions ADD COLUMN template_fixtures jsonb;

ALTER TABLE registry.builds ADD COLUMN marketplace_slug text NOT NULL DEFAULT '';

-- Who goes by which catalog: one row for each life of a replica, gone a day after its last word.
CREATE TABLE registry.readers (
  session text COLLATE "C" PRIMARY KEY,
  room text NOT NULL,
  replica text NOT NULL,
  generation bigint NOT NULL,
  confirm_time timestamptz NOT NULL
);

-- What the machines of a router hold, as of its last word.
CREATE TABLE registry.holdings (
  session text COLLATE "C" NOT NULL REFERENCES registry.readers (session) ON DELETE CASCADE,
  build text COLLATE "C" NOT NULL,
  wished integer NOT NULL,
  holding integer NOT NULL,
  current integer NOT NULL,
  warm integer NOT NULL,
  PRIMARY KEY (session, build)
);

ALTER TABLE registry.model_states ADD COLUMN machine text NOT NULL DEFAULT '';

-- A name may go while the record of its rollouts stays.
ALTER TABLE registry.rollouts DROP CONSTRAINT rollouts_alias_fkey;
