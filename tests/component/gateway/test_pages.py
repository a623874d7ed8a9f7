"""The documentation that a gateway serves."""

import re
from pathlib import Path

import pytest

from tests.component.gateway.harness import Harness

DOCS = Path(__file__).parents[3] / "docs"
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_map_is_served_and_each_of_its_links_resolves_here(house: Harness) -> None:
    answer = await house.http.get("/llms.txt")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    links = re.findall(r"\]\(([^)]+)\)", answer.text)
    assert "openapi.json" in links
    for link in links:
        assert (await house.http.get(f"/{link}")).status_code == 200, link


async def test_a_page_is_its_source(house: Harness) -> None:
    answer = await house.http.get("/docs/quickstart.md")

    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.text == (DOCS / "quickstart.md").read_text()
    assert answer.text in (await house.http.get("/llms-full.txt")).text


@pytest.mark.parametrize("name", ["absent.md", "..%2fREADME.md", "README.md"])
async def test_there_is_no_other_page(house: Harness, name: str) -> None:
    assert (await house.http.get(f"/docs/{name}")).status_code == 404
