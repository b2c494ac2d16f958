"""SOCKS5, HTTP proxy and forwards over two engines on loopback, with curl and by hand."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cext.engine.engine import Endpoint
from tests.support.agent import PROGRAM
from tests.support.peers import ROOT
from tests.support.userspace_pair import Node, Pair, echo, tcp_server
from wantastic.config.model import DnsConfig, DnsServer, HostPort
from wantastic.device.dns_message import make_query, parse_answer
from wantastic.device.userspace import TunnelNet
from wantastic.proxy.admission import MAX_OPENING
from wantastic.proxy.credentials import Credentials
from wantastic.proxy.names import Names
from wantastic.proxy.servers import (
    MAX_ASSOCIATIONS,
    Dialler,
    ForwardListener,
    HttpListener,
    Socks5Listener,
)
from wantastic.proxy.target import Target

PAGE = os.urandom(40_000).hex().encode()


def web(connection: socket.socket) -> None:
    """Answer one request with PAGE."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    assert head.startswith(b"GET /page HTTP/1.1\r\n"), head
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE)


def dns(connection: socket.socket) -> None:
    """Answer one question over TCP: web.corp.example is 10.9.0.2."""
    size = int.from_bytes(connection.recv(2), "big")
    query = connection.recv(size)
    known = b"\x03web\x04corp\x07example\0" in query and query[-4:-2] == b"\0\x01"
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes((10, 9, 0, 2))
    answer = query[:2] + struct.pack("!5H", 0x8180, 1, known, 0, 0) + query[12:]
    answer += record if known else b""
    connection.sendall(len(answer).to_bytes(2, "big") + answer)


class Setup:
    """The near node's proxies."""

    def __init__(self, pair: Pair, net: TunnelNet) -> None:
        self.pair = pair
        self.net = net
        self.names = Names(net)
        self.dialler = Dialler(net, self.names)


class LeftNet(TunnelNet):
    """TunnelNet over a node that has its netstack already."""

    def __init__(self, node: Node) -> None:
        self.stack = node.stack
        self.addresses = (node.v4, node.v6)
        self._waiting = {}
        self.name_asked = lambda name: None


@asynccontextmanager
async def setup() -> AsyncIterator[Setup]:
    with Pair() as pair:
        net = LeftNet(pair.left)

        def readable() -> None:
            for event in pair.left.engine.events():
                net.on_event(event)

        loop, fd = asyncio.get_running_loop(), pair.left.engine.event_fd
        loop.add_reader(fd, readable)
        try:
            yield Setup(pair, net)
        finally:
            loop.remove_reader(fd)


def run(test: Callable[[Setup], Awaitable[None]]) -> None:
    async def main() -> None:
        async with setup() as made, asyncio.timeout(50):
            await test(made)

    asyncio.run(main())


async def curl(*arguments: str) -> tuple[int, bytes]:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-m", "20", *arguments, stdout=-1, stderr=-2
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output


def test_1_curl_by_socks5_and_http() -> None:
    async def test(made: Setup) -> None:
        with tcp_server(web) as target, tcp_server(dns) as resolver:
            made.pair.right.stack.forward_tcp(80, target)
            made.pair.right.stack.forward_tcp(53, resolver)
            made.names.use(DnsConfig(servers=(DnsServer(HostPort("10.9.0.2", 53)),)))
            socks = Socks5Listener(made.dialler, "127.0.0.1", 0, None)
            proxy = HttpListener(made.dialler, "127.0.0.1", 0, None)
            by_socks = f"127.0.0.1:{socks.port}"
            by_http = f"http://127.0.0.1:{proxy.port}"
            for arguments in (
                ("--socks5", by_socks, "http://10.9.0.2/page"),
                ("--socks5", by_socks, "http://[fd09::2]/page"),
                ("--socks5-hostname", by_socks, "http://web.corp.example/page"),
                ("-x", by_http, "http://10.9.0.2/page"),
                ("-x", by_http, "http://web.corp.example/page"),
                ("-p", "-x", by_http, "http://[fd09::2]/page"),
            ):
                assert await curl(*arguments) == (0, PAGE), arguments
            # 7: the server said no; 97: SOCKS said so.
            status, _ = await curl("--socks5", by_socks, "http://10.9.0.2:81/")
            assert status in (7, 97)
            status, text = await curl("--socks5-hostname", by_socks, "http://no.corp.example/")
            assert status in (7, 97), text
            status, text = await curl("-x", by_http, "-i", "http://10.9.0.2:81/")
            assert b"502 Bad Gateway" in text
            status, text = await curl("-x", by_http, "-i", "http://127.0.0.1:1/")
            assert b"403 Forbidden" in text
            await socks.close()
            await proxy.close()

    run(test)


