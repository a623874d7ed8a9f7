"""Which names and addresses are this machine's own."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Tell whether a name or address is this machine's own.

    By the address itself: `127.evil.example` is a name, and leads wherever its owner says.

    Args:
        host: without a port; an IPv6 address may be in brackets.
    """
    bare = host.removeprefix("[").removesuffix("]").lower()
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"
