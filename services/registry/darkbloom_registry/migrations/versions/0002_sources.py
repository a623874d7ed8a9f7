"""Where the files of a version may be fetched."""

from darkbloom_mesh.migrate import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql(__file__)
