"""Start the gateway: `python -m darkbloom_gateway`."""

import sys

from darkbloom_mesh.config import main_config

from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.workers import start

if __name__ == "__main__":
    sys.exit(start(main_config(GatewayConfig, "gateway")))
