"""The table of commands. One line adds one; its module is imported only when it is asked for.

A command is a function that typer can read, or a `typer.Typer` for a family; it returns its exit
code, or nothing for 0. It takes `--json` wherever it prints facts, and gets its configuration from
`darkbloom_provider.cli.context`.
"""

from dataclasses import dataclass
from typing import Final

SERVE: Final = "Serve"
WATCH: Final = "See what it does"
MONEY: Final = "Account and money"
MODELS: Final = "Models"
SETTINGS: Final = "Settings"
TRUST: Final = "Trust"


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command is found."""

    name: str
    target: str
    """`module:attribute`; the module below `darkbloom_provider.cli`."""
    panel: str
    hidden: bool = False


COMMANDS: Final = (
    Command("start", "start:start", SERVE),
    Command("stop", "stop:stop", SERVE),
    Command("restart", "stop:restart", SERVE),
    Command("local", "local:local", SERVE),
    Command("update", "update:update", SERVE),
    Command("watchdog", "watchdog:watchdog", SERVE, hidden=True),
    Command("runtime-smoke", "runtime_smoke:runtime_smoke", SERVE, hidden=True),
    Command("status", "status:status", WATCH),
    Command("doctor", "doctor:doctor", WATCH),
    Command("logs", "logs:logs", WATCH),
    Command("report", "logs:report", WATCH),
    Command("benchmark", "benchmark:benchmark", WATCH),
    Command("earnings", "earnings:earnings", MONEY),
    Command("login", "login:login", MONEY),
    Command("logout", "login:logout", MONEY),
    Command("whoami", "login:whoami", MONEY),
    Command("models", "models:app", MODELS),
    Command("schedule", "schedule:schedule", SETTINGS),
    Command("idle", "idle:app", SETTINGS),
    Command("config", "config:app", SETTINGS),
    Command("cache", "cache:app", SETTINGS),
    Command("autoupdate", "autoupdate:autoupdate", SETTINGS),
    Command("verify", "verify:verify", TRUST),
    Command("identity", "identity:show_identity", TRUST),
    Command("enroll", "enroll:enroll", TRUST),
    Command("unenroll", "enroll:unenroll", TRUST),
    Command("code-release", "code_release:show_code_release", TRUST),
)
