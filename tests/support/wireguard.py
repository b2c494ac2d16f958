"""Two WireGuard devices in virtual time, joined in memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from cext.crypto.primitives import blake2s, x25519_public
from cext.wireguard.testing import Device

if TYPE_CHECKING:
    from cext.wireguard.testing import Endpoint, Prefix, Status

SECOND = 10**9
MS = 10**6
START_NS = 1000 * SECOND
START_UNIX_NS = 1_700_000_000 * SECOND

HANDSHAKE, GIVEN_UP, ENDPOINT, FLOOR = 1, 2, 3, 4
DROPPED, CONSUMED, OPEN, DELIVER = 0, 1, 2, 3
INITIATION, RESPONSE, COOKIE, DATA = 1, 2, 3, 4
KEEPALIVE_LEN = 32


def private_key(name: str) -> bytes:
    """A private key that a test can repeat, clamped."""
    key = bytearray(blake2s(name.encode()))
    key[0] &= 248
    key[31] = (key[31] & 127) | 64
    return bytes(key)


def public_key(name: str) -> bytes:
    return x25519_public(private_key(name))


def prefix(text: str) -> Prefix:
    network = ip_network(text, strict=False)
    return network.network_address.packed, network.prefixlen


def address(text: str, port: int, source: str | None = None) -> Endpoint:
    packed = ip_address(text).packed
    if source is None:
        return packed, port
    return packed, port, ip_address(source).packed


def packet(source: str, destination: str, payload: bytes = b"") -> bytes:
    """An IP packet of no particular protocol."""
    a, b = ip_address(source), ip_address(destination)
    if isinstance(a, IPv4Address):
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 253, 0)
    else:
        assert isinstance(b, IPv6Address)
        head = struct.pack(">IHBB", 6 << 28, len(payload), 253, 64)
    return head + a.packed + b.packed + payload


def kind(datagram: bytes) -> int:
    return int.from_bytes(datagram[:4], "little")


@dataclass
class Side:
    """A device and what the test knows about it."""

    name: str
    device: Device
    endpoint: Endpoint
    inner: str
    received: list[bytes] = field(default_factory=list)
    sent: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def public(self) -> bytes:
        return public_key(self.name)


Network = Callable[["Pair", Side, bytes], list[tuple[int, bytes]]]


def deliver_all(_pair: Pair, _sender: Side, datagram: bytes) -> list[tuple[int, bytes]]:
    """The perfect network: each datagram once, at once."""
    return [(0, datagram)]


class Pair:
    """Alice and Bob. `network` says what becomes of a datagram: (delay, bytes) each."""

    def __init__(self, *, seed: int = 1, psk: bytes | None = None, **limits: int) -> None:
        self.now_ns = START_NS
        self.network: Network = deliver_all
        self.flight: list[tuple[int, int, Side, Side, bytes]] = []
        self.order = 0
        self.alice = self._side("alice", seed, "192.0.2.1", 1001, "10.0.0.1", limits)
        self.bob = self._side("bob", seed + 1, "192.0.2.2", 1002, "10.0.0.2", limits)
        for own, other in ((self.alice, self.bob), (self.bob, self.alice)):
            own.device.add_peer(other.public)
            own.device.set_endpoint(self.now_ns, other.public, other.endpoint)
            own.device.add_allowed_ip(other.public, prefix(other.inner + "/32"))
            if psk is not None:
                own.device.set_preshared_key(other.public, psk)
            own.device.up(self.now_ns)

    def _side(
        self, name: str, seed: int, host: str, port: int, inner: str, limits: dict[str, int]
    ) -> Side:
        device = Device(seed, **limits)
        device.set_private_key(private_key(name))
        device.set_unix_time(START_NS, START_UNIX_NS)
        return Side(name, device, address(host, port), inner)

    def other(self, side: Side) -> Side:
        return self.bob if side is self.alice else self.alice

    def put(self, sender: Side, datagram: bytes) -> None:
        """Hand a datagram to the network."""
        sender.sent.append((self.now_ns, datagram))
        for delay_ns, copy in self.network(self, sender, datagram):
            self.order += 1
            self.flight.append(
                (self.now_ns + delay_ns, self.order, sender, self.other(sender), copy)
            )

    def flush(self) -> None:
        """Carry everything that is due now, and what it causes."""
        while True:
            for side in (self.alice, self.bob):
                for out in side.device.outgoing(self.now_ns):
                    self.put(side, out[0])
            due = sorted(item for item in self.flight if item[0] <= self.now_ns)
            if not due:
                return
            item = due[0]
            self.flight.remove(item)
            _, _, sender, receiver, datagram = item
            inner = receiver.device.receive(self.now_ns, datagram, sender.endpoint)
            if inner is not None:
                receiver.received.append(inner)

    def send(self, side: Side, payload: bytes = b"", *, flush: bool = True) -> bytes:
        """Send one inner packet from `side`; return it."""
        inner = packet(side.inner, self.other(side).inner, payload)
        out = side.device.send(self.now_ns, inner)
        if out is not None:
            self.put(side, out[0])
        if flush:
            self.flush()
        return inner

    def next_ns(self) -> int | None:
        moments = [item[0] for item in self.flight]
        for side in (self.alice, self.bob):
            at_ns = side.device.poll_at()
            if at_ns is not None:
                moments.append(at_ns)
        return min(moments, default=None)

    def run(self, duration_ns: int) -> None:
        """Let time pass, from one moment that matters to the next."""
        end_ns = self.now_ns + duration_ns
        self.flush()
        while (at_ns := self.next_ns()) is not None and at_ns <= end_ns:
            self.now_ns = max(self.now_ns, at_ns)
            for side in (self.alice, self.bob):
                side.device.advance(self.now_ns)
            self.flush()
        self.now_ns = end_ns

    def connect(self) -> None:
        """Alice begins a session with Bob."""
        self.alice.device.initiate(self.now_ns, self.bob.public)
        self.flush()
        assert self.status(self.alice)["has_session"]
        assert self.status(self.bob)["has_session"]
        self.alice.sent.clear()
        self.bob.sent.clear()
        self.alice.device.events()
        self.bob.device.events()

    def status(self, side: Side) -> Status:
        return side.device.status(self.now_ns, self.other(side).public)

    def kinds(self, side: Side) -> list[int]:
        return [kind(datagram) for _, datagram in side.sent]
