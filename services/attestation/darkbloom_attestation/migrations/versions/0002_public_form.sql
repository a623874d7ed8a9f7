-- The public form follows from the blob, so that the signature over it is all that is kept.
ALTER TABLE attestation.registrations
  ADD COLUMN public_signature bytea NOT NULL DEFAULT '' CHECK (octet_length(public_signature) <= 256);

-- Where the last passed challenge of a session is looked up for the public page.
CREATE INDEX challenges_passed ON attestation.challenges (provider_id, judge_time)
  WHERE state = 'passed';
