"""The host's side of the tunnel over rtnetlink: link, addresses, routes, rules, notices.

System calls: socket(AF_NETLINK), bind, setsockopt, send, recv. The kernel answers a
request before send() returns, so that requests are made inline; notices come over a
second socket that the asyncio loop watches.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from wantastic.config.model import IpInterface, IpNetwork
from wantastic.device import netlink as nl

SOL_NETLINK = 270
NETLINK_EXT_ACK = 11
TIMEOUT_S = 5.0
RECEIVE_BYTES = 1 << 18
SRC_VALID_MARK = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")


class HostError(OSError):
    """The kernel refused; strerror holds its own words when it gave any."""


class Host(Protocol):
    """What the device asks of the host; OSError where it is refused."""

    def set_link(
        self, ifindex: int, *, up: bool | None = None, mtu_bytes: int | None = None
    ) -> None: ...
    def link(self, ifindex: int) -> nl.LinkNotice | None: ...
    def add_address(self, ifindex: int, address: IpInterface) -> None: ...
    def remove_address(self, ifindex: int, address: IpInterface) -> None: ...
    def add_route(
        self, ifindex: int, network: IpNetwork, table: int = nl.RT_TABLE_MAIN
    ) -> None: ...
    def remove_route(
        self, ifindex: int, network: IpNetwork, table: int = nl.RT_TABLE_MAIN
    ) -> None: ...
    def routes(self, version: int) -> list[nl.RouteNotice]: ...
    def rules(self, version: int) -> list[nl.Rule]: ...
    def add_rule(self, rule: nl.Rule) -> None: ...
    def remove_rule(self, rule: nl.Rule) -> None: ...
    def src_valid_mark(self, value: str) -> str:
        """Set net.ipv4.conf.all.src_valid_mark; return what it was."""

    def watch(self, notice: Callable[[nl.Body], None]) -> None: ...
    def close(self) -> None: ...


def open_netlink(groups: int = 0) -> socket.socket:
    """Return a bound rtnetlink socket."""
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        found.bind((0, groups))
        # Before Linux 4.12 the kernel has no words, only an errno.
        with contextlib.suppress(OSError):
            found.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    except BaseException:
        found.close()
        raise
    return found


class LinuxHost:
    """This machine."""

    def __init__(self) -> None:
        self._socket = open_netlink()
        self._socket.settimeout(TIMEOUT_S)
        self._sequence = 0
        self._monitor: socket.socket | None = None

    def _answers(self, request: nl.Request) -> Iterator[nl.Body]:
        self._sequence += 1
        self._socket.send(nl.frame(request, self._sequence))
        while True:
            for message in nl.parse(self._socket.recv(RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue
                yield message.body
                if isinstance(message.body, nl.Answer | nl.Done):
                    return

    def _do(self, request: nl.Request) -> list[nl.Body]:
        """Return the bodies of a dump; HostError when the kernel refuses."""
        found = list(self._answers(request))
        last = found.pop()
        if isinstance(last, nl.Answer | nl.Done) and last.errno:
            words = last.text if isinstance(last, nl.Answer) else ""
            raise HostError(last.errno, words or os.strerror(last.errno))
        return found

    def set_link(
        self, ifindex: int, *, up: bool | None = None, mtu_bytes: int | None = None
    ) -> None:
        self._do(nl.link_change(ifindex, up=up, mtu_bytes=mtu_bytes))

    def link(self, ifindex: int) -> nl.LinkNotice | None:
        found = self._do(nl.dump_links())
        links = [body for body in found if isinstance(body, nl.LinkNotice)]
        return next((link for link in links if link.ifindex == ifindex), None)

    def add_address(self, ifindex: int, address: IpInterface) -> None:
        self._do(nl.address_change(ifindex, address, add=True))

    def remove_address(self, ifindex: int, address: IpInterface) -> None:
        self._do(nl.address_change(ifindex, address, add=False))

    def add_route(self, ifindex: int, network: IpNetwork, table: int = nl.RT_TABLE_MAIN) -> None:
        self._do(nl.route_change(ifindex, network, add=True, table=table))

    def remove_route(self, ifindex: int, network: IpNetwork, table: int = nl.RT_TABLE_MAIN) -> None:
        self._do(nl.route_change(ifindex, network, add=False, table=table))

    def routes(self, version: int) -> list[nl.RouteNotice]:
        found = self._do(nl.dump_routes(version))
        return [body for body in found if isinstance(body, nl.RouteNotice)]

    def rules(self, version: int) -> list[nl.Rule]:
        found = self._do(nl.dump_rules(version))
        return [body.rule for body in found if isinstance(body, nl.RuleNotice)]

    def add_rule(self, rule: nl.Rule) -> None:
        self._do(nl.rule_change(rule, add=True))

    def remove_rule(self, rule: nl.Rule) -> None:
        self._do(nl.rule_change(rule, add=False))

    def src_valid_mark(self, value: str) -> str:
        before = SRC_VALID_MARK.read_text().strip()
        if before != value:
            SRC_VALID_MARK.write_text(value)
        return before

    def watch(self, notice: Callable[[nl.Body], None]) -> None:
        """Call `notice` from the running loop for each change of links, addresses, routes."""
        import asyncio

        monitor = self._monitor = open_netlink(nl.GROUPS)
        monitor.setblocking(False)

        def readable() -> None:
            try:
                data = monitor.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                # ENOBUFS: notices were lost, which is itself a notice.
                if error.errno == errno.ENOBUFS:
                    notice(nl.RouteNotice(False, 0, "0.0.0.0", 0, 0))
                return
            for message in nl.parse(data):
                notice(message.body)

        asyncio.get_running_loop().add_reader(monitor.fileno(), readable)

    def close(self) -> None:
        if self._monitor:
            import asyncio

            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
        self._socket.close()
