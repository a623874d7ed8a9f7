"""The local Stripe of a mesh, out of the test tree, for trying payments. No real money."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from darkbloom_local.errors import LocalError

NAME = "stripe"
_ROOT = Path(__file__).resolve().parents[3]
_MODULE = "tests.stripe_local"
_SECRETS = {
    "payments": "whsec_local_payments",
    "transfers": "whsec_local_transfers",
    "accounts": "whsec_local_accounts",
}
"""Not secrets: whoever reads this may forge events of a Stripe that has no money."""
_PATHS = {
    "payments": "/v1/billing/stripe/webhook",
    "transfers": "/v1/billing/stripe/connect/webhook",
    "accounts": "/v1/billing/stripe/connect/accounts/webhook",
}


def argv(port: int, gateway_port: int, state: Path, ready_file: Path) -> Sequence[str]:
    """Return its command line.

    Raises:
        LocalError: This is not a source tree.
    """
    if not (_ROOT / "tests" / "stripe_local" / "__main__.py").is_file():
        raise LocalError("the local stripe is part of the source tree, and this is none")
    endpoints = [
        {
            "url": f"http://127.0.0.1:{gateway_port}{path}",
            "secret": _SECRETS[name],
            "connect": name == "accounts",
            "events": ["transfer.*"] if name == "transfers" else [],
        }
        for name, path in _PATHS.items()
    ]
    return [
        *(sys.executable, "-m", _MODULE),
        *("--port", str(port)),
        *("--state", str(state)),
        *("--endpoints", json.dumps(endpoints)),
        *("--ready-file", str(ready_file)),
    ]


def environment() -> Mapping[str, str]:
    """Return what its process is told."""
    return {"PYTHONPATH": str(_ROOT)}


def billing_environment(address: str) -> Mapping[str, str]:
    """Return what billing is told, so that it takes this Stripe for Stripe."""
    return {
        "DARKBLOOM_BILLING_STRIPE_API_BASE": f"http://{address}",
        "DARKBLOOM_BILLING_STRIPE_SECRET_KEY": "sk_test_local",
        "DARKBLOOM_BILLING_STRIPE_WEBHOOK_SECRET": _SECRETS["payments"],
        "DARKBLOOM_BILLING_STRIPE_CONNECT_WEBHOOK_SECRET": _SECRETS["transfers"],
        "DARKBLOOM_BILLING_STRIPE_CONNECT_ACCOUNTS_WEBHOOK_SECRET": _SECRETS["accounts"],
    }
