"""The keys of an account are bounded, so that their list can always be read."""

import hashlib
import secrets

import pytest
from darkbloom.billing.v1 import account_service_pb2 as accounts_pb

from tests.component.gateway.people import People
from tests.component.gateway.test_people import said

pytestmark = pytest.mark.asyncio(loop_scope="session")
MOST = 100


async def test_a_hundred_of_the_largest_keys_are_listed_and_one_more_is_refused(
    town: People,
) -> None:
    account = (await town.call("GET", "/v1/me")).json()["account_id"]
    models = ["m" * 250 + f"{number:03d}" for number in range(100)]
    for number in range(MOST):
        await town.world.accounts.CreateKey(
            accounts_pb.CreateKeyRequest(
                account_id=account,
                key_hash=hashlib.sha256(secrets.token_bytes(8)).digest(),
                label=f"sk-{number}",
                allowed_models=models,
            ),
            timeout=30,
        )
    listed = await town.call("GET", "/v1/keys")
    assert len(listed.json()["data"]) == MOST
    for path in ("/v1/keys", "/v1/auth/keys"):
        refused = await town.call("POST", path)
        assert said(refused) == (400, "bad_request")
        assert "at most 100 keys" in refused.json()["error"]["message"]
    gone = await town.call("DELETE", f"/v1/keys/{listed.json()['data'][0]['id']}")
    assert gone.status_code == 200
    assert (await town.call("POST", "/v1/keys")).status_code == 200
