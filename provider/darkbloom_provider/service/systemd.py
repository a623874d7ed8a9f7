"""systemd, per user: units in `~/.config/systemd/user`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import final

from darkbloom_provider.service.errors import ServiceError
from darkbloom_provider.service.files import write_private
from darkbloom_provider.service.plan import EXIT_TIMEOUT_S, PROVIDER_LABEL, ServicePlan
from darkbloom_provider.service.running import Done, Runner

Which = Callable[[str], str | None]
_RESTART_S = 5


def unit_text(plan: ServicePlan, inhibitor: str | None = None) -> str:
    """Return a unit file.

    Args:
        plan: what to run.
        inhibitor: path of `systemd-inhibit`; the program then runs below it, and the machine does
            not sleep for as long as it lives. Below and not beside: the agent has no children.
    """
    arguments = plan.arguments
    if inhibitor is not None:
        arguments = (
            inhibitor,
            "--what=sleep:idle",
            "--who=Darkbloom",
            "--why=serving inference",
            "--mode=block",
            *arguments,
        )
    lines = [
        "[Unit]",
        f"Description={plan.description}",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=simple",
        f"ExecStart={' '.join(map(_argument, arguments))}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in plan.environment.items()),
        # A crash of the agent is the watchdog's business, which knows of versions that keep dying.
        f"Restart={'always' if plan.keep_alive else 'no'}",
        *([f"RestartSec={_RESTART_S}"] if plan.keep_alive else []),
        f"TimeoutStopSec={EXIT_TIMEOUT_S}",
        "KillMode=mixed" if inhibitor is None else "KillMode=control-group",
        f"StandardOutput=append:{_escaped(str(plan.log))}",
        f"StandardError=append:{_escaped(str(plan.log))}",
        "UMask=0077",
        "LimitCORE=0",
        "NoNewPrivileges=true",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return "\n".join(lines)


@final
class Systemd:
    """See `ServiceManager`.

    Args:
        run: runs `systemctl --user`.
        units: folder of the unit files.
        which: finds a program on the path.
    """

    name = "systemd"

    def __init__(self, run: Runner, *, units: Path, which: Which = shutil.which) -> None:
        self._run = run
        self._units = units
        self._which = which

    def install(self, plan: ServicePlan) -> Path:
        """Replace the unit and enable it; lingering is the owner's choice, see `docs/provider.md`.

        A program that runs goes on until it is started again.
        """
        inhibitor = self._which("systemd-inhibit") if plan.label == PROVIDER_LABEL else None
        path = self._path(plan.label)
        write_private(path, unit_text(plan, inhibitor).encode())
        self._must(("daemon-reload",))
        self._must(("enable", _unit(plan.label)))
        return path

    def start(self, label: str) -> None:
        """Enable and start it."""
        self._must(("enable", _unit(label)))
        self._must(("start", _unit(label)))

    def stop(self, label: str) -> None:
        """Stop it and keep it from starting at the next login."""
        if self.installed(label):
            self._must(("disable", "--now", _unit(label)))

    def uninstall(self, label: str) -> None:
        """Stop it and remove the unit."""
        if not self.installed(label):
            return
        self.stop(label)
        self._path(label).unlink(missing_ok=True)
        self._must(("daemon-reload",))

    def installed(self, label: str) -> bool:
        """Whether the unit file is there."""
        return self._path(label).is_file()

    def running(self, label: str) -> bool:
        """Whether systemd says that it is active."""
        return self._call(("is-active", "--quiet", _unit(label))).ok

    def _must(self, arguments: Iterable[str]) -> None:
        words = tuple(arguments)
        done = self._call(words)
        if done.ok:
            return
        detail = (done.errors.strip().splitlines() or [f"code {done.code}"])[-1][:200]
        raise ServiceError(
            f"systemctl --user {words[0]} failed: {detail}",
            "a user session of systemd is needed: log in directly (not with su), or run"
            " `darkbloom start --foreground`",
        )

    def _call(self, arguments: Iterable[str]) -> Done:
        return self._run(("systemctl", "--user", "--no-pager", *arguments))

    def _path(self, label: str) -> Path:
        return self._units / _unit(label)


def _unit(label: str) -> str:
    return f"{label}.service"


def _argument(word: str) -> str:
    """Quote one word of a command line: nothing in it is expanded."""
    return _quoted(word.replace("$", "$$"))


def _quoted(word: str) -> str:
    plain = _escaped(word.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{plain}"'


def _escaped(text: str) -> str:
    if "\n" in text or "\r" in text or "\0" in text:
        raise ServiceError("a path or variable with a line break cannot be put into a unit")
    return text.replace("%", "%%")
