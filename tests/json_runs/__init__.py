"""Constrained answers through a whole mesh, each checked by another library: `make json-runs`."""
