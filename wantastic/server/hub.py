"""What stands behind a gateway without a TUN device: an echo, and a way from device to device.

One raw IP packet a message, in Python: a few thousand packets a second, meant for
trying things out without root. A packet for a tenant's gateway address is answered when
it asks for an echo; one from a device to another of the same tenant goes back into the
tunnel; everything else is dropped and counted.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence

from wantastic.device.loopback import answer, checksum
from wantastic.server.addresses import GATEWAY_INDEX, Pools

IPV6_HEADER_BYTES = 40
ICMPV6, ECHO_REQUEST_V6, ECHO_REPLY_V6 = 58, 128, 129


class Hub:
    """Decides about packets; no I/O."""

    def __init__(self) -> None:
        self._pools: tuple[Pools, ...] = ()
        self.counts: Counter[str] = Counter()

    def set_networks(self, pools: Sequence[Pools]) -> None:
        """Know these tenants."""
        self._pools = tuple(pools)

    def forward(self, packet: bytes) -> bytes | None:
        """Return what goes back into the tunnel, if anything."""
        ends = _ends(packet)
        if ends is None:
            self.counts["malformed"] += 1
            return None
        source, target = ends
        for pools in self._pools:
            network = pools.ipv4 if source.version == 4 else pools.ipv6
            if source not in network:
                continue
            if target == network[GATEWAY_INDEX]:
                self.counts["echo"] += 1
                return answer(packet) if source.version == 4 else _echo_v6(packet)
            if target in network:
                self.counts["forwarded"] += 1
                return packet
            self.counts["foreign"] += 1
            return None
        self.counts["unknown source"] += 1
        return None


Ends = (
    tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]
    | tuple[ipaddress.IPv6Address, ipaddress.IPv6Address]
)


def _ends(packet: bytes) -> Ends | None:
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20])
    if version == 6 and len(packet) >= IPV6_HEADER_BYTES:
        return ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
    return None


def _echo_v6(packet: bytes) -> bytes | None:
    """Answer an ICMPv6 echo request (RFC 4443, 4.2)."""
    body = packet[IPV6_HEADER_BYTES:]
    if packet[6] != ICMPV6 or len(body) < 8 or body[0] != ECHO_REQUEST_V6:
        return None
    source, target = packet[8:24], packet[24:40]
    unsigned = bytes([ECHO_REPLY_V6, 0, 0, 0]) + body[4:]
    pseudo = target + source + len(unsigned).to_bytes(4, "big") + bytes([0, 0, 0, ICMPV6])
    sum_bytes = checksum(pseudo + unsigned).to_bytes(2, "big")
    return packet[:8] + target + source + unsigned[:2] + sum_bytes + unsigned[4:]
