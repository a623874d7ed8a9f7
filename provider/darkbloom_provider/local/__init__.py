"""The owner's own endpoint: OpenAI's routes on the loopback, answered by the same engine."""