def test_2_credentials() -> None:
    async def test(made: Setup) -> None:
        with tcp_server(web) as target:
            made.pair.right.stack.forward_tcp(80, target)
            login = Credentials("me", "secret")
            socks = Socks5Listener(made.dialler, "127.0.0.1", 0, login)
            proxy = HttpListener(made.dialler, "127.0.0.1", 0, login)
            url, at = "http://10.9.0.2/page", f"127.0.0.1:{socks.port}"
            good = await curl("--socks5", at, "--proxy-user", "me:secret", url)
            assert good == (0, PAGE)
            assert (await curl("--socks5", at, "--proxy-user", "me:wrong", url))[0] == 97
            assert (await curl("--socks5", at, url))[0] == 97
            at = f"http://127.0.0.1:{proxy.port}"
            assert await curl("-x", at, "--proxy-user", "me:secret", url) == (0, PAGE)
            _, text = await curl("-i", "-x", at, url)
            assert b"407" in text
            await socks.close()
            await proxy.close()

    run(test)


def test_3_bytes_pass_exactly_with_half_close() -> None:
    data = os.urandom(4_000_000)

    async def test(made: Setup) -> None:
        with tcp_server(echo) as target:
            made.pair.right.stack.forward_tcp(7, target)
            socks = Socks5Listener(made.dialler, "127.0.0.1", 0, None)
            forward = ForwardListener(made.dialler, "127.0.0.1", 0, Target("10.9.0.2", 7))
            # The first bytes come together with the request.
            request = b"\x05\x01\x00\x05\x01\x00\x01" + bytes((10, 9, 0, 2, 0, 7))
            for port, before, reply in (
                (socks.port, request, b"\x05\x00\x05\x00\x00\x01" + bytes(6)),
                (forward.port, b"", b""),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(before + data)
                writer.write_eof()
                assert await reader.readexactly(len(reply)) == reply
                got = await reader.read(-1)
                assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
                writer.close()
            await socks.close()
            await forward.close()

    run(test)


def test_4_streams_of_our_own() -> None:
    async def test(made: Setup) -> None:
        with tcp_server(echo) as target:
            made.pair.right.stack.forward_tcp(7, target)
            reader, writer = await made.net.open_connection("10.9.0.2", 7)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read(-1) == b"hello"
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await made.net.open_connection("10.9.0.2", 8)
            made.pair.right.engine.down()
            with pytest.raises(TimeoutError):
                await made.net.open_connection("10.9.0.2", 7, timeout_s=0.3)
            assert made.net.stack.statistics()["flows"] <= 1

    run(test)


def test_5_a_server_that_hangs_up_while_clients_open() -> None:
    async def test(made: Setup) -> None:
        made.pair.right.stack.forward_tcp(7, Endpoint("127.0.0.1", 1))
        socks = Socks5Listener(made.dialler, "127.0.0.1", 0, None)
        for message in (b"", b"\x04", b"\x05\x01\x00", b"\x05\x00", os.urandom(100)):
            reader, writer = await asyncio.open_connection("127.0.0.1", socks.port)
            writer.write(message)
            writer.write_eof()
            await asyncio.wait_for(reader.read(-1), 5)
            writer.close()
        await socks.close()
        assert made.net.stack.statistics()["flows"] == 0

    run(test)


def test_7_udp_associate_lasts_as_long_as_its_connection() -> None:
    async def test(made: Setup) -> None:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        made.pair.right.stack.forward_udp(53, Endpoint(*server.getsockname()))
        socks = Socks5Listener(made.dialler, "127.0.0.1", 0, None)
        reader, writer = await asyncio.open_connection("127.0.0.1", socks.port)
        writer.write(b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6))
        reply = await reader.readexactly(12)
        assert reply[:6] == b"\x05\x00\x05\x00\x00\x01"
        at = (socket.inet_ntoa(reply[6:10]), int.from_bytes(reply[10:], "big"))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(5)
        header = b"\0\0\0\x01" + bytes((10, 9, 0, 2)) + b"\0\x35"
        client.sendto(header + b"question", at)
        question, source = await asyncio.to_thread(server.recvfrom, 100)
        assert question == b"question"
        server.sendto(b"answer", source)
        assert await asyncio.to_thread(client.recv, 100) == header + b"answer"
        assert made.net.stack.statistics()["flows"] == 2
        writer.close()
        while made.net.stack.statistics()["flows"]:
            await asyncio.sleep(0.01)
        await socks.close()
        client.close()
        server.close()

    run(test)


