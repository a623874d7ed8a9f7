-- An answer of one's own machine moves no money, so that no hold and no row of `receipt`, which the
-- ledger needs for ever, stands behind it. Its countersign is kept here, and goes with the rest.
ALTER TABLE billing.receipt_proof
  ADD COLUMN document bytea CHECK (length(document) <= 65536),
  ADD COLUMN signature bytea CHECK (length(signature) <= 256),
  ADD COLUMN key_id text,
  ADD CHECK ((document IS NULL) = (signature IS NULL) AND (document IS NULL) = (key_id IS NULL));
