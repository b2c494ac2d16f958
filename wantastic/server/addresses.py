"""Tunnel addresses out of a tenant's ranges: one index gives a device both families.

Pure arithmetic. Index 0 is the range itself and index 1 the gateway, so devices start
at 2; the last IPv4 address is the broadcast and never given.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from wantastic.server.records import RefusalCode, Refused

GATEWAY_INDEX = 1
FIRST_DEVICE_INDEX = 2

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Pools:
    """The two ranges of a tenant."""

    ipv4: ipaddress.IPv4Network
    ipv6: ipaddress.IPv6Network

    @property
    def end_index(self) -> int:
        """The first index that is not given any more."""
        return min(self.ipv4.num_addresses - 1, self.ipv6.num_addresses)

    def at(self, index: int) -> tuple[str, str]:
        """Return the IPv4 and IPv6 address of an index, without prefix length."""
        if not 0 < index < self.end_index:
            raise ValueError(f"index {index} is outside {self.ipv4} and {self.ipv6}")
        return str(self.ipv4[index]), str(self.ipv6[index])


def parse_pools(ipv4: str, ipv6: str) -> Pools:
    """Read two ranges; refuse what is no network or has no room for a device."""
    try:
        pools = Pools(ipaddress.IPv4Network(ipv4), ipaddress.IPv6Network(ipv6))
    except ValueError as error:
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            f"address range: {error}",
            remedy="write networks such as 10.64.0.0/16 and fd00:1::/64",
        ) from None
    if pools.end_index <= FIRST_DEVICE_INDEX:
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            f"address range: {ipv4} and {ipv6} leave no address for a device",
            remedy="use a wider range",
        )
    return pools


def overlapping(pools: Pools, others: Iterable[Pools]) -> Network | None:
    """Return the range among `others` that shares an address with `pools`."""
    for other in others:
        if pools.ipv4.overlaps(other.ipv4):
            return other.ipv4
        if pools.ipv6.overlaps(other.ipv6):
            return other.ipv6
    return None


def propose_pools(others: Iterable[Pools]) -> Pools:
    """Choose ranges that nobody has: a /16 of 10.64.0.0/10, and a random ULA /64 (RFC 4193)."""
    taken = tuple(others)
    ipv6 = ipaddress.IPv6Network((bytes([0xFD]) + secrets.token_bytes(5) + bytes(10), 64))
    for ipv4 in ipaddress.IPv4Network("10.64.0.0/10").subnets(new_prefix=16):
        candidate = Pools(ipv4, ipv6)
        if overlapping(candidate, taken) is None:
            return candidate
    raise Refused(
        RefusalCode.NO_ADDRESS,
        "address range: every /16 of 10.64.0.0/10 is taken",
        remedy="name one with --ipv4",
    )
