"""What the tunnel may reach of a host without TUN: ping of the tunnel addresses, and nothing
of 127.0.0.1, ::1 or the host's other addresses, whatever protocol asks."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from cext.crypto.primitives import x25519_public
from cext.engine.engine import Endpoint, Engine
from cext.engine.userspace import Userspace
from tests.support.engine_pair import Host, secret, wait_until
from tests.support.segments import RST, SYN, icmp, parse, tcp, udp_packet
from tests.support.userspace_pair import Pair


def own_address() -> str:
    """Return an address of this machine besides 127.0.0.1, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.2"


@contextmanager
def everything(family: socket.AddressFamily) -> Iterator[tuple[int, list[object]]]:
    """Listen on every address of this machine by TCP and UDP; yield the port and who came."""
    came: list[object] = []
    any_address = "" if family == socket.AF_INET else "::"
    stream = socket.create_server((any_address, 0), family=family)
    port = stream.getsockname()[1]
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    datagrams.bind((any_address, port))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, source = stream.accept()
                connection.close()
                came.append(source)

    def receive() -> None:
        with suppress(OSError):
            while (found := datagrams.recvfrom(100))[0] != b"end":
                came.append(found)

    threads = [threading.Thread(target=t) for t in (accept, receive)]
    for thread in threads:
        thread.start()
    try:
        yield port, came
    finally:
        stream.shutdown(socket.SHUT_RDWR)
        loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
        with socket.socket(family, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", (loopback, port))
        for thread in threads:
            thread.join(5)
        stream.close()
        datagrams.close()


@contextmanager
def asking() -> Iterator[Host]:
    """A host that may send anything to anywhere; the one it talks to has a netstack alone."""
    with Host(1) as asks:
        answers = Engine()
        answers.start()
        try:
            key = secret(2)
            answers.set_private_key(key)
            port = answers.up()
            asks.engine.up()
            Userspace(answers, ("10.9.0.2", "fd09::2"))
            answers.set_peer(asks.public, allowed_ips=("10.9.0.1/32", "fd09::1/128"))
            asks.engine.set_peer(
                x25519_public(key),
                endpoint=Endpoint("127.0.0.1", port),
                allowed_ips=("0.0.0.0/0", "::/0"),
            )
            yield asks
        finally:
            answers.stop()


def questions(target: str, port: int) -> list[bytes]:
    """Return a ping, a SYN and a datagram."""
    source = "fd09::1" if ":" in target else "10.9.0.1"
    ends = (source, 40000), (target, port)
    return [
        icmp(source, target, 128 if ":" in target else 8, 0, b"\0\1\0\1are you there"),
        tcp(*ends, SYN, 1000),
        udp_packet(*ends, b"are you there"),
    ]


@pytest.mark.parametrize(
    ("number", "address"),
    list(
        enumerate(["127.0.0.1", "127.0.0.2", "own", "0.0.0.0", "10.9.0.1", "10.9.0.3", "::1", "::"])
    ),
)
def test_1_the_host_is_out_of_reach(number: int, address: str) -> None:
    address = own_address() if address == "own" else address
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ours = "fd09::2" if ":" in address else "10.9.0.2"
    with asking() as asks, everything(family) as (port, came):
        asks.send(*questions(address, port), *questions(ours, port))
        # An echo reply, a reset and "port unreachable": of the tunnel address, in this order.
        answers = [parse(packet) for packet in asks.receive(3)]
        assert [packet.source for packet in answers] == [ours] * 3
        protocols = [58, 6, 58] if ":" in address else [1, 6, 1]
        assert [packet.protocol for packet in answers] == protocols
        assert answers[0].payload[0] == (129 if ":" in address else 0)
        assert answers[1].payload[13] & RST
        assert answers[2].payload[:2] == (b"\x01\x04" if ":" in address else b"\x03\x03")
        assert asks.receive(1, 0.3) == []
        assert came == []


def test_2_a_forward_opens_one_port_and_no_other() -> None:
    with Pair() as pair, everything(socket.AF_INET) as (port, came):
        pair.right.stack.forward_tcp(port, Endpoint("127.0.0.1", port))
        assert pair.left.result(pair.left.stack.dial_tcp("10.9.0.2", port)) == 0
        wait_until(lambda: came)
        refused = pair.left.stack.dial_tcp("10.9.0.2", port - 1)
        assert pair.left.result(refused) == errno.ECONNREFUSED
        assert len(came) == 1
