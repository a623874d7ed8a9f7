"""How the owner's commands talk to the running agent: one question, one answer, over a socket.

A UNIX socket in the agent's private folder and not signals: a signal carries no answer, no way to
say "at once", and may hit a stranger that has got the old process id. The socket dies with its
listener, and only its owner can reach it. Signals still work; they are the way where the folder's
path is too long for a socket.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

import msgspec

from darkbloom_provider.errors import ProviderError

MAX_BYTES = 16_384
"""Bound of a question and of an answer."""
ANSWER_S = 10.0
"""Bound of one exchange."""
MAX_PATH_BYTES = 100
"""A socket's path has 103 bytes on macOS and 107 on Linux."""

Phase = Literal["loading", "serving", "closed", "draining"]


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a command wants."""

    op: Literal["facts", "drain"]
    force: bool = False
    """For `drain`: end running work at once; what was delivered is still settled."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent says of itself at this moment."""

    pid: int
    generation: str
    """Random id of the process; it tells a new agent from an old one."""
    version: str
    phase: Phase
    authorised: bool
    """The router has answered this process with a verdict, or none is needed (`--local`)."""
    connection: str = ""
    trust_level: str = ""
    opens_at: str | None = None
    """When the schedule opens next; set where `phase` is `closed`."""
    local_url: str | None = None
    sleep_prevented: bool = False
    """Whether the system is kept from sleeping, measured."""


class NoAnswerError(ProviderError):
    """Nobody listens, or not in the way of this protocol."""


def ask(path: Path, question: Question, *, timeout_s: float = ANSWER_S) -> Facts:
    """Ask the running agent; blocks.

    Raises:
        NoAnswerError: it does not listen, does not answer in time, or answers nonsense.
    """
    if too_long(path):
        raise NoAnswerError("the agent's folder has a path too long for a socket")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(timeout_s)
            stream.connect(str(path))
            stream.sendall(msgspec.json.encode(question) + b"\n")
            with stream.makefile("rb") as answers:
                line = answers.readline(MAX_BYTES)
        return msgspec.json.decode(line, type=Facts)
    except (OSError, msgspec.MsgspecError) as error:
        raise NoAnswerError(f"the agent does not answer ({type(error).__name__})") from None


def too_long(path: Path) -> bool:
    """Whether no socket can have this path."""
    return len(str(path).encode()) > MAX_PATH_BYTES
