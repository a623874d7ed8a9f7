"""Signed webhooks: each event goes to its endpoints, again until it is taken."""

import hashlib
import hmac
import json
from typing import Any

import httpx

from tests.stripe_local.world import World

TRIES = 5
TIMEOUT_S = 20.0


def sign(payload: bytes, secret: str, at: int) -> str:
    """Return the `Stripe-Signature` header."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def signed(world: World, delivery: dict[str, Any]) -> tuple[dict[str, Any], bytes, str]:
    """Return endpoint, body and signature header of a delivery."""
    endpoint = world.endpoints[delivery["endpoint"]]
    body = json.dumps(world.objects[delivery["event"]], indent=2).encode()
    return endpoint, body, sign(body, endpoint["secret"], world.now())


async def deliver(world: World, http: httpx.AsyncClient, delivery: dict[str, Any]) -> bool:
    """Post one event; returns whether it was taken."""
    endpoint, body, header = signed(world, delivery)
    delivery["tries"] += 1
    try:
        response = await http.post(
            endpoint["url"],
            content=body,
            headers={"stripe-signature": header, "content-type": "application/json"},
            timeout=TIMEOUT_S,
        )
    except httpx.HTTPError:
        return False
    return response.is_success


async def drain(world: World, http: httpx.AsyncClient, *, times: int, order: str) -> int:
    """Deliver everything that waits; what is refused waits again, up to its last try.

    Args:
        world: state.
        http: client.
        times: how often each event is sent.
        order: `as_is` or `reverse`.
    """
    waiting = [delivery for delivery in world.queue for _ in range(times)]
    world.queue = []
    if order == "reverse":
        waiting.reverse()
    refused: dict[tuple[int, str], dict[str, Any]] = {}
    taken = 0
    for delivery in waiting:
        key = (delivery["endpoint"], delivery["event"])
        if await deliver(world, http, delivery):
            taken += 1
            refused.pop(key, None)
        elif delivery["tries"] < TRIES:
            refused[key] = delivery
    world.queue.extend(refused.values())
    return taken
