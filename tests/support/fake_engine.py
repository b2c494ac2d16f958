"""The engine's contract in memory, for tests of what stands above it.

Follows cext/engine/engine.pyi: the same errors, the same rules for keys, peers and
allowed IPs. No packet moves; a test plays the network by setting `peers[...]` fields
and pushing events.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from cext.engine.engine import (
    EVENT_HANDSHAKE,
    DeviceStatus,
    Endpoint,
    EngineStopped,
    Event,
    InnerLink,
    PeerStatus,
    TunInfo,
)
from wantastic.config.keys import NO_KEY, clamp, public_key_of

IFINDEX = 77


@dataclass
class FakePeer:
    """One peer; `session` survives whatever must not drop it."""

    preshared_key: bytes = NO_KEY
    endpoint: Endpoint | None = None
    keepalive_s: int = 0
    last_handshake_unix_ns: int = 0
    attempts: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    session: object = None
    initiations: int = 0


@dataclass
class FakeEngine:
    """`busy_ports` are taken; `no_tun` makes open_tun fail with that errno, `no_mark`
    set_fwmark."""

    busy_ports: set[int] = field(default_factory=set)
    no_mark: int = 0
    no_tun: int = 0
    room_for_peers: int = 10**6
    options: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    peers: dict[bytes, FakePeer] = field(default_factory=dict)
    owners: dict[str, bytes] = field(default_factory=dict)
    private_key: bytes | None = None
    fwmark: int = 0
    bind_interface: str | None = None
    floor_unix_ns: int = 0
    mtu: int = 0
    link: InnerLink | None = None
    running: bool = False
    is_up: bool = False

    def __post_init__(self) -> None:
        self._port = 0
        self._bound = 0
        self._events: list[Event] = []
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)

    def _call(self, name: str) -> None:
        if not self.running:
            raise EngineStopped(name)
        self.calls.append(name)

    def push(self, kind: int, public_key: bytes = b"", value: int = 0) -> None:
        self._events.append(Event(kind, public_key, value))
        os.eventfd_write(self.event_fd, 1)

    def handshake(self, public_key: bytes, unix_ns: int) -> None:
        """Play a completed handshake."""
        peer = self.peers[public_key]
        peer.last_handshake_unix_ns, peer.attempts, peer.session = unix_ns, 0, object()
        self.push(EVENT_HANDSHAKE, public_key, unix_ns)

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False
        self.peers.clear()

    def up(self) -> int:
        self._call("up")
        self._bound = self._bind(self._port)
        self.is_up = True
        return self._bound

    def down(self) -> None:
        self._call("down")
        self.is_up, self._bound = False, 0

    def _bind(self, port: int) -> int:
        if port in self.busy_ports:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return port or 40001

    def set_listen_port(self, port: int) -> int:
        self._call(f"set_listen_port {port}")
        if self.is_up:
            self._bound = self._bind(port)
        self._port = port
        return self._bound if self.is_up else port

    def set_fwmark(self, mark: int) -> None:
        self._call(f"set_fwmark {mark}")
        if mark and self.no_mark:
            raise OSError(self.no_mark, os.strerror(self.no_mark))
        self.fwmark = mark

    def set_bind_interface(self, name: str | None) -> None:
        self._call(f"set_bind_interface {name}")
        self.bind_interface = name

    def source_changed(self) -> None:
        self._call("source_changed")

    def open_tun(self, name: str, mtu: int, netns_fd: int = -1) -> TunInfo:
        self._call(f"open_tun {name} {mtu}")
        if self.no_tun:
            raise OSError(self.no_tun, os.strerror(self.no_tun))
        self.mtu = mtu
        return TunInfo(name, IFINDEX, ("vnet_hdr",))

    def set_mtu(self, mtu: int) -> None:
        self._call(f"set_mtu {mtu}")
        self.mtu = mtu

    def inner_link(self) -> InnerLink | None:
        self._call("inner_link")
        return self.link

    def set_private_key(self, key: bytes | None) -> None:
        self._call("set_private_key")
        self.private_key = None if key in (None, NO_KEY) else clamp(key or NO_KEY)
        if self.private_key:
            self.peers.pop(public_key_of(self.private_key), None)

    def set_timestamp_floor(self, unix_ns: int) -> None:
        self._call("set_timestamp_floor")
        self.floor_unix_ns = max(self.floor_unix_ns, unix_ns)

    def set_peer(
        self,
        public_key: bytes,
        *,
        preshared_key: bytes | None = None,
        endpoint: Endpoint | None = None,
        keepalive_s: int | None = None,
        replace_allowed_ips: bool = False,
        allowed_ips: tuple[str, ...] = (),
        removed_allowed_ips: tuple[str, ...] = (),
        update_only: bool = False,
    ) -> bool:
        self._call("set_peer")
        if public_key not in self.peers:
            if update_only:
                return False
            if len(self.peers) >= self.room_for_peers:
                raise MemoryError("no memory for another peer or range")
            self.peers[public_key] = FakePeer()
        peer = self.peers[public_key]
        if preshared_key is not None:
            peer.preshared_key = preshared_key
        if endpoint is not None:
            peer.endpoint = endpoint
        if keepalive_s is not None:
            peer.keepalive_s = keepalive_s
        if replace_allowed_ips:
            self.owners = {n: k for n, k in self.owners.items() if k != public_key}
        for network in removed_allowed_ips:
            if self.owners.get(network) == public_key:
                del self.owners[network]
        for network in allowed_ips:
            assert str(ip_network(network)) == network
            self.owners[network] = public_key
        return True

    def remove_peer(self, public_key: bytes) -> bool:
        self._call("remove_peer")
        self.owners = {n: k for n, k in self.owners.items() if k != public_key}
        return self.peers.pop(public_key, None) is not None

    def remove_all_peers(self) -> None:
        self._call("remove_all_peers")
        self.peers.clear()
        self.owners.clear()

    def initiate_handshake(self, public_key: bytes) -> None:
        self._call("initiate_handshake")
        self.peers[public_key].initiations += 1

    def status(self) -> DeviceStatus:
        peers = tuple(
            PeerStatus(
                key,
                peer.preshared_key,
                peer.endpoint,
                tuple(sorted(n for n, k in self.owners.items() if k == key)),
                peer.keepalive_s,
                peer.last_handshake_unix_ns,
                peer.rx_bytes,
                peer.tx_bytes,
                peer.attempts,
                0,
            )
            for key, peer in self.peers.items()
        )
        public = public_key_of(self.private_key) if self.private_key else None
        return DeviceStatus(self.private_key, public, self._bound, self.fwmark, peers)

    def drops(self) -> dict[str, int]:
        return {"wg_bad_mac1": 3}

    def statistics(self) -> dict[str, int]:
        return {"memory_bytes": 1 << 20}

    def features(self) -> dict[str, bool]:
        return {"udp_gso": True, "vnet_hdr": False}

    def events(self) -> list[Event]:
        found, self._events = self._events, []
        return found
