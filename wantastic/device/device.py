"""One tunnel: brings the engine and the host to what a configuration asks for.

Theory of operation
  start()   opens the inner side (TUN), applies the configuration, binds the UDP port
  apply()   compares what runs with what is wanted and does the difference only
  close()   takes back addresses, routes and rules, then stops the engine

  What runs is read from the engine (`wg` may have changed it meanwhile) and, for what
  the engine does not know, from the book (configured endpoints, the wanted port) and the
  footprint (addresses, routes). A step that the host refuses becomes a condition, and is
  tried again at the next apply(), because it never entered either.

  Events of the engine come in through on_event(), changes of the host through
  on_link() and on_network_change(); tick() is called every TICK_S. None of them
  waits for anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from cext.engine import engine as native
from wantastic.config import diff as d
from wantastic.config.model import Config, HostPort
from wantastic.device import netlink as nl
from wantastic.device.default_route import free_table
from wantastic.device.footprint import Footprint
from wantastic.device.host import Host
from wantastic.device.peers import PeerDirector
from wantastic.device.resolver import Resolver
from wantastic.device.uapi import Set
from wantastic.device.userspace import TunnelNet
from wantastic.device.words import (
    CHANGE_NAMES,
    CONDITION_OF,
    explain_tun,
    remedy_for,
    subject_of,
)
from wantastic.store.store import Store
from wantastic.telemetry.conditions import Conditions
from wantastic.telemetry.log import Log
from wantastic.version import BUILD_UNIX_NS

if TYPE_CHECKING:
    from cext.engine.engine import Engine, Event, TunInfo

TICK_S = 5.0
# A TUN device may be given more than a packet of ours can carry.
MTU_MAX = 65000
# The host has no TUN, or not for us; anything else is about this very interface.
NO_TUN = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EPERM, errno.EACCES}
# A clock that is behind the build is a router without a battery for its clock.
CLOCK_REMEDY = "Handshakes work meanwhile; certificates are checked once the time is right."


class StartError(Exception):
    """The tunnel cannot come up; holds the condition's code and what to do about it."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        self.code, self.reason, self.remedy = code, reason, remedy
        super().__init__(f"{reason}. {remedy}")


@dataclass(slots=True)
class Book:
    """What the configuration last said, where the engine cannot tell."""

    listen_port: int = 0
    bind_interface: str = ""
    mtu_bytes: int = 0
    endpoints: dict[bytes, HostPort] = field(default_factory=dict)


