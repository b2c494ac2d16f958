"""Names of the tunnel: DNS by UDP, TCP and TLS, and SOCKS datagrams to names."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from cext.engine.engine import Endpoint
from tests.support.control_peers import authority, server_context
from tests.support.dns import NAME, Servers, answer_to
from tests.support.userspace_pair import tcp_server
from tests.system.test_proxy import Setup, run
from wantastic.config.model import DnsConfig, DnsServer, HostPort
from wantastic.control.tls import client_context
from wantastic.control.transport import Tls
from wantastic.proxy.names import Names
from wantastic.proxy.servers import Dialler, Socks5Listener

SERVER = DnsServer(HostPort("10.9.0.2", 53))
TLS_SERVER = DnsServer(HostPort("10.9.0.2", 853), "dns.example")


@contextmanager
def dns(made: Setup, behaviour: str = "") -> Iterator[Servers]:
    """A DNS server at the far node's port 53."""
    servers = Servers(behaviour)
    with servers.running() as (datagrams, stream):
        made.pair.right.stack.forward_tcp(53, stream)
        made.pair.right.stack.forward_udp(53, datagrams)
        made.names.use(DnsConfig(servers=(SERVER,)))
        yield servers


@pytest.mark.parametrize(
    ("number", "behaviour", "udp", "tcp"),
    [
        (1, "", 2, 0),
        (2, "truncated", 2, 2),
        # Each of the two questions is asked twice.
        (3, "silent", 4, 2),
        (4, "deaf at first", 4, 0),
        (5, "spoofed", 2, 0),
    ],
)
def test_1_udp_first_and_tcp_where_that_is_not_enough(
    number: int, behaviour: str, udp: int, tcp: int
) -> None:
    async def test(made: Setup) -> None:
        with dns(made, behaviour) as servers:
            found = await made.names.resolve(NAME)
            assert found == ("10.9.0.2", "fd09::2")
            assert (servers.asked["udp"], servers.asked["tcp"]) == (udp, tcp)
            # Known now, for as long as it said.
            assert await made.names.look_up(NAME) in [(found, 59), (found, 60)]
            assert servers.asked["udp"] == udp
        # Nothing is left of the questions.
        deadline = time.monotonic() + 5
        while made.net.stack.statistics()["flows"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    run(test)


@pytest.mark.parametrize(
    ("number", "certified", "works"), [(1, "dns.example", True), (2, "other.example", False)]
)
def test_2_tls_with_the_certificate_checked(number: int, certified: str, works: bool) -> None:
    context = server_context(authority().issue(certified), alpn="")

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            size = int.from_bytes(secure.recv(2), "big")
            reply = answer_to(secure.recv(size))
            secure.sendall(len(reply).to_bytes(2, "big") + reply)

    def tls() -> ssl.SSLContext:
        return client_context(Tls("", authority().pem), alpn="dot")

    async def test(made: Setup) -> None:
        names = Names(made.net, tls=tls)
        names.use(DnsConfig(servers=(TLS_SERVER,)))
        with tcp_server(serve) as target:
            made.pair.right.stack.forward_tcp(853, target)
            if works:
                assert await names.resolve(NAME) == ("10.9.0.2", "fd09::2")
            else:
                with pytest.raises(OSError, match="no address"):
                    await names.resolve(NAME)

    run(test)


def header(host: bytes | str, port: int) -> bytes:
    """Return the head of a SOCKS datagram (RFC 1928, 7)."""
    if isinstance(host, str):
        return b"\0\0\0\x01" + socket.inet_aton(host) + port.to_bytes(2, "big")
    return b"\0\0\0\x03" + bytes((len(host),)) + host + port.to_bytes(2, "big")


@asynccontextmanager
async def association(made: Setup) -> AsyncIterator[tuple[socket.socket, tuple[str, int]]]:
    """Yield a client's UDP socket and where it has to send to."""
    made.dialler = Dialler(made.net, made.names)
    socks = Socks5Listener(made.dialler, "127.0.0.1", 0, None)
    reader, writer = await asyncio.open_connection("127.0.0.1", socks.port)
    writer.write(b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6))
    reply = await reader.readexactly(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.settimeout(5)
        yield client, (socket.inet_ntoa(reply[6:10]), int.from_bytes(reply[10:], "big"))
    writer.close()
    await socks.close()


def test_3_socks_datagrams_to_names() -> None:
    async def test(made: Setup) -> None:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        made.pair.right.stack.forward_udp(7, Endpoint(*server.getsockname()))
        with dns(made) as servers:
            async with association(made) as (client, at):
                name = NAME.encode()
                # The first ones wait for the answer, in order; the last ones need none.
                for text in (b"one", b"two", b"three"):
                    client.sendto(header(name, 7) + text, at)
                for text in (b"one", b"two", b"three"):
                    got, source = await asyncio.to_thread(server.recvfrom, 100)
                    assert got == text
                asked = servers.asked["udp"]
                assert asked == 2
                client.sendto(header(name, 7) + b"four", at)
                got, source = await asyncio.to_thread(server.recvfrom, 100)
                assert got == b"four"
                server.sendto(b"answer", source)
                reply = await asyncio.to_thread(client.recv, 100)
                assert reply == header("10.9.0.2", 7) + b"answer"
                assert servers.asked["udp"] == asked
                # An address as a name; a name without an address; what is none, or cut off;
                # the host's own addresses. Then one that is right.
                wrong = (b"no.corp.example", b"-", b"\xff\xfe", b"127.0.0.1", b"::1", b"")
                for bad in wrong:
                    client.sendto(header(bad, 7) + b"wrong", at)
                client.sendto(header(name, 7)[:-1], at)
                client.sendto(b"\0\0\0\x03\xff", at)
                client.sendto(header(b"10.9.0.2", 7) + b"last", at)
                assert (await asyncio.to_thread(server.recvfrom, 100))[0] == b"last"
                # Another configuration: asked again.
                before = servers.asked["udp"]
                made.names.use(DnsConfig(servers=(SERVER,), cache_entries=7))
                client.sendto(header(name, 7) + b"again", at)
                assert (await asyncio.to_thread(server.recvfrom, 100))[0] == b"again"
                assert servers.asked["udp"] > before
        server.close()

    run(test)


def test_4_names_that_flood_are_dropped() -> None:
    async def test(made: Setup) -> None:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        made.pair.right.stack.forward_udp(7, Endpoint(*server.getsockname()))
        with dns(made):
            async with association(made) as (client, at):
                for number in range(2000):
                    client.sendto(header(b"n%d.example" % number, 7) + b"x", at)
                # As soon as those are answered there is room again.
                deadline = time.monotonic() + 20
                got = b""
                server.settimeout(0.2)
                while got != b"last" and time.monotonic() < deadline:
                    client.sendto(header(NAME.encode(), 7) + b"last", at)
                    with suppress(TimeoutError):
                        got = await asyncio.to_thread(server.recv, 100)
                assert got == b"last"
        server.close()

    run(test)
