"""Start the router: `python -m darkbloom_router`."""

from darkbloom_mesh.config import main_config
from darkbloom_mesh.serve import run

from darkbloom_router.app import serve
from darkbloom_router.config import RouterConfig


def main() -> None:
    """Serve until told to stop; exits with the room's code."""
    config = main_config(RouterConfig, "router")
    raise SystemExit(run(lambda: serve(config)))


if __name__ == "__main__":
    main()
