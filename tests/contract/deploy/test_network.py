"""The allow matrix: each port that a room opens, each neighbour that it dials, and nothing else."""

import dataclasses
from collections.abc import Iterator

import pytest
from darkbloom_gateway.config import GatewayConfig

from tests.contract.deploy.manifests import ROOMS, Document, environment, named, pod, rendered

PRODUCTION = "overlays/production"
HEALTH = 9091
METRICS = 9090
STORES = {"valkey": 6379, "postgres": 5432, "collector": 4318}


def told(room: str) -> dict[str, str]:
    documents = rendered(PRODUCTION)
    (container,) = pod(named(documents, "Deployment", room))["containers"]
    return environment(documents, container)


def ports_of(room: str) -> set[int]:
    return {
        int(value.rpartition(":")[2])
        for name, value in told(room).items()
        if name.endswith("_LISTEN")
    }


def neighbours(room: str) -> Iterator[tuple[str, int]]:
    for name, value in told(room).items():
        if name.endswith("_TARGET"):
            host, _, port = value.rpartition(":")
            yield host, int(port)


def policy(name: str) -> Document:
    return named(rendered(PRODUCTION), "NetworkPolicy", name)["spec"]


def rules(name: str, direction: str) -> Iterator[tuple[str, int]]:
    """Yield who may be talked to, or may talk, and at which port."""
    side = "from" if direction == "ingress" else "to"
    for rule in policy(name).get(direction, ()):
        for peer in rule.get(side, [{}]):
            labels = {
                **peer.get("podSelector", {}).get("matchLabels", {}),
                **peer.get("namespaceSelector", {}).get("matchLabels", {}),
            }
            who = next(iter(labels.values())) if labels else str(peer.get("ipBlock", "anybody"))
            for port in rule["ports"]:
                yield who, port["port"]


def test_nothing_is_allowed_that_no_rule_allows() -> None:
    spec = policy("default-deny")
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("room", ROOMS)
def test_each_port_that_a_room_opens_has_a_rule_and_each_rule_a_port(room: str) -> None:
    (container,) = pod(named(rendered(PRODUCTION), "Deployment", room))["containers"]
    opened = ports_of(room)
    assert opened == {port["containerPort"] for port in container["ports"]}

    allowed = {port for _, port in rules(room, "ingress")} | {METRICS}
    # Health is for the kubelet of the node, which no policy stops.
    assert allowed == opened - {HEALTH}


@pytest.mark.parametrize("room", ROOMS)
def test_whom_a_room_dials_both_sides_allow(room: str) -> None:
    out = set(rules(room, "egress"))
    for neighbour, port in neighbours(room):
        assert (neighbour, port) in out, neighbour
        assert (room, port) in set(rules(neighbour, "ingress")), neighbour


@pytest.mark.parametrize("room", ROOMS)
def test_whom_a_room_may_dial_it_is_told_of(room: str) -> None:
    dialled = set(neighbours(room)) | {(name, STORES[name]) for name in ("collector",)}
    if "REDIS_URL" in told(room):
        dialled.add(("valkey", STORES["valkey"]))
    if "DATABASE_URL" in told(room):
        dialled.add(("postgres", STORES["postgres"]))
    if room == "router":
        # Replicas dial each other at what they advertise.
        dialled.add(("router", int(told(room)["DARKBLOOM_ROUTER_ADVERTISE"].rpartition(":")[2])))
    outside = {rule for rule in rules(room, "egress") if rule[0].startswith("{")}
    assert set(rules(room, "egress")) - outside == dialled
    assert {port for _, port in outside} <= {443}
    assert bool(outside) == (room in {"billing", "attestation"})


def test_the_prober_asks_gateways_and_nobody_else() -> None:
    assert set(rules("prober", "egress")) == {("gateway", 8080)}
    assert set(rules("gateway-prober", "ingress")) == {("prober", 8080)}
    labels = named(rendered(PRODUCTION), "Deployment", "prober")["spec"]["template"]["metadata"]
    monitor = named(rendered(PRODUCTION), "PodMonitor", "prober")["spec"]["selector"]
    for selector in (policy("prober")["podSelector"], policy("metrics")["podSelector"], monitor):
        assert selector["matchLabels"].items() <= labels["labels"].items()


def test_strangers_reach_the_two_public_ports_only() -> None:
    edge = "envoy-gateway-system"
    reached = {
        (room, port) for room in ROOMS for who, port in rules(room, "ingress") if who == edge
    }
    assert reached == {("gateway", 8080), ("router", 7410)}


@pytest.mark.parametrize("store", ["valkey", "postgres"])
def test_a_store_is_reached_by_its_owners_alone(store: str) -> None:
    variable = {"valkey": "REDIS_URL", "postgres": "DATABASE_URL"}[store]
    owners = {room for room in ROOMS if variable in told(room)}
    callers = {who for who, port in rules(store, "ingress") if port == STORES[store]}
    helpers = (
        {"migration", "recover", "operator", "postgres", "cnpg-system"}
        if store == "postgres"
        else set()
    )
    assert callers == owners | helpers


def test_the_edge_gives_streams_the_time_that_they_take() -> None:
    documents = rendered(PRODUCTION)
    for name in ("api", "providers"):
        timeouts = named(documents, "BackendTrafficPolicy", name)["spec"]["timeout"]["http"]
        assert timeouts["requestTimeout"] == timeouts["maxStreamDuration"] == "0s"
    (rule,) = named(documents, "HTTPRoute", "api")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    api = named(documents, "BackendTrafficPolicy", "api")["spec"]["timeout"]["http"]
    idle_s = {field.name: field.default for field in dataclasses.fields(GatewayConfig)}["idle_s"]
    assert float(api["connectionIdleTimeout"].removesuffix("s")) <= idle_s / 2
    addresses = {
        named(documents, "Gateway", name)["spec"]["listeners"][0]["hostname"]
        for name in ("consumers", "providers")
    }
    assert len(addresses) == 2
