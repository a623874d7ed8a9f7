"""Decision records by day, so that a day goes at once."""

from darkbloom_mesh.migrate import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql(__file__)
