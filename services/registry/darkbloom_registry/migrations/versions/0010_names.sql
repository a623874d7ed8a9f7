-- A name that is also the id of a build, which stands behind it until it is deprecated.
ALTER TABLE registry.aliases
  ADD COLUMN takeover boolean NOT NULL DEFAULT false
    CHECK (NOT takeover OR previous_build IS NOT DISTINCT FROM alias_id);

-- What it follows is a build or an alias, so no foreign key says it; the room does, under its one lock.
CREATE TABLE registry.marketplace_aliases (
  alias_id text COLLATE "C" PRIMARY KEY,
  display_name text NOT NULL,
  source_model text COLLATE "C" NOT NULL,
  marketplace_slug text NOT NULL,
  hugging_face_id text NOT NULL,
  active boolean NOT NULL,
  CHECK (source_model <> alias_id)
);
