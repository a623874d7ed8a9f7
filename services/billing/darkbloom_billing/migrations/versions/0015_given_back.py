"""Extensions that are given back, device logins that are open, key changes that are forgotten."""

from darkbloom_mesh.migrate import run_sql

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_sql(__file__)
