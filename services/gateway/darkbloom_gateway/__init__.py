"""HTTP front: OpenAI-compatible surface, sealing and opening at the edge."""
