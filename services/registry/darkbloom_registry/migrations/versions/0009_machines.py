"""An index of what each machine said, by what it is called whenever it connects."""

from darkbloom_mesh.migrate import run_sql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_sql(__file__)
