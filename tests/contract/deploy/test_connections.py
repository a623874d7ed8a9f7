"""PostgreSQL takes every connection that all replicas at once may open."""

from darkbloom_billing.config import BillingConfig
from darkbloom_mesh.postgres import POOL_SIZE
from darkbloom_router.records.store import CONNECTIONS

from tests.contract.deploy.manifests import ROOT, environment, named, pod, rendered

PRODUCTION = "overlays/production"
LISTENER = 1
"""Billing hears of changes on a connection beside its pool."""
OTHERS = 50
"""Standbys, CloudNativePG, the exporter, migrations, the weekly check, people."""


def pools() -> dict[str, int]:
    """Return how many connections one replica of each room may open."""
    documents = rendered(PRODUCTION)
    (billing,) = pod(named(documents, "Deployment", "billing"))["containers"]
    default = BillingConfig.__dataclass_fields__["database_connections"].default
    told = environment(documents, billing).get("DARKBLOOM_BILLING_DATABASE_CONNECTIONS", default)
    return {
        "billing": int(told) + LISTENER,
        "attestation": POOL_SIZE,
        "registry": POOL_SIZE,
        "router": CONNECTIONS,
    }


def most() -> int:
    """Return the sum at the autoscaler's maxima, while each room has one replica more."""
    documents = rendered(PRODUCTION)
    total = 0
    for room, pool in pools().items():
        (container,) = pod(named(documents, "Deployment", room))["containers"]
        assert "DATABASE_URL" in environment(documents, container)
        spec = named(documents, "Deployment", room)["spec"]
        surge = spec["strategy"]["rollingUpdate"]["maxSurge"]
        total += (named(documents, "ScaledObject", room)["spec"]["maxReplicaCount"] + surge) * pool
    return total


def allowed() -> int:
    parameters = named(rendered(PRODUCTION), "Cluster", "postgres")["spec"]["postgresql"]
    return int(parameters["parameters"]["max_connections"])


def test_all_replicas_that_may_start_find_their_connections() -> None:
    assert most() + OTHERS <= allowed()


def test_the_capacity_page_says_how_many_that_are() -> None:
    text = (ROOT / "docs" / "operations" / "capacity.md").read_text()
    assert f"open {most()} connections" in text
    assert f"`max_connections` is {allowed()}" in text
