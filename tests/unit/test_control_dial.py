"""The relay between grpcio and a marked connection: whom it lets in, and how it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_control import FakeServer, NoMemory
from wantastic.config.model import HostPort
from wantastic.control.client import AuthClient, Server
from wantastic.control.dial import Relay, dial
from wantastic.control.resolve import Resolver
from wantastic.control.transport import Address


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def joined() -> tuple[Relay, socket.socket, socket.socket]:
    """Return a relay, its inner end, and the far end of the outer connection."""
    far, outer = socket.socketpair()
    for end in (far, outer):
        end.setblocking(False)
    relay = Relay(outer)
    inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    inner.setblocking(False)
    await asyncio.get_running_loop().sock_connect(
        inner, relay.target.replace("unix-abstract:", "\0")
    )
    return relay, inner, far


def test_bytes_pass_both_ways_and_an_end_is_passed_on() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        relay, inner, far = await joined()
        block = os.urandom(300_000)
        for source, sink in ((inner, far), (far, inner)):
            sending = asyncio.ensure_future(loop.sock_sendall(source, block))
            found = b""
            while len(found) < len(block):
                found += await loop.sock_recv(sink, 65536)
            await sending
            assert found == block
        inner.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(far, 1) == b""
        await loop.sock_sendall(far, b"still there")
        assert await loop.sock_recv(inner, 100) == b"still there"
        far.close()
        assert await loop.sock_recv(inner, 1) == b""
        await relay.close()
        await relay.close()
        inner.close()

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("accepted", [True, False])
def test_closing_leaves_no_descriptor_behind(accepted: bool) -> None:
    async def main() -> None:
        before = descriptors()
        if accepted:
            relay, inner, far = await joined()
            await asyncio.sleep(0.05)
            await relay.close()
            assert await asyncio.get_running_loop().sock_recv(inner, 1) == b""
            inner.close()
        else:
            far, outer = socket.socketpair()
            outer.setblocking(False)
            await Relay(outer).close()
        far.settimeout(5)
        assert far.recv(1) == b""
        far.close()
        assert descriptors() == before

    asyncio.run(asyncio.wait_for(main(), 30))


def test_another_process_is_not_let_in() -> None:
    """The name is secret as well; this is for whoever lists /proc/net/unix."""
    code = (
        "import socket,sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.settimeout(10)\n"
        "s.connect(sys.argv[1].replace('unix-abstract:', chr(0)))\n"
        "s.send(b'from outside')\n"
        "sys.exit(s.recv(1) != b'')\n"
    )

    async def main() -> None:
        far, outer = socket.socketpair()
        far.setblocking(False)
        outer.setblocking(False)
        relay = Relay(outer)
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, relay.target, stderr=subprocess.DEVNULL
        )
        await other.wait()
        with pytest.raises(BlockingIOError):
            far.recv(1)
        inner = socket.socket(socket.AF_UNIX)
        inner.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(inner, relay.target.replace("unix-abstract:", "\0"))
        await loop.sock_sendall(inner, b"ours")
        assert await loop.sock_recv(far, 100) == b"ours"
        await relay.close()
        inner.close()
        far.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_dial_fails_as_the_system_does_and_leaves_nothing() -> None:
    async def main() -> None:
        before = descriptors()
        with pytest.raises(ConnectionRefusedError):
            await dial(Address("127.0.0.1", 1))
        with pytest.raises(OSError, match=r"."):
            await dial(Address("no address", 1))
        assert descriptors() == before

    asyncio.run(main())


def test_a_connection_is_made_anew_when_the_mark_changes() -> None:
    async def main() -> None:
        mark = 0
        server = FakeServer()
        at = Server(HostPort("127.0.0.1", 1), insecure=True)
        client = AuthClient(at, server.connect, Resolver(NoMemory()), mark=lambda: mark)
        for expected in (1, 1, 2, 2, 3):
            mark = {1: 0, 2: 51820, 3: 0}[expected]
            await client.follow_mark()
            await client._connected()
            assert len(server.connections) == expected

    asyncio.run(main())
