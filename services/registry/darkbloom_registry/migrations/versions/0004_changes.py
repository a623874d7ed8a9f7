"""Publishing keys, and the record of every write."""

from darkbloom_mesh.migrate import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql(__file__)
