"""The operations pages name things that exist."""

import re
from pathlib import Path

import pytest
from darkbloom_mesh.config import describe, load
from darkbloom_mesh.telemetry import DECLARED

from tests.contract.deploy.manifests import DEPLOY, ROOMS, ROOT, named, pod, rendered
from tests.contract.test_environment_tables import config_of

PAGES = sorted((ROOT / "docs" / "operations").rglob("*.md"))
RUNBOOKS = [path for path in PAGES if path.parent.name == "runbooks"]
SECTIONS = ["When", "Before", "Steps", "Check", "Back"]
# Of the operators' and agents' command lines, and of the drills.
OTHERS = {
    "DARKBLOOM_ADMIN_TARGET",
    "DARKBLOOM_ADMIN_TOKEN_FILE",
    "DARKBLOOM_DRILLS",
    "DARKBLOOM_DRILL_MACHINES",
    "DARKBLOOM_ADMIN_REPLICA_URL_FILE",
    "DARKBLOOM_ENV",
}
VARIABLES = OTHERS | {
    name
    for room in ROOMS
    for row in describe(config_of(room), room)
    for name in (row.name, *row.aliases)
}
NAME = {"ids": lambda path: path.stem}


@pytest.mark.parametrize("page", RUNBOOKS, **NAME)
def test_a_runbook_says_when_what_how_to_check_and_the_way_back(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"(?m)^## (.+)$", text) == SECTIONS
    for part in re.split(r"(?m)^## .+$", text)[1:]:
        assert part.strip()
    index = (ROOT / "docs" / "operations" / "README.md").read_text()
    assert f"(runbooks/{page.name})" in index


@pytest.mark.parametrize("page", [*PAGES, DEPLOY / "README.md"], ids=lambda path: path.stem)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for variable in re.findall(r"\bDARKBLOOM_[A-Z_]+[A-Z]\b", text):
        assert variable in VARIABLES, variable
    known = {spec.name for spec in DECLARED}
    for metric in re.findall(r"\bdarkbloom_[a-z_]+_(?:total|seconds|micros|overdue)\b", text):
        assert metric in known, metric
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_panel_that_a_page_names_is_on_a_dashboard() -> None:
    dashboards = (DEPLOY / "kustomize/components/monitoring/dashboards").glob("*.json")
    shown = "".join(path.read_text() for path in dashboards)
    titles = set(re.findall(r'"title": "([^"]+)"', shown))
    named_panels = {
        (page.stem, panel)
        for page in PAGES
        for panel in re.findall(r"(?<!\*)\*([A-Z][^*\n:]+)\*(?!\*)", page.read_text())
    }
    assert len(named_panels) >= 10
    assert {panel for _, panel in named_panels} <= titles, named_panels


def test_a_runbook_with_an_operators_command_says_how_to_reach_billing() -> None:
    for page in RUNBOOKS:
        text = page.read_text()
        before = text.partition("## Steps")[2].partition("## Check")[0]
        if "darkbloom-admin" in before and page.stem not in {"operators", "secret-leak"}:
            assert "operators.md" in text, page.stem


@pytest.mark.parametrize("page", [*PAGES, DEPLOY / "README.md"], ids=lambda path: path.stem)
def test_what_of_this_tree_a_page_names_is_there(page: Path) -> None:
    for path in re.findall(r"\bdeploy/kustomize/[\w./-]*\w", page.read_text()):
        assert (ROOT / path).exists(), path


def test_every_kill_switch_takes_the_value_that_its_page_names() -> None:
    text = (ROOT / "docs" / "operations" / "runbooks" / "kill-switches.md").read_text()
    settings = re.findall(r"`DARKBLOOM_ROUTER_([A-Z_]+)=([^`]+)`", text)
    assert len(settings) >= 8
    fields = config_of("router").__dataclass_fields__
    for name, value in settings:
        environ = {f"DARKBLOOM_ROUTER_{name}": value, "DARKBLOOM_ENV": "development"}
        assert name.lower() in fields
        load(config_of("router"), "router", environ)


def test_the_table_of_ports_is_what_rooms_listen_at() -> None:
    text = (ROOT / "docs" / "operations" / "README.md").read_text()
    table = text.partition("### Ports")[2].partition("###")[0]
    written = {
        (room, int(port))
        for rooms, port in re.findall(r"(?m)^\| ([a-z, ]+) \| (\d+) \|", table)
        for room in (ROOMS if rooms == "all" else rooms.split(", "))
    }
    opened = set()
    for room in ROOMS:
        (container,) = pod(named(rendered("base"), "Deployment", room))["containers"]
        opened |= {(room, port["containerPort"]) for port in container["ports"]}
    assert written == opened
