"""The provider's signature over the public form of its registration."""

from darkbloom_mesh.migrate import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql(__file__)