def test_8_nc_is_a_connection(tmp_path: Path) -> None:
    data = os.urandom(8_000_000)

    async def nc(*arguments: str) -> tuple[int, bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, "nc", *arguments, stdin=-1, stdout=-1, stderr=-1, cwd=ROOT
        )
        output, error = await process.communicate(data)
        return process.returncode or 0, output, error

    async def test(made: Setup) -> None:
        with tcp_server(echo) as target:
            made.pair.right.stack.forward_tcp(7, target)
            login = Credentials("me", "secret")
            socks = Socks5Listener(made.dialler, "127.0.0.1", 0, None)
            locked = Socks5Listener(made.dialler, "127.0.0.1", 0, login)
            at = f"-proxy=127.0.0.1:{socks.port}"
            assert await nc(at, "10.9.0.2", "7") == (0, data, b"")
            status, _, error = await nc(at, "fd09::2", "8")
            assert (status, b"connection refused" in error) == (1, True)
            status, _, error = await nc(f"-proxy=127.0.0.1:{locked.port}", "10.9.0.2", "7")
            assert (status, b"password" in error) == (1, True)
            listen = {"listen": f"127.0.0.1:{locked.port}", "user": "me", "password": "secret"}
            path = tmp_path / "config.json"
            path.write_text(json.dumps({"proxy": {"socks5": listen}}))
            path.chmod(0o600)
            assert await nc("-config", str(path), "10.9.0.2", "7") == (0, data, b"")
            assert (await nc("10.9.0.2"))[0] == 2
            await socks.close()
            await locked.close()

    run(test)


def test_9_a_connection_carries_one_request() -> None:
    """Clients that keep or fill their connection; each origin hears only what is its own."""
    heard: dict[str, list[bytes]] = {"a": [], "b": []}

    def origin(name: str) -> Callable[[socket.socket], None]:
        def serve(connection: socket.socket) -> None:
            with connection.makefile("rb") as lines:
                head = b"".join(iter(lines.readline, b"\r\n"))
                fields = dict(line.split(b": ", 1) for line in head.splitlines()[1:])
                assert fields[b"Connection"] == b"close"
                body = lines.read(int(fields.get(b"Content-Length", b"0")))
                if fields.get(b"Transfer-Encoding") == b"chunked":
                    while size := int(lines.readline(), 16):
                        body += lines.read(size + 2)[:-2]
                    lines.readline()
                answer = name.encode() + body
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(answer), answer)
                )
                connection.shutdown(socket.SHUT_WR)
                heard[name].append(head + body + lines.read())

        return serve

    async def test(made: Setup) -> None:
        with tcp_server(origin("a")) as a, tcp_server(origin("b")) as b:
            made.pair.right.stack.forward_tcp(80, a)
            made.pair.right.stack.forward_tcp(81, b)
            proxy = HttpListener(made.dialler, "127.0.0.1", 0, Credentials("me", "secret"))
            by = ("-x", f"http://127.0.0.1:{proxy.port}", "--proxy-user", "me:secret")
            both = ("http://10.9.0.2/1", "http://10.9.0.2:81/2", "http://10.9.0.2/3")
            assert await curl(*by, *both) == (0, b"aba")
            upload = ("-d", "x" * 70_000, "http://10.9.0.2/")
            assert await curl(*by, *upload) == (0, b"a" + b"x" * 70_000)
            pieces = ("-H", "Transfer-Encoding: chunked", "-d", "y" * 70_000, both[1])
            assert await curl(*by, *pieces) == (0, b"b" + b"y" * 70_000)
            # A client that does not wait for the first answer, with its password each time.
            login = b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            for target in (b"10.9.0.2/4", b"10.9.0.2:81/5"):
                writer.write(b"GET http://" + target + b" HTTP/1.1\r\n" + login)
            assert (await reader.read(-1)).endswith(b"\r\n\r\na")
            writer.close()
            # Each origin waits for the end of what it hears.
            while len(heard["a"]) < 4 or len(heard["b"]) < 2:
                await asyncio.sleep(0.01)
            await proxy.close()
        by_a, by_b = b"".join(heard["a"]), b"".join(heard["b"])
        assert b"bWU6c2VjcmV0" not in by_a + by_b
        assert [by_a.count(b"/%d " % n) for n in range(1, 6)] == [1, 0, 1, 1, 0]
        assert [by_b.count(b"/%d " % n) for n in range(1, 6)] == [0, 2, 0, 0, 0]

    run(test)


