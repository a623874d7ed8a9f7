"""How far builds and catalogs are on their way: what replicas confirm, and what is told of it."""
