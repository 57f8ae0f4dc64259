"""Network addresses that may be connected to: public ones, and those that the user has opened by name.

An address is judged by its number, after resolution, never by how it was spelled. What is judged is what is connected
to: `Resolver` and `socket_for` stand in the HTTP client, at the only two places where an address comes in.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Of the IPv4 space, what is not somebody's public host (IANA's special-purpose registry, multicast, class E).
_NOT_PUBLIC_4 = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
# Of the IPv6 space only this is public; all private, link-local, multicast, mapped and NAT64 addresses lie outside...
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
# ...and of it not these.
_NOT_PUBLIC_6 = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("2001::/23", "reserved or Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
    )
)
# Where clouds keep their machines' credentials. No setting opens these.
_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Google, Azure, Oracle, …
        "169.254.170.2",  # AWS containers
        "169.254.170.23",  # AWS EKS
        "168.63.129.16",  # Azure's wire server, a public number
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS
        "fd20:ce::254",  # Google
    )
)
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class Refused(OSError):
    """An address that must not be connected to. An OSError, so that the HTTP client passes it on."""


def refusal(address: Address, opened: tuple[Network, ...] = ()) -> str | None:
    """Why an address may not be connected to; None when it may."""
    if _METADATA & {address, _embedded(address)}:
        return "a cloud's metadata service"
    if any(address in network for network in opened):
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return next((what for network, what in _NOT_PUBLIC_4 if address in network), None)
    if address not in _PUBLIC_6:
        return "not a public IPv6 address"
    return next((what for network, what in _NOT_PUBLIC_6 if address in network), None)


def require_allowed(host: str, address: str, opened: tuple[Network, ...]) -> None:
    """Refused when `host`, at this address, may not be connected to."""
    try:
        why = refusal(ipaddress.ip_address(address), opened)
    except ValueError:
        why = "not an address"
    if why is not None:
        raise Refused(f"{host} is at {address}: {why} (--allow-address opens a network that you trust)")


class Resolver(AbstractResolver):
    """Names to addresses, by the system's resolver. Refused when one of a name's addresses is."""

    def __init__(self, opened: tuple[Network, ...]) -> None:
        self._opened = opened
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        for result in found:
            require_allowed(host, result["host"], self._opened)
        return found

    async def close(self) -> None:
        await self._system.close()


def socket_for(opened: tuple[Network, ...]) -> Any:
    """Makes the sockets of an HTTP client: each for one address, which is judged again just before it is used."""

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, where = info
        require_allowed(where[0], where[0], opened)
        return socket.socket(family, kind, protocol)

    return make


def _embedded(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, compatible, 6to4 or NAT64."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if int(address) >> 32 == 0 or any(address in network for network in _NAT64):
        return low
    return address.ipv4_mapped or address.sixtofour
