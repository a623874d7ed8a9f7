"""Names that take a build's id over, and names for marketplaces alone."""

from darkbloom_mesh.migrate import run_sql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_sql(__file__)
