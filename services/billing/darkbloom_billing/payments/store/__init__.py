"""The rows of payments in PostgreSQL."""
