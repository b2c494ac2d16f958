"""Connections into the tunnel without TUN, as Python sees them: wishes in, ids out.

The native thread moves the bytes. Methods are commands, as those of Engine, and raise
what they do. An id names a flow or a forward until close(), or until its ends closed.
"""

from cext.engine.engine import Endpoint, Engine

def is_host(address: str) -> bool:
    """Whether an address can be one host at the far end of a connection: no loopback,
    link-local, multicast, reserved or mapped one, in any form (cext/wire/special.h)."""

class Userspace:
    """The netstack of an engine. There is one at most; it lives as long as the engine."""

    def __init__(self, engine: Engine, addresses: tuple[str, ...]) -> None:
        """Take packets for `addresses` (all packets, while the engine has no TUN) out of
        the tunnel. Memory comes out of the engine's memory_limit_bytes: ValueError names
        what is needed. Before start(), nothing works; after stop(), nothing does."""

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """Replace them. Connections from those that are gone end by timeout."""

    def set_mtu(self, mtu: int) -> None:
        """Follow the engine's set_mtu(). OSError: larger than what the memory was laid out
        for, which is the MTU at the start, or 1500 where that was less."""

    def dial_tcp(self, host: str, port: int) -> int:
        """Begin a connection to a numeric address in the tunnel; return its id. OSError with
        EACCES: it is no is_host(). The engine's EVENT_DIALLED says that dialled() has
        something. It is never dialled for longer than the netstack's timeout, some minutes:
        close() it earlier."""

    def dialled(self) -> list[tuple[int, int]]:
        """Return and forget ids whose dial ended, each with an errno, 0 for success."""

    def splice(
        self,
        flow: int,
        fd: int,
        early: bytes = b"",
        request: tuple[int, int | None] | None = None,
    ) -> None:
        """Join a dialled connection and a stream socket, which is taken over, whatever
        happens. `early` is sent into the tunnel first. OSError: the connection is gone.

        With `request` one HTTP request passes, and what the socket gives behind it is
        dropped: how many bytes of `early` are its head, and how long the body is that
        follows, None for a chunked one."""

    def forward_tcp(self, port: int, target: Endpoint) -> int:
        """Open a port of the tunnel addresses; connections go to the host's `target`."""

    def forward_udp(self, port: int, target: Endpoint) -> int:
        """The same for datagrams."""

    def associate(self, local: Endpoint, target: Endpoint) -> tuple[int, int]:
        """Bind a UDP port of the host, 0 for any; its datagrams go to `target` in the
        tunnel, and the answers back. Return the id and the port."""

    def associate_socks(self, local: Endpoint, client: Endpoint) -> tuple[int, int]:
        """The same for one SOCKS client (RFC 1928, 7), whose port may be 0 as long as
        nobody knows it. Fragments are dropped; the first datagrams to a name wait until
        learn_name() says what it means: EVENT_DIALLED tells that asked_names() has some."""

    def open_udp(self, target: Endpoint, fd: int) -> int:
        """Join a datagram socket, which is taken over, whatever happens, and a flow of
        datagrams to a numeric address in the tunnel; return its id. It ends when idle."""

    def asked_names(self) -> list[bytes]:
        """Return and forget names that SOCKS clients sent to, as they wrote them."""

    def learn_name(self, name: bytes, address: str | None, ttl_s: int) -> None:
        """Say where a name's datagrams go for so long; None: nowhere."""

    def forget_names(self) -> None:
        """Ask for every name again."""

    def close(self, flow: int) -> None:
        """Reset a connection, or end a forward, whose connections stay. Unknown ids, of
        what has ended by itself, are ignored."""

    def statistics(self) -> dict[str, int]:
        """Flows in use, bytes by direction, memory, and the netstack's own counters."""
