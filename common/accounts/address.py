"""Where a request comes from, for counting: the peer, or what a proxy that we trust says of it.

``X-Forwarded-For`` is what its sender wrote, to which each proxy adds whom it heard it from. So it
is read from its end, as far as the addresses are our own proxies'; what stands before may be made
up (RFC 7239, 8.1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def source_of(peer: str, forwarded: Iterable[str], proxies: Sequence[Network]) -> str:
    """Return the address that a request comes from, ``peer`` where nobody trusted says more.

    Parameters
    ----------
    peer : str
        Who opened the connection.
    forwarded : iterable of str
        The values of ``X-Forwarded-For``, in their order.
    proxies : sequence of network
        Whose word counts.
    """
    found = _parsed(peer)
    if found is None:
        return peer
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while hops and any(found in network for network in proxies):
        before = _parsed(hops.pop())
        if before is None:
            break
        found = before
    return str(found)


def share_of(source: str) -> str:
    """Return what an address is counted as: an IPv6 network of 64 bits is one customer's."""
    found = _parsed(source)
    if found is None or found.version == 4:
        return f"address {source if found is None else found}"
    return f"address {ipaddress.ip_network(f'{found}/64', strict=False)}"


def _parsed(text: str) -> Address | None:
    """Return an address; an IPv4 one that comes as an IPv6 one (RFC 4291, 2.5.5.2) as itself."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
