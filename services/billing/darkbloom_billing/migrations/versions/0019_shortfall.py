"""A payout that the books have forgotten and the account cannot carry becomes its debt."""

from darkbloom_mesh.migrate import run_sql

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    run_sql(__file__)