class Device:
    """A tunnel over an Engine and a Host."""

    def __init__(
        self,
        engine: Engine,
        host: Host,
        resolver: Resolver,
        store: Store | None,
        conditions: Conditions,
        log: Log,
        unix_ns: Callable[[], int],
    ) -> None:
        self.engine = engine
        self.config = Config()
        self.book = Book()
        self.name = ""
        self.ifindex = 0
        self.mode = "none"
        self.link_up = False
        # To another namespace, or deleted: the host gives no more notices of it.
        self.moved = False
        self._up_there = False
        # Down in that namespace: whoever moved it is about to set it up.
        self.awaits_link = False
        self.tun_features: tuple[str, ...] = ()
        # Connections of our own into the tunnel; None while the host alone has them.
        self.net: TunnelNet | None = None
        self.closed_by_host: Callable[[], None] = lambda: None
        self.shook_hands: Callable[[bytes], None] = lambda public_key: None
        self.peers = PeerDirector(engine, resolver, store, conditions, log)
        self.footprint = Footprint(host, log)
        self._host = host
        self._store = store
        self._conditions = conditions
        self._log = log
        self._unix_ns = unix_ns
        self._applied = False

    # -- life --

    def start(self, config: Config, private_key: bytes | None) -> None:
        """Bring the tunnel up; StartError when that is impossible, with nothing left behind."""
        self.engine.start()
        try:
            self._set_clock()
            self.engine.set_private_key(private_key)
            self._open_inner(config)
            self.book.listen_port = self.engine.set_listen_port(config.interface.listen_port)
            self._bring_up(config)
            self.apply(config, private_key)
        except BaseException:
            self.close()
            raise

    def start_bare(self, name: str, tun_fd: int = -1) -> None:
        """Bring up an interface without a configuration, as wireguard-go does: `wg` follows.

        The UDP port is bound when the link is set up.
        """
        self.engine.start()
        try:
            self._set_clock()
            mtu = self.config.interface.mtu_bytes
            try:
                if tun_fd >= 0:
                    info = self.engine.attach_tun(tun_fd, mtu)
                else:
                    info = self.engine.open_tun(name, mtu)
            except OSError as error:
                raise StartError("tun_failed", *explain_tun(error, name)) from error
            self._adopt(info, mtu)
            link = self._host.link(self.ifindex)
            if link:
                self.on_link(link)
        except BaseException:
            self.close()
            raise

    def _adopt(self, info: TunInfo, mtu_bytes: int) -> None:
        self.name, self.ifindex, self.mode = info.name, info.ifindex, "tun"
        self.footprint.ifindex = info.ifindex
        self.tun_features = info.features
        self.book.mtu_bytes = mtu_bytes

    def _set_clock(self) -> None:
        """Initiations must never seem older than those before a reboot."""
        floor = self._store.state().timestamp_floor_unix_ns if self._store else 0
        self.engine.set_timestamp_floor(max(floor, BUILD_UNIX_NS))
        self._judge_clock()

    def _judge_clock(self) -> None:
        if self._unix_ns() < BUILD_UNIX_NS:
            self._conditions.set(
                "clock_wrong", "warning", "the clock is behind this program's build", CLOCK_REMEDY
            )
        else:
            self._conditions.clear("clock_wrong")

    def _open_inner(self, config: Config) -> None:
        """Open what the mode asks for: a TUN device, a netstack of our own, or both."""
        interface = config.interface
        self.name = interface.name
        self.book.mtu_bytes = interface.mtu_bytes
        has_tun = interface.mode != "userspace" and self._open_tun(config)
        if not has_tun or interface.mode == "both" or config.wants_access:
            self._open_net(config)
        if not has_tun:
            self.mode = "userspace"
        elif self.net:
            self.mode = "both"

    def _open_tun(self, config: Config) -> bool:
        """Open the TUN device; False where the mode can do without and the host has none."""
        interface = config.interface
        try:
            info = self.engine.open_tun(interface.name, interface.mtu_bytes)
        except OSError as error:
            why, remedy = explain_tun(error, interface.name)
            if interface.mode != "auto" or error.errno not in NO_TUN:
                raise StartError("tun_failed", why, remedy) from error
            reason = f"{why}; running in userspace, by proxies and forwards only"
            self._conditions.set("tun_missing", "info", reason, remedy)
            return False
        self._adopt(info, interface.mtu_bytes)
        self._host.set_link(self.ifindex, up=True, mtu_bytes=interface.mtu_bytes)
        return True

    def _open_net(self, config: Config) -> None:
        try:
            self.net = TunnelNet(self.engine, own_addresses(config))
        except ValueError as error:
            remedy = "Raise memory_limit, or list at most 16 interface.addresses."
            raise StartError("userspace_failed", str(error), remedy) from error

    def _bring_up(self, config: Config) -> None:
        """Bind the UDP port, or a free one when it is taken."""
        wanted = config.interface.listen_port
        try:
            self.engine.up()
            self.link_up = True
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or wanted == 0:
                raise StartError(
                    "socket_failed",
                    f"UDP port {wanted} cannot be opened: {error.strerror}",
                    "Check interface.listen_port and interface.bind_interface.",
                ) from error
        reason = f"UDP port {wanted} is taken by another program"
        if config.interface.strict_port:
            remedy = "End that program, choose another listen_port, or set strict_port to false."
            raise StartError("listen_port_taken", reason, remedy)
        self.engine.set_listen_port(0)
        port = self.engine.up()
        self.link_up = True
        self._warn_port(f"{reason}; using {port} instead")

    def _warn_port(self, reason: str) -> None:
        remedy = "Peers that dial us need the port: free it, or set interface.listen_port."
        self._conditions.set("listen_port_taken", "warning", reason, remedy)

    def close(self) -> None:
        """Take back what was done to the host and stop the engine. Idempotent."""
        self.footprint.close()
        self.book = Book()
        self.peers.close()
        self.engine.stop()

    # -- configuration --

    def running(self) -> d.Tunnel:
        """Return what runs now, in the terms of the configuration."""
        status, footprint = self.engine.status(), self.footprint
        chosen_by_us = footprint.has_default and not self.config.interface.fwmark
        return d.Tunnel(
            private_key=status.private_key,
            listen_port=self.book.listen_port,
            fwmark=0 if chosen_by_us else status.fwmark,
            bind_interface=self.book.bind_interface,
            mtu_bytes=self.book.mtu_bytes,
            addresses=frozenset(footprint.addresses),
            routes=frozenset(footprint.routes),
            default_route=footprint.default_versions,
            peers=tuple(
                d.TunnelPeer(
                    public_key=peer.public_key,
                    preshared_key=peer.preshared_key,
                    endpoint=self.book.endpoints.get(peer.public_key),
                    keepalive_s=peer.keepalive_s,
                    allowed_ips=frozenset(ip_network(n) for n in peer.allowed_ips),
                )
                for peer in status.peers
            ),
        )

    def apply(self, config: Config, private_key: bytes | None) -> int:
        """Do what differs; return the number of changes that worked."""
        wanted = d.tunnel_of(config, private_key)
        own = self.engine.status().public_key
        mine = [peer.public_key for peer in wanted.peers if peer.public_key == own]
        if mine:
            self._conditions.set(
                "own_peer",
                "error",
                "a peer has this device's own public key and is left out",
                "Write the other side's public key there.",
            )
            wanted = replace(
                wanted, peers=tuple(p for p in wanted.peers if p.public_key not in mine)
            )
        else:
            self._conditions.clear("own_peer")
        self._follow_access(config)
        if not self.ifindex:
            self._judge_default_route(asked=bool(wanted.default_route))
            nothing = frozenset[Any]()
            wanted = replace(wanted, addresses=nothing, routes=nothing, default_route=nothing)
        changes = d.diff(self.running(), wanted)
        before, self.config = self.config, config
        if self._applied and needs_restart(before, config):
            self._conditions.set(
                "restart_needed",
                "warning",
                "interface.name, mode, threads or memory_limit changed, which needs a new start",
                "Restart the agent.",
            )
        self._applied = True
        done = sum(self._do(change) for change in changes)
        self.peers.follow(config, self.book.endpoints)
        self._log.debug("configuration applied", changes=done, failed=len(changes) - done)
        return done

    def _judge_default_route(self, *, asked: bool) -> None:
        """Without a TUN device nothing of the host's own traffic can be led into the tunnel."""
        if not asked:
            self._conditions.clear("default_route_failed")
            return
        reason = "interface.default_route needs a TUN device; proxies and forwards work without"
        remedy = "Set it to false, or let the agent open /dev/net/tun (root, CAP_NET_ADMIN)."
        self._conditions.set("default_route_failed", "error", reason, remedy)

    def _follow_access(self, config: Config) -> None:
        """Connections of our own begin with the first proxy or forward, and then stay."""
        if self.net:
            self.net.set_addresses(own_addresses(config))
        if not config.wants_access or self.net:
            self._conditions.clear("userspace_failed")
            return
        try:
            self._open_net(config)
        except StartError as error:
            self._conditions.set(error.code, "error", error.reason, error.remedy)
            return
        self._conditions.clear("userspace_failed")
        self.mode = "both"

    def _do(self, change: d.Change) -> bool:
        """Do one change; one that fails becomes a condition."""
        code, subject = CONDITION_OF[type(change)], subject_of(change)
        try:
            DOERS[type(change)](self, change)
        except (OSError, ValueError, MemoryError) as error:
            reason = (
                f"{CHANGE_NAMES[type(change)]} failed: {getattr(error, 'strerror', 0) or error}"
            )
            remedy = remedy_for(change, error)
            self._conditions.set(code, "error", reason, remedy, subject)
            return False
        self._conditions.clear(code, subject)
        return True

    def _set_private_key(self, change: d.SetPrivateKey) -> None:
        self.engine.set_private_key(change.private_key)
        # Handshakes that are told only now were made with the key before: a new key that
        # is on trial would be taken for proved by one, and the old one forgotten.
        for event in self.engine.events():
            if event.kind != native.EVENT_HANDSHAKE:
                self.on_event(event)

    def _set_listen_port(self, change: d.SetListenPort) -> None:
        try:
            self.engine.set_listen_port(change.port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            port = self.engine.status().listen_port
            self._warn_port(f"UDP port {change.port} is taken by another program; still on {port}")
            return
        self.book.listen_port = change.port
        self._conditions.clear("listen_port_taken")

    def _set_fwmark(self, change: d.SetFwmark) -> None:
        self.engine.set_fwmark(change.mark)

    def _set_bind_interface(self, change: d.SetBindInterface) -> None:
        self.engine.set_bind_interface(change.name or None)
        self.book.bind_interface = change.name

    def _set_mtu(self, change: d.SetMtu) -> None:
        if self.net:
            self.net.set_mtu(change.mtu_bytes)
        if self.ifindex:
            self._host.set_link(self.ifindex, mtu_bytes=change.mtu_bytes)
        self.engine.set_mtu(change.mtu_bytes)
        self.book.mtu_bytes = change.mtu_bytes

    def _add_address(self, change: d.AddAddress) -> None:
        self.footprint.add_address(change.address)

    def _remove_address(self, change: d.RemoveAddress) -> None:
        self.footprint.remove_address(change.address)

    def _add_route(self, change: d.AddRoute) -> None:
        self.footprint.add_route(change.network)

    def _remove_route(self, change: d.RemoveRoute) -> None:
        self.footprint.remove_route(change.network)

    def _set_default_route(self, change: d.SetDefaultRoute) -> None:
        configured = self.config.interface.fwmark
        if self.footprint.has_default:
            self.footprint.drop_default()
            self.engine.set_fwmark(configured)
        if not change.versions:
            return
        mark = free_table(self._host, configured)
        # The mark first: from the moment the rules stand, unmarked packets would loop.
        self.engine.set_fwmark(mark)
        try:
            self.footprint.take_default(change.versions, mark)
        except OSError:
            self.engine.set_fwmark(configured)
            raise

    def _remove_peer(self, change: d.RemovePeer) -> None:
        self.engine.remove_peer(change.public_key)
        self.book.endpoints.pop(change.public_key, None)

    def _set_peer(self, change: d.SetPeer) -> None:
        """An endpoint is told to the engine by the peers' director, once it is known."""
        self.engine.set_peer(
            change.public_key,
            preshared_key=change.preshared_key,
            keepalive_s=change.keepalive_s,
            allowed_ips=tuple(map(str, change.added_allowed_ips)),
            removed_allowed_ips=tuple(map(str, change.removed_allowed_ips)),
        )
        if change.endpoint:
            self.book.endpoints[change.public_key] = change.endpoint

    # -- what happens --

    def on_event(self, event: Event) -> None:
        """Act on what the engine noticed."""
        if self.net:
            self.net.on_event(event)
        if action := EVENTS.get(event.kind):
            action(self, event)

    def _on_handshake(self, event: Event) -> None:
        self._log.debug("handshake completed", peer=event.public_key)
        self._conditions.clear("socket_failed")
        self.peers.on_handshake(event.public_key)
        self.shook_hands(event.public_key)
        self._judge_store()

    def _on_given_up(self, event: Event) -> None:
        self._log.info("no answer to handshakes", peer=event.public_key)
        self.peers.on_given_up(event.public_key)

    def _on_endpoint(self, event: Event) -> None:
        self._log.debug("peer has a new endpoint", peer=event.public_key)

    def _on_source_lost(self, event: Event) -> None:
        self._log.debug("source address lost; routing chooses anew", peer=event.public_key)

    def _on_floor(self, event: Event) -> None:
        if self._store:
            self._store.raise_floor(event.value)
            self._judge_store()

    def _judge_store(self) -> None:
        """Say when what should outlive a power cut cannot be saved."""
        trouble = self._store.trouble if self._store else None
        if trouble:
            self._conditions.set("state_unsaved", "warning", trouble.problem, trouble.remedy)
        else:
            self._conditions.clear("state_unsaved")

    def _on_inner_closed(self, event: Event) -> None:
        reason = os.strerror(event.value) if event.value else "removed"
        self._log.warning("the interface went away", interface=self.name, reason=reason)
        self.closed_by_host()

    def _on_socket_error(self, event: Event) -> None:
        reason = f"the UDP socket failed: {os.strerror(event.value)}"
        remedy = "It is used on, and counts as well again with the next handshake."
        self._conditions.set("socket_failed", "warning", reason, remedy)

    def tick(self) -> None:
        """Look at what nobody gives notice of: unanswered handshakes, the clock."""
        self.peers.tick()
        self._judge_clock()

    def on_network_change(self, wan: bool) -> None:
        """The host's addresses or routes changed; `wan` where that may be the way out.

        An interface that came back has another index: the sockets are bound to it anew.
        """
        if self.config.interface.bind_interface:
            self._do(d.SetBindInterface(self.config.interface.bind_interface))
        self.engine.source_changed()
        if wan:
            self.peers.on_network_change()

    def on_link(self, notice: nl.LinkNotice) -> None:
        """Our own link changed under us."""
        if self.look_at_link():
            # This is about another link, which has got its number.
            return
        if notice.gone:
            # Deleted, or moved to another namespace: only the descriptor knows. When it
            # was deleted EVENT_INNER_CLOSED follows. Otherwise we look at it from now on;
            # where the kernel does not tell, the port stays open as if it were up.
            self.moved = True
            self._up_there = False
            self.link_up = True
            self._follow_link()
            return
        self._adapt(notice.up, notice.mtu_bytes)

    def look_at_link(self) -> bool:
        """Follow a device that was moved to another namespace; False when it was not, or
        when the kernel does not tell."""
        if not self.moved:
            return False
        try:
            link = self.engine.inner_link()
        except OSError:
            return True  # it is gone indeed, which EVENT_INNER_CLOSED says
        if link is None:
            return False
        # Moving sets it down, and whoever moves it sets it up next: until then the port
        # stays open, so that nothing waits for our next look.
        self._up_there |= link.is_up
        self.awaits_link = not link.is_up
        self._adapt(link.is_up or not self._up_there, link.mtu_bytes)
        return True

    def _adapt(self, up: bool, mtu_bytes: int) -> None:
        mtu_bytes = min(mtu_bytes, MTU_MAX)
        if mtu_bytes and mtu_bytes != self.book.mtu_bytes:
            self.engine.set_mtu(mtu_bytes)
            self.book.mtu_bytes = mtu_bytes
            if self.net:
                # Beyond its room the netstack keeps to the one before.
                with suppress(OSError):
                    self.net.set_mtu(mtu_bytes)
        if up != self.link_up:
            self.link_up = up
            self._follow_link()

    def _follow_link(self) -> None:
        """The UDP port is open while the link is up, as with the kernel's WireGuard."""
        try:
            if self.link_up:
                self._log.debug("link is up", port=self.engine.up())
                self._conditions.clear("socket_failed")
            else:
                self.engine.down()
        except OSError as error:
            reason = f"UDP port {self.book.listen_port} cannot be opened: {error.strerror}"
            remedy = "Choose another with `wg set`, then set the link down and up."
            self._conditions.set("socket_failed", "error", reason, remedy)

    def on_uapi(self, request: Set) -> None:
        """`wg` changed the engine: let the book follow."""
        if request.listen_port is not None:
            self.book.listen_port = request.listen_port
        if request.replace_peers:
            self.book.endpoints.clear()
        for peer in request.peers:
            if peer.endpoint or peer.remove:
                self.book.endpoints.pop(peer.public_key, None)
        self.peers.keep_only(self.book.endpoints)
        if self.engine.status().private_key is None:
            self._conditions.set(
                "no_private_key",
                "error",
                "the running interface has no private key; the one on disk is untouched",
                "Set one with `wg set`, or send SIGHUP to go back to the configuration.",
            )
        else:
            self._conditions.clear("no_private_key")

    def on_reload(self) -> None:
        """What `wg` changed is over: the file decides again."""
        self._conditions.clear("no_private_key")


def own_addresses(config: Config) -> tuple[str, ...]:
    """Return our addresses in the tunnel without their masks."""
    return tuple(str(address.ip) for address in config.interface.addresses)


def needs_restart(before: Config, after: Config) -> bool:
    """Return whether a change is one that only a new process can follow."""

    def fixed(config: Config) -> tuple[object, ...]:
        interface = config.interface
        return interface.name, interface.mode, config.threads, config.memory_limit_bytes

    return fixed(before) != fixed(after)


DOERS: dict[type, Callable[..., None]] = {
    d.SetPrivateKey: Device._set_private_key,
    d.SetListenPort: Device._set_listen_port,
    d.SetFwmark: Device._set_fwmark,
    d.SetBindInterface: Device._set_bind_interface,
    d.SetMtu: Device._set_mtu,
    d.AddAddress: Device._add_address,
    d.RemoveAddress: Device._remove_address,
    d.AddRoute: Device._add_route,
    d.RemoveRoute: Device._remove_route,
    d.SetDefaultRoute: Device._set_default_route,
    d.RemovePeer: Device._remove_peer,
    d.SetPeer: Device._set_peer,
}
EVENTS: dict[int, Callable[[Device, Event], None]] = {
    native.EVENT_HANDSHAKE: Device._on_handshake,
    native.EVENT_HANDSHAKE_GIVEN_UP: Device._on_given_up,
    native.EVENT_ENDPOINT: Device._on_endpoint,
    native.EVENT_SOURCE_LOST: Device._on_source_lost,
    native.EVENT_TIMESTAMP_FLOOR: Device._on_floor,
    native.EVENT_INNER_CLOSED: Device._on_inner_closed,
    native.EVENT_SOCKET_ERROR: Device._on_socket_error,
}