def test_11_associations_are_bounded() -> None:
    request = b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6)

    async def associate(port: int) -> tuple[int, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        return (await reader.readexactly(12))[3], writer

    async def test(made: Setup) -> None:
        socks = Socks5Listener(made.dialler, "127.0.0.1", 0, None)
        found = [await associate(socks.port) for _ in range(MAX_ASSOCIATIONS)]
        assert {reply for reply, _ in found} == {0}
        reply, refused = await associate(socks.port)
        assert reply == 1
        found.pop()[1].close()
        while made.net.stack.statistics()["flows"] == MAX_ASSOCIATIONS:
            await asyncio.sleep(0.01)
        reply, writer = await associate(socks.port)
        assert reply == 0
        for _, other in (*found, (1, refused), (0, writer)):
            other.close()
        while made.net.stack.statistics()["flows"]:
            await asyncio.sleep(0.01)
        # The native thread has a bound of its own, for all listeners and forwards together.
        flows = [made.net.associate("127.0.0.1", 0, "10.9.0.2", 7) for _ in range(128)]
        with pytest.raises(OSError, match="buffer space"):
            made.net.associate("127.0.0.1", 0, "10.9.0.2", 7)
        for flow in flows:
            made.net.close(flow)
        assert made.net.associate("127.0.0.1", 0, "10.9.0.2", 7)
        await socks.close()

    run(test)


def test_10_silent_connections_lock_nobody_out() -> None:
    async def test(made: Setup) -> None:
        with tcp_server(echo) as target:
            made.pair.right.stack.forward_tcp(7, target)
            socks = Socks5Listener(made.dialler, "127.0.0.1", 0, None)
            silent = [
                await asyncio.open_connection("127.0.0.1", socks.port)
                for _ in range(MAX_OPENING + 20)
            ]
            for _, writer in silent[::2]:
                writer.write(b"\x05")
            request = b"\x05\x01\x00\x05\x01\x00\x01" + bytes((10, 9, 0, 2, 0, 7))
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", socks.port)
                writer.write(request + b"hello")
                assert (await reader.readexactly(17))[12:] == b"hello"
                # The oldest made room and know it; the newest may still speak.
                for reader, _ in silent[:20]:
                    assert await reader.read(-1) == b""
                reader, writer = silent[-2]
                writer.write(request[1:] + b"hello")
                assert (await reader.readexactly(17))[12:] == b"hello"
            for _, writer in silent:
                writer.close()
            await socks.close()

    run(test)


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (1, lambda m: m[:20]),
        (2, lambda m: b"\0\0" + m[2:]),
        (3, lambda m: m[:-2]),
        (4, lambda m: m[:3] + b"\x82" + m[4:]),
        (5, lambda m: m[:2] + b"\x01" + m[3:]),
    ],
)
def test_6_answers_that_are_none(number: int, change: Callable[[bytes], bytes]) -> None:
    query = make_query(0x1234, "a.example", 1)
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 7, 4) + bytes((10, 0, 0, 1))
    good = query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + query[12:] + record
    assert parse_answer(good, query) == (["10.0.0.1"], 7)
    with pytest.raises(ValueError, match=r"\w"):
        parse_answer(change(good), query)
