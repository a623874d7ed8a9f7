-- What was blessed before there were rings is offered to all, and so is what a replica of the
-- version before registers.
ALTER TABLE attestation.code_releases
  ADD COLUMN offer_percent smallint NOT NULL DEFAULT 100 CHECK (offer_percent IN (1, 10, 100)),
  ADD COLUMN offer_held text NOT NULL DEFAULT '',
  ADD COLUMN offer_time timestamptz NOT NULL DEFAULT 'epoch';

CREATE TABLE attestation.offer_changes (
  change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code_release text NOT NULL REFERENCES attestation.code_releases (code_release),
  change_time timestamptz NOT NULL,
  actor text NOT NULL CHECK (actor <> ''),
  action text NOT NULL CHECK (action IN ('begun', 'widened', 'held', 'resumed')),
  percent smallint NOT NULL,
  reason text NOT NULL
);
CREATE INDEX offer_changes_of_release ON attestation.offer_changes (code_release, change_id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON attestation.offer_changes
  FOR EACH ROW EXECUTE FUNCTION attestation.refuse_change();

-- A mesh with much evidence makes it beforehand, CONCURRENTLY and under this name.
CREATE INDEX IF NOT EXISTS registrations_of_time ON attestation.registrations (create_time);
