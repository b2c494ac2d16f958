"""A host in memory: links, addresses, routes and rules with the kernel's errnos."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from wantastic.config.model import IpInterface, IpNetwork
from wantastic.device import netlink as nl


def refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@dataclass
class FakeHost:
    """`refused` maps a method's name to the errno that it fails with."""

    up: bool = False
    mtu_bytes: int = 0
    addresses: set[IpInterface] = field(default_factory=set)
    table: set[tuple[IpNetwork, int]] = field(default_factory=set)
    other_routes: list[nl.RouteNotice] = field(default_factory=list)
    policy: list[nl.Rule] = field(default_factory=list)
    valid_mark: str = "0"
    refused: dict[str, int] = field(default_factory=dict)
    notice: Callable[[nl.Body], None] | None = None
    closed: bool = False
    # In the order in which they came: the first of a subnet is its primary one.
    _order: list[IpInterface] = field(default_factory=list)

    def _maybe(self, name: str) -> None:
        if name in self.refused:
            raise refuse(self.refused[name])

    def set_link(
        self, ifindex: int, *, up: bool | None = None, mtu_bytes: int | None = None
    ) -> None:
        self._maybe("set_link")
        self.up = self.up if up is None else up
        self.mtu_bytes = mtu_bytes or self.mtu_bytes

    def link(self, ifindex: int) -> nl.LinkNotice | None:
        return nl.LinkNotice(False, ifindex, "wg0", self.up, self.mtu_bytes or 1420)

    def add_address(self, ifindex: int, address: IpInterface) -> None:
        self._maybe("add_address")
        if address in self.addresses:
            raise refuse(errno.EEXIST)
        self.addresses.add(address)
        self._order.append(address)

    def remove_address(self, ifindex: int, address: IpInterface) -> None:
        self._maybe("remove_address")
        if address not in self.addresses:
            raise refuse(errno.EADDRNOTAVAIL)
        self.addresses.remove(address)
        if address.version == 6:
            return
        before = [a for a in self._order if a in self.addresses | {address}]
        at = before.index(address) if address in before else len(before)
        if all(a.network != address.network for a in before[:at]):
            self.addresses -= {a for a in before[at:] if a.network == address.network}
        self._order = [a for a in before if a in self.addresses]
        if not any(a.version == 4 for a in self.addresses):
            self.table = {(network, table) for network, table in self.table if network.version == 6}

    def add_route(self, ifindex: int, network: IpNetwork, table: int = 254) -> None:
        self._maybe(f"add_route{network.version}")
        taken = {(r.destination, r.prefix_length, r.table) for r in self.other_routes}
        where = (str(network.network_address), network.prefixlen, table)
        if (network, table) in self.table or where in taken:
            raise refuse(errno.EEXIST)
        self.table.add((network, table))

    def remove_route(self, ifindex: int, network: IpNetwork, table: int = 254) -> None:
        if (network, table) not in self.table:
            raise refuse(errno.ESRCH)
        self.table.remove((network, table))

    def routes(self, version: int) -> list[nl.RouteNotice]:
        ours = [
            nl.RouteNotice(False, 77, str(n.network_address), n.prefixlen, table)
            for n, table in self.table
            if n.version == version
        ]
        return ours + self.other_routes

    def rules(self, version: int) -> list[nl.Rule]:
        return [rule for rule in self.policy if rule.version == version]

    def add_rule(self, rule: nl.Rule) -> None:
        self._maybe(f"add_rule{rule.version}")
        self.policy.append(rule)

    def remove_rule(self, rule: nl.Rule) -> None:
        if rule not in self.policy:
            raise refuse(errno.ENOENT)
        self.policy.remove(rule)

    def src_valid_mark(self, value: str) -> str:
        before, self.valid_mark = self.valid_mark, value
        return before

    def watch(self, notice: Callable[[nl.Body], None]) -> None:
        self.notice = notice

    def close(self) -> None:
        self.closed = True

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of ours is left."""
        return not (self.addresses or self.table or self.policy) and self.valid_mark == "0"
