"""The whole mesh on one machine: embedded PostgreSQL and Valkey, every room a process."""
