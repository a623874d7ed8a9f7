"""Many routers as one fleet: who holds which provider, and how the others use it (ADR 0012)."""
