"""What a machine may lack for a drill."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
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


def _namespace() -> str:
    if shutil.which("unshare") is None:
        return "no unshare on this machine"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "no network namespace of one's own here"


LINUX = Need("Linux", lambda: "" if sys.platform.startswith("linux") else "not Linux")
ROOT = Need("root", _root)
NFT = program("nft")
NETWORK_NAMESPACE = Need("a network namespace", _namespace)
