"""One mesh with a local Stripe, and one browser that looks at it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from darkbloom_local.environment import process_environment
from darkbloom_local.mesh import Mesh

from tests.browser.driver import DESKTOP, Browser, chromium
from tests.browser.person import OWNER, Person
from tests.mesh.harness import QUICK

UNHURRIED = {
    "gateway": {
        **QUICK["gateway"],
        "DARKBLOOM_GATEWAY_FINANCIAL_RATE": "1000",
        "DARKBLOOM_GATEWAY_FINANCIAL_BURST": "1000",
        "DARKBLOOM_GATEWAY_ADDRESS_RATE": "1000",
        "DARKBLOOM_GATEWAY_ADDRESS_BURST": "1000",
    },
    "billing": {**QUICK["billing"], "DARKBLOOM_BILLING_STRIPE_POLL_S": "0.2"},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever looks at a page needs a browser; without one it is skipped by name."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for tool in ("chromium", "chromedriver"):
                item.add_marker(pytest.mark.tool(tool))
            item.add_marker(pytest.mark.mesh)
            # The first of them starts the mesh, on machines that may have much else to do.
            item.add_marker(pytest.mark.timeout(300))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A mesh whose one machine belongs to its owner, and has earned something."""
    environment = {room: {**QUICK.get(room, {}), **UNHURRIED.get(room, {})} for room in QUICK}
    async with Mesh(
        tmp_path_factory.mktemp("site"),
        engine=None,
        environment=environment,
        local_stripe=True,
        durable=False,
    ) as mesh:
        login = {"authorization": f"Bearer {mesh.login_token(OWNER)}"}
        async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as http:
            account = (await http.get("/v1/me", headers=login)).json()["account_id"]
            await mesh.start_provider("provider", engine="scripted", account_id=account)
            for _ in range(3):
                await ask(http, mesh.api_key)
        yield mesh


async def ask(http: httpx.AsyncClient, key: str) -> None:
    """Let somebody else ask something, so that the machine has earned."""
    turns = [{"role": "user", "content": "hello"}]
    answer = await http.post(
        "/v1/chat/completions",
        json={"model": "scripted", "messages": turns},
        headers={"authorization": f"Bearer {key}"},
    )
    assert answer.is_success, answer.text


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: `DARKBLOOM_TEST_ARTEFACTS`, or with the other leftovers."""
    kept = process_environment().get("DARKBLOOM_TEST_ARTEFACTS")
    return Path(kept) / "browser" if kept else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of all journeys."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def person(site: Mesh, window: Browser, pictures: Path) -> Person:
    """Somebody who has just opened the console in a new tab, on a desk, in the light."""
    window.open(f"{site.url}/console/")
    window.script("sessionStorage.clear(); localStorage.clear()")
    window.size(*DESKTOP)
    window.colours("light")
    window.open(f"{site.url}/console/")
    window.settled()
    window.complaints()
    return Person(window, site, pictures)


@pytest.fixture
def owner(person: Person) -> Person:
    """The owner of the machine, signed in."""
    person.sign_in(OWNER)
    return person


@pytest.fixture
def known(person: Person) -> Person:
    """The same, signed in."""
    person.sign_in()
    return person
