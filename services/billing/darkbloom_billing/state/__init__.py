"""The whole state of billing as one encrypted file, and back into an empty database."""
