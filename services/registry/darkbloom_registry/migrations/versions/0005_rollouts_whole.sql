-- What stood behind the name before, for a rollout that turns back; empty where nothing did.
ALTER TABLE registry.rollouts ADD COLUMN previous_build text COLLATE "C" NOT NULL DEFAULT '';
-- The catalog in which its step began: what was seen by an older one is not of this step.
ALTER TABLE registry.rollouts ADD COLUMN step_generation bigint NOT NULL DEFAULT 0;

-- TRUNCATE fires no trigger of rows.
CREATE TRIGGER changes_never_emptied
  BEFORE TRUNCATE ON registry.changes
  FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_rewriting();
