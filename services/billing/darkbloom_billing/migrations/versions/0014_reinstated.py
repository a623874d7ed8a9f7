"""Money that comes back after a lost dispute, and how long finished work is remembered."""

from darkbloom_mesh.migrate import run_sql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_sql(__file__)
