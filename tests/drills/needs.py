"""What a machine may lack for a drill."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """Something that is not on every machine."""

    name: str
    """For people."""
    missing: Callable[[], str]
    """Says what is not there; empty where it is."""


def program(name: str) -> Need:
    """Need a program on PATH."""
    return Need(name, lambda: "" if shutil.which(name) else f"no {name} on this machine")


def _root() -> str:
    return "" if os.geteuid() == 0 else "not root"


def _in_namespace(kind: str, command: Sequence[str], lacks: str) -> str:
    """Try a command in a namespace of its own; a container's root often may not have one."""
    if shutil.which("unshare") is None:
        return "no unshare on this machine"
    tried = subprocess.run(["unshare", kind, *command], capture_output=True, check=False)
    return "" if tried.returncode == 0 else lacks


def _network() -> str:
    return _in_namespace("--net", ("true",), "no network namespace of one's own here")


def _mounts() -> str:
    # Only the namespace sees the mount, and it ends with the command.
    mount = ("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tempfile.gettempdir())
    return _in_namespace("--mount", mount, "no mounts of one's own here")


LINUX = Need("Linux", lambda: "" if sys.platform.startswith("linux") else "not Linux")
ROOT = Need("root", _root)
NFT = program("nft")
NETWORK_NAMESPACE = Need("a network namespace", _network)
MOUNT_NAMESPACE = Need("mounts of its own", _mounts)
