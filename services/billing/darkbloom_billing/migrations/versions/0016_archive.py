"""Receipts whole, for 90 days, in batches that are anchored in the transparency log."""

from darkbloom_mesh.migrate import run_sql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    run_sql(__file__)
