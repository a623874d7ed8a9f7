"""Rings of machines to which releases are offered, and who changed them."""

from darkbloom_mesh.migrate import run_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_sql(__file__)
