"""Adapters over PostgreSQL: one file for each port."""
