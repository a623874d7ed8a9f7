"""Our engine against `mlx_lm.server` of the same pinned version, on the same model."""
