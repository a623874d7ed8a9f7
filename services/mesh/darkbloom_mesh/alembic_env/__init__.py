"""The script location of alembic: its environment, and no migrations of its own."""
