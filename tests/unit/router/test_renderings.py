"""A machine whose prompts differ from those that were tried gets no tool requests."""

from dataclasses import replace

import pytest
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.router.v1 import provider_link_pb2
from darkbloom_router import convert
from darkbloom_router.inventory import Inventory
from darkbloom_router.model import Catalog, ModelFacts

from tests.unit.router.fleets import BUILD, FACTS, HASH, provider

TRIED = {"plain.1": "aa", "tools.1": "bb", "called.1": "cc"}


def catalog(tried: dict[str, str]) -> Catalog:
    """The catalog as the registry sends it."""
    version = catalog_pb2.Version(version="v1", aggregate_sha256=HASH)
    version.template.fixtures.update(tried)
    build = catalog_pb2.Build(
        id=BUILD, weight_hash=HASH, accepted_weight_hashes=[HASH], versions=[version]
    )
    return convert.catalog(catalog_pb2.Catalog(generation=1, builds=[build]))


def accepted(said: dict[str, str], tried: dict[str, str]) -> ModelFacts:
    inventory, machine = Inventory(), provider()
    inventory.catalog = catalog(tried)
    message = provider_link_pb2.ProviderModel(
        id=BUILD, weight_hash=HASH, template_fixtures=said, template_render_ok=True
    )
    assert not inventory.take(machine, [convert.model_facts(message)])
    _, facts = inventory.accepted(machine)[BUILD]
    return facts


@pytest.mark.parametrize(
    ("said", "tools"),
    [
        (TRIED, True),
        ({**TRIED, "tools.1": "xx"}, False),
        ({**TRIED, "plain.1": "xx"}, False),
        ({**TRIED, "tools.1": ""}, False),
        ({**TRIED, "tools.2": "of another release"}, True),
        ({}, True),
    ],
    ids=["same", "other tools", "other text", "renders none", "another fixture", "old agent"],
)
def test_only_the_same_text_gets_tool_requests(said: dict[str, str], tools: bool) -> None:
    assert accepted(said, TRIED).tools is tools


def test_a_version_whose_template_nobody_sent_says_nothing() -> None:
    assert accepted({"tools.1": "xx"}, {}).tools


def test_an_agent_that_renders_no_tools_gets_none_whatever_the_catalog_says() -> None:
    inventory, machine = Inventory(), provider()
    inventory.catalog = catalog(TRIED)
    inventory.take(machine, [replace(FACTS, tools=False, renderings=TRIED)])
    assert not inventory.accepted(machine)[BUILD][1].tools
