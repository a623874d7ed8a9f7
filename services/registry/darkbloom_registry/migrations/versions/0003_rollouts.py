"""Rollouts, what routers report on them, and how far machines are with builds."""

from darkbloom_mesh.migrate import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql(__file__)
