"""What every test layer shares: tools that may be missing, and the list of what was not run."""

import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

_SKIPPED = pytest.StashKey[set[str]]()

# The same examples each time, however busy the machine is; `make fuzz` is where chance belongs.
settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SKIPPED] = set()
    config.addinivalue_line("markers", "tool(name): needs a program that .ci/tools installs")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test by name where its tool is missing."""
    for mark in item.iter_markers("tool"):
        name = mark.args[0]
        if shutil.which(name) is None:
            item.config.stash[_SKIPPED].add(f"{item.nodeid}: no {name} on this machine")
            pytest.skip(f"no {name} on this machine (.ci/tools)")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    """List last, by name, what a missing tool kept from running."""
    yield
    for line in sorted(config.stash[_SKIPPED]):
        terminalreporter.write_line(f"not run: {line}")
