"""Whether plaintext can leave this process by the side doors that an agent must not have.

Looked at when it registers, not promised: a child process could be the engine, and a listening
socket could be a proxy to it.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, kw_only=True, slots=True)
class Isolation:
    """What was found; False also where the system did not let us look."""

    text_backend_inprocess: bool
    """This process has no children: the engine is in here."""
    text_proxy_disabled: bool
    """This process listens on nothing but its own metrics and, where its owner wants one, the
    local endpoint, which answers from the engine and forwards nothing.
    """


def measure(own_ports: AbstractSet[int]) -> Isolation:
    """Look at the children and the listening sockets of this process."""
    process = psutil.Process()
    try:
        alone = not process.children()
        ports = {
            connection.laddr.port
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
    except (psutil.Error, OSError):
        return Isolation(text_backend_inprocess=False, text_proxy_disabled=False)
    return Isolation(text_backend_inprocess=alone, text_proxy_disabled=ports <= own_ports)
