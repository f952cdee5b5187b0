"""Which addresses belong to this machine."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """
    Return whether a host name or address can only mean this machine.

    :param host: a name or an address, without brackets and port.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
