"""Start the gateway: `python -m darkbloom_gateway`."""

import argparse
import sys

from darkbloom_mesh.config import CHECK_CONFIG, CHECK_HELP, main_config

from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.workers import start

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="darkbloom_gateway", allow_abbrev=False, description="The gateway room."
    )
    parser.add_argument(CHECK_CONFIG, action="store_true", help=CHECK_HELP)
    parser.parse_args()
    sys.exit(start(main_config(GatewayConfig, "gateway")))
