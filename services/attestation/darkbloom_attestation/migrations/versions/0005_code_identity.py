"""Code identity over Apple's push service: addresses, outstanding challenges, newest proofs."""

from darkbloom_mesh.migrate import run_sql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql(__file__)
