"""A person takes a machine away from the account, and nobody else can."""

import pytest
from darkbloom_edge.signatures import P256Signer, to_base64

from tests.component.billing.world import owner
from tests.component.gateway.people import ADMIN_KEY, People
from tests.component.gateway.test_people import said

pytestmark = pytest.mark.asyncio(loop_scope="session")
MISSING = (404, "machine_not_found")


async def account_of(town: People, email: str) -> str:
    return str((await town.call("GET", "/v1/me", email=email)).json()["account_id"])


async def machines(town: People, email: str) -> list[str]:
    async with owner(town.world.url) as db:
        rows = await db.fetch(
            "SELECT identity_key FROM billing.provider_link WHERE account_id = $1",
            await account_of(town, email),
        )
    return [to_base64(row["identity_key"]) for row in rows]


async def test_an_owner_unlinks_a_machine_once(town: People) -> None:
    machine = P256Signer.generate()
    named = to_base64(machine.public)
    await town.world.link(machine, await account_of(town, town.alice))
    assert await machines(town, town.alice) == [named]
    path = f"/v1/me/providers/{named.replace('/', '%2F')}"

    assert said(await town.call("DELETE", path, email=town.bob)) == MISSING
    secret, _ = await town.key()
    for bearer in (secret, ADMIN_KEY):
        assert said(await town.call("DELETE", path, bearer=bearer)) == (403, "forbidden")
    assert await machines(town, town.alice) == [named]

    gone = await town.call("DELETE", path)
    assert (gone.status_code, gone.json()) == (200, {"status": "unlinked"})
    assert await machines(town, town.alice) == []
    assert said(await town.call("DELETE", path)) == MISSING


@pytest.mark.parametrize("named", ["prov_unknown", "no-key", "AAAA", "%C3%A4", "a" * 5000])
async def test_what_cannot_be_a_machine_is_not_found(town: People, named: str) -> None:
    assert said(await town.call("DELETE", f"/v1/me/providers/{named}")) == MISSING


async def test_a_machine_may_be_named_as_urls_like_it(town: People) -> None:
    machine = P256Signer.generate()
    await town.world.link(machine, await account_of(town, town.alice))
    named = to_base64(machine.public).translate(str.maketrans("+/", "-_"))
    assert (await town.call("DELETE", f"/v1/me/providers/{named}")).status_code == 200
    assert await machines(town, town.alice) == []
