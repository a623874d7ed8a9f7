"""What a rollout found and when its step began; the record of changes is never emptied."""

from darkbloom_mesh.migrate import run_sql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql(__file__)
