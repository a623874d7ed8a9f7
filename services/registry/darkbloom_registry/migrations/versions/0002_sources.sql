-- Not part of what is immutable: mirrors move, and the manifest says what their bytes must be.
ALTER TABLE registry.versions ADD COLUMN sources text[] NOT NULL DEFAULT '{}';
