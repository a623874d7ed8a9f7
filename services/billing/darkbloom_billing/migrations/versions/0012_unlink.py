"""Machines leave their accounts."""

from darkbloom_mesh.migrate import run_sql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_sql(__file__)
