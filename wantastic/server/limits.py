"""Token buckets by network: what a stranger may try, and how often."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from wantastic.server.records import RefusalCode, Refused

MAX_BUCKETS = 10_000


class Limiter:
    """`burst` tries at once, one more each 1/`per_s` seconds; for each IPv4 address or
    IPv6 /64. Time is an argument."""

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, remote: str, now_s: float) -> None:
        """Refuse when the network of `remote` has no try left; takes none."""
        left = self._left(_network(remote), now_s)
        if left < 1:
            raise Refused(
                RefusalCode.RATE_LIMITED,
                "too many failed attempts from this address",
                remedy="wait, then try again",
                retry_after_s=(1 - left) / self._per_s,
            )

    def take(self, remote: str, now_s: float) -> None:
        """Count one failed try."""
        self._add(remote, now_s, -1)

    def reserve(self, remote: str, now_s: float) -> None:
        """Check and take at once, for a try whose end is waited for: others run meanwhile."""
        self.check(remote, now_s)
        self.take(remote, now_s)

    def give_back(self, remote: str, now_s: float) -> None:
        """Say that a reserved try did not fail."""
        self._add(remote, now_s, 1)

    def _add(self, remote: str, now_s: float, tries: int) -> None:
        network = _network(remote)
        left = self._left(network, now_s) + tries
        self._buckets[network] = (min(self._burst, max(0.0, left)), now_s)
        self._buckets.move_to_end(network)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)

    def _left(self, network: str, now_s: float) -> float:
        left, at_s = self._buckets.get(network, (self._burst, now_s))
        return min(self._burst, left + max(0.0, now_s - at_s) * self._per_s)


def host_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer: ipv4:192.0.2.1:99, ipv6:%5B::1%5D:99."""
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind == "ipv6":
        return rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return ""


def _network(remote: str) -> str:
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return remote
