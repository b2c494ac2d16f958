"""A DNS server of two addresses, over UDP and TCP, that can misbehave."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cext.engine.engine import Endpoint
from tests.support.userspace_pair import tcp_server
from wantastic.device.dns_message import skip_name

NAME = "web.corp.example"
LABELS = b"\x03web\x04corp\x07example\0"


def answer_to(query: bytes, *, truncated: bool = False) -> bytes:
    """Return what a server says: NAME is 10.9.0.2 and fd09::2, nothing else is anything."""
    end = skip_name(query, 12) + 4
    kind = int.from_bytes(query[end - 4 : end - 2], "big")
    known = LABELS in query and not truncated
    flags = 0x8180 | (0x0200 if truncated else 0)
    answer = query[:2] + struct.pack("!5H", flags, 1, known, 0, 0) + query[12:end]
    if known:
        data = bytes((10, 9, 0, 2)) if kind == 1 else socket.inet_pton(socket.AF_INET6, "fd09::2")
        answer += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
    return answer


class Servers:
    """A DNS server's UDP and TCP sides, and how often each was asked."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.asked: Counter[str] = Counter()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))

    def udp(self) -> None:
        with suppress(OSError):
            while True:
                query, source = self.socket.recvfrom(4096)
                if not query:
                    return
                self.asked["udp"] += 1
                if self.behaviour == "silent":
                    continue
                if self.behaviour == "deaf at first" and self.asked["udp"] < 3:
                    continue
                if self.behaviour == "spoofed":
                    good = answer_to(query)
                    for wrong in (b"", b"x", bytes(2) + good[2:], good[:20], query):
                        self.socket.sendto(wrong, source)
                truncated = self.behaviour == "truncated"
                self.socket.sendto(answer_to(query, truncated=truncated), source)

    def tcp(self, connection: socket.socket) -> None:
        size = int.from_bytes(connection.recv(2), "big")
        if not size:
            return
        self.asked["tcp"] += 1
        reply = answer_to(connection.recv(size))
        connection.sendall(len(reply).to_bytes(2, "big") + reply)

    @contextmanager
    def running(self) -> Iterator[tuple[Endpoint, Endpoint]]:
        """Yield where the UDP and the TCP side listen."""
        thread = threading.Thread(target=self.udp, daemon=True)
        thread.start()
        place = self.socket.getsockname()
        try:
            with tcp_server(self.tcp) as stream:
                yield Endpoint(*place), stream
        finally:
            self.socket.sendto(b"", place)
            thread.join(5)
            self.socket.close()
