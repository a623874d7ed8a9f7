"""Models, builds, aliases, manifests and the catalog watch."""
