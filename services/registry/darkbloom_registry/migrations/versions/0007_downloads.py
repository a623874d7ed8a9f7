"""Leave to fetch builds."""

from darkbloom_mesh.migrate import run_sql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_sql(__file__)
