"""Receipts of answers that nobody paid for are kept whole, beside those of holds."""

from darkbloom_mesh.migrate import run_sql

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    run_sql(__file__)
