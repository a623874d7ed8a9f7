"""Logs that an owner sends in: bounded, whole, erasable, for administrators only, never logged."""

import secrets

import pytest

from tests.component.billing.world import owner
from tests.component.gateway.people import ADMIN, ADMIN_KEY, People
from tests.component.gateway.test_device_login import token_of
from tests.component.gateway.test_people import said

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH = "/v1/provider/log-report"
LIMIT = 10 * 1024 * 1024
_COUNT = """
    SELECT count(*) FROM billing.log_report r JOIN billing.app_user u USING (account_id)
    WHERE u.email = $1
"""


async def test_a_report_comes_back_byte_for_byte_to_an_administrator(
    town: People, capsys: pytest.CaptureFixture[str]
) -> None:
    token = await token_of(town)
    canary = secrets.token_hex(16).encode()
    content = canary + secrets.token_bytes(LIMIT - len(canary))
    sent = await town.call("POST", PATH, bearer=token, content=content)
    assert sent.status_code == 201, sent.text
    assert sent.json()["bytes"] == LIMIT
    named = f"/v1/admin/log-reports/{sent.json()['id']}"
    for bearer in (ADMIN_KEY, town.issuer.token(ADMIN)):
        read = await town.call("GET", named, bearer=bearer)
        assert read.content == content
        assert read.headers["content-type"] == "application/octet-stream"
        assert read.headers["cache-control"] == "no-store"
        assert read.headers["x-content-type-options"] == "nosniff"
    shown = capsys.readouterr()
    assert canary.decode() not in shown.out + shown.err

    key, _ = await town.key()
    for bearer in (key, token, town.issuer.token(town.alice)):
        assert said(await town.call("GET", named, bearer=bearer)) == (403, "forbidden")
    for wrong in ("log_unknown", "%00", "a" * 300):
        missing = await town.call("GET", f"/v1/admin/log-reports/{wrong}", bearer=ADMIN_KEY)
        assert said(missing) == (404, "not_found")


async def test_what_is_too_large_empty_or_of_a_stranger_is_not_kept(town: People) -> None:
    token = await token_of(town)
    large = await town.call("POST", PATH, bearer=token, content=b"x" * (LIMIT + 1))
    assert large.status_code == 413
    empty = await town.call("POST", PATH, bearer=token, content=b"")
    assert said(empty) == (400, "invalid_request_error")
    key, _ = await town.key()
    for bearer in (key, ADMIN_KEY, town.issuer.token(town.alice)):
        refused = await town.call("POST", PATH, bearer=bearer, content=b"x")
        assert said(refused) == (403, "forbidden")
    unknown = await town.call("POST", PATH, bearer="dbp-" + "0" * 64, content=b"x")
    assert said(unknown) == (401, "authentication_error")
    async with owner(town.world.url) as db:
        assert await db.fetchval(_COUNT, town.alice) == 0


async def test_the_newest_three_of_an_account_are_kept(town: People) -> None:
    token = await token_of(town)
    names = []
    for number in range(4):
        sent = await town.call("POST", PATH, bearer=token, content=b"log %d" % number)
        names.append(sent.json()["id"])
        # Billing's clock of this place is real; two reports in one microsecond do not happen.
    async with owner(town.world.url) as db:
        assert await db.fetchval(_COUNT, town.alice) == 3
    statuses = [
        (await town.call("GET", f"/v1/admin/log-reports/{name}", bearer=ADMIN_KEY)).status_code
        for name in names
    ]
    assert statuses == [404, 200, 200, 200]


async def test_half_a_report_is_none(town: People) -> None:
    token = await token_of(town)
    sent = await town.call("POST", PATH, bearer=token, content=b"x" * (3 * 1024 * 1024))
    name = sent.json()["id"]
    async with owner(town.world.url) as db:
        await db.execute(
            "DELETE FROM billing.log_report_part WHERE report_id = $1 AND number = 1", name
        )
    read = await town.call("GET", f"/v1/admin/log-reports/{name}", bearer=ADMIN_KEY)
    assert said(read) == (404, "not_found")
