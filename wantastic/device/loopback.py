"""Two devices on this machine's loopback, joined over UDP, with sockets inside the tunnel.

No root, no TUN: each engine's inner side is a socketpair that carries one raw IP packet
a message, and this file plays the hosts behind them: one asks (ICMP echo and UDP), the
other answers. For demonstrations and tests; an agent never uses it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from cext.engine.engine import Endpoint, Engine
from wantastic.config.keys import generate_private_key

if TYPE_CHECKING:
    from cext.engine.engine import PeerStatus

MTU = 1420
ICMP, UDP = 1, 17
ECHO_REPLY, ECHO_REQUEST = 0, 8
ECHO_PORT = 7
_IP = struct.Struct("!BBHHHBBH4s4s")
_ICMP = struct.Struct("!BBHHH")
_UDP = struct.Struct("!HHHH")


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(source: IPv4Address, target: IPv4Address, protocol: int, payload: bytes) -> bytes:
    """Return an IPv4 packet."""
    fields = (0x45, 0, _IP.size + len(payload), 0, 0, 64, protocol)
    ends = (source.packed, target.packed)
    header = _IP.pack(*fields, 0, *ends)
    return _IP.pack(*fields, checksum(header), *ends) + payload


def echo_message(kind: int, number: int, payload: bytes) -> bytes:
    """Return an ICMP echo request or reply."""
    head = _ICMP.pack(kind, 0, 0, 1, number & 0xFFFF)
    return _ICMP.pack(kind, 0, checksum(head + payload), 1, number & 0xFFFF) + payload


def udp_message(source_port: int, target_port: int, payload: bytes) -> bytes:
    """Return a UDP datagram without a checksum, as IPv4 allows."""
    return _UDP.pack(source_port, target_port, _UDP.size + len(payload), 0) + payload


def answer(packet: bytes) -> bytes | None:
    """Return what a host replies: an echo reply, or the UDP payload back from the echo port."""
    if len(packet) < _IP.size + 8 or packet[0] != 0x45:
        return None
    source, target = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    body = packet[_IP.size :]
    if packet[9] == ICMP and body[0] == ECHO_REQUEST:
        number = _ICMP.unpack_from(body)[4]
        reply = echo_message(ECHO_REPLY, number, body[_ICMP.size :])
        return ip_packet(target, source, ICMP, reply)
    if packet[9] == UDP:
        from_port, to_port, _, _ = _UDP.unpack_from(body)
        if to_port == ECHO_PORT:
            reply = udp_message(ECHO_PORT, from_port, body[_UDP.size :])
            return ip_packet(target, source, UDP, reply)
    return None


@dataclass(slots=True)
class Traffic:
    """What the asking side has seen so far."""

    pings: int = 0
    pongs: int = 0
    last_rtt_ns: int = 0
    datagrams: int = 0
    echoes: int = 0
    sent_ns: dict[int, int] = field(default_factory=dict)


class Node:
    """A device and the host behind it."""

    def __init__(self, name: str, address: IPv4Address) -> None:
        self.name = name
        self.address = address
        self.received: Callable[[bytes], None] = lambda packet: None
        self.engine = Engine(memory_limit_bytes=16 << 20, mtu=MTU)
        self.engine.start()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._inner = ours
        # The engine takes the descriptor over.
        self.engine.attach_inner(theirs.detach(), MTU)
        self.engine.set_private_key(generate_private_key(os.urandom))
        self.port = self.engine.up()
        public_key = self.engine.status().public_key
        assert public_key is not None
        self.public_key = public_key

    def join(self, other: Node) -> None:
        """Make another node our peer."""
        self.engine.set_peer(
            other.public_key,
            endpoint=Endpoint("127.0.0.1", other.port),
            allowed_ips=(f"{other.address}/32",),
        )

    def listen(self) -> None:
        """Hand packets out of the tunnel to `received`."""
        asyncio.get_running_loop().add_reader(self._inner.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(64):
            try:
                self.received(self._inner.recv(65536))
            except BlockingIOError:
                return

    def send(self, packet: bytes) -> bool:
        """Put a packet into the tunnel; False when it is full."""
        try:
            self._inner.send(packet)
        except BlockingIOError:
            return False
        return True

    def peer(self) -> PeerStatus:
        """Return how the one peer is."""
        return self.engine.status().peers[0]

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._inner.fileno())
        self.engine.stop()
        self._inner.close()


class Pair:
    """Two nodes; the first asks, the second answers."""

    def __init__(self) -> None:
        self.left = Node("left", IPv4Address("10.77.0.1"))
        self.right = Node("right", IPv4Address("10.77.0.2"))
        self.traffic = Traffic()
        self.left.join(self.right)
        self.right.join(self.left)
        self.left.received = self._answered
        self.right.received = self._asked

    def start(self) -> None:
        """Listen on both inner sides and begin the handshake."""
        self.left.listen()
        self.right.listen()
        self.left.engine.initiate_handshake(self.right.public_key)

    def ping(self) -> None:
        """Send one ICMP echo request through the tunnel."""
        traffic = self.traffic
        traffic.pings += 1
        traffic.sent_ns[traffic.pings & 0xFFFF] = time.monotonic_ns()
        for old in list(traffic.sent_ns)[:-100]:
            del traffic.sent_ns[old]
        message = echo_message(ECHO_REQUEST, traffic.pings, b"wantastic" * 6)
        self.left.send(ip_packet(self.left.address, self.right.address, ICMP, message))

    def datagrams(self, count: int, payload: bytes) -> None:
        """Send UDP datagrams through the tunnel, to be sent back."""
        message = udp_message(40000, ECHO_PORT, payload)
        packet = ip_packet(self.left.address, self.right.address, UDP, message)
        for _ in range(count):
            self.traffic.datagrams += self.left.send(packet)

    def _asked(self, packet: bytes) -> None:
        if reply := answer(packet):
            self.right.send(reply)

    def _answered(self, packet: bytes) -> None:
        body = packet[_IP.size :]
        if packet[9] == ICMP and body[0] == ECHO_REPLY:
            number = _ICMP.unpack_from(body)[4]
            sent_ns = self.traffic.sent_ns.pop(number, None)
            if sent_ns is not None:
                self.traffic.pongs += 1
                self.traffic.last_rtt_ns = time.monotonic_ns() - sent_ns
        elif packet[9] == UDP:
            self.traffic.echoes += 1

    def close(self) -> None:
        self.left.close()
        self.right.close()
