"""Roll-ups for usage, earnings and the public figures."""

from darkbloom_mesh.migrate import run_sql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_sql(__file__)
