"""One child process: started in its own session, ended by its own pid, never left behind."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from darkbloom_local.errors import ChildDiedError

_POLL_S = 0.02
_TAIL_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run, and how it likes to be stopped."""

    name: str
    """Name for messages and the log file."""
    argv: Sequence[str]
    """Program and arguments; no shell."""
    env: Mapping[str, str]
    """The whole environment of the child."""
    log: Path
    """Standard output and error are appended here."""
    cwd: Path | None = None
    """Working directory; None keeps ours."""
    user: str | None = None
    """Account to run as, for programs that refuse root; None keeps ours."""
    stop_signal: signal.Signals = signal.SIGTERM
    """The signal that asks for an orderly end."""


class Child:
    """A running command. Whoever starts it must stop it; if we die first, the kernel ends it.

    Start it from a thread that lives as long as the mesh: on Linux the parent-death signal is tied
    to the thread that forked.
    """

    def __init__(self, command: Command, process: subprocess.Popen[bytes]) -> None:
        self.command = command
        self._process = process

    @classmethod
    def start(cls, command: Command) -> Self:
        """Start the command.

        Raises:
            OSError: The program cannot be executed.
        """
        command.log.parent.mkdir(parents=True, exist_ok=True)
        identity = groups_of(command.user)
        with command.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - argv is ours, no shell
                list(command.argv),
                env=dict(command.env),
                cwd=command.cwd,
                user=command.user,
                group=identity.group,
                extra_groups=identity.extra_groups,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own session: Ctrl-C reaches only us, and we stop children in order.
                start_new_session=True,
                preexec_fn=_die_with_parent(command.stop_signal),  # noqa: PLW1509 - one syscall
            )
        return cls(command, process)

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Return if the child runs.

        Raises:
            ChildDiedError: It ended; the message carries the last lines of its log.
        """
        code = self.exit_code
        if code is None:
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        tail = "".join(f"  | {line}\n" for line in self.log_tail())
        raise ChildDiedError(f"{self.name} ended ({how}); end of {self.command.log}:\n{tail}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; nothing happens if it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the child and everything it started, at once, and reap it."""
        if self.exit_code is None:
            _signal_group(self.pid, signal.SIGKILL)
        self._process.wait()
        _signal_group(self.pid, signal.SIGKILL)

    def stop(self, grace_s: float) -> int:
        """Ask for an orderly end, wait `grace_s` seconds, then kill; return the exit code."""
        if self.exit_code is None:
            self.send(self.command.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()
        return self._process.returncode

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit code once it ends by itself; None when the time is over."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Poll until `ready()` says so; False when the time is over.

        Raises:
            ChildDiedError: The child ended first.
        """
        end = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
        return True

    def log_tail(self, lines: int = 12) -> list[str]:
        """Return the last lines of the log, without their line ends."""
        return tail(self.command.log, lines)


@dataclass(frozen=True)
class Groups:
    """The groups that a child runs with; None keeps ours."""

    group: int | None
    extra_groups: tuple[int, ...] | None


def groups_of(user: str | None) -> Groups:
    """Return what goes with `user`: its own group and no other, so that nothing of ours leaks."""
    if user is None:
        return Groups(None, None)
    return Groups(pwd.getpwnam(user).pw_gid, ())


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a text file; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return what the child runs before exec, on Linux; elsewhere the next start cleans up."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def arm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return arm
