"""Live fleet, provider streams, placement, dispatch and metering; ciphertext only."""
