"""The platform's share of a charge."""

from darkbloom_mesh.migrate import run_sql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_sql(__file__)
