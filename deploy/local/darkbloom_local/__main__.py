"""Run `python -m darkbloom_local`."""

import os

# Children are started while channels are open; gRPC's fork handlers would only complain about it,
# for a child that becomes another program at once has no use for them. Read at its first import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # noqa: TID251

from darkbloom_local.cli import app

if __name__ == "__main__":
    app(prog_name="darkbloom_local")
