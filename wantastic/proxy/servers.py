"""Listeners on the host whose connections end in the tunnel: SOCKS5, HTTP proxy, forwards.

    accept -> [opening: parse the request] -> resolve -> dial -> answer -> splice

Python sees a connection until its bytes flow; from then on the native thread owns the
descriptor. A listener has so many connections between accept and splice as admission.py
says, each for at most OPENING_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
from abc import ABC, abstractmethod

from wantastic.device.userspace import TunnelNet
from wantastic.proxy import http, socks5
from wantastic.proxy.admission import Admission, Place
from wantastic.proxy.credentials import Credentials
from wantastic.proxy.names import NOTHING_TTL_S, Names
from wantastic.proxy.opening import State
from wantastic.proxy.target import Target, parse_host

OPENING_S = 30.0
BACKLOG = 256
# SOCKS UDP associations of one listener: each holds two descriptors as long as it likes.
MAX_ASSOCIATIONS = 64
READ_BYTES = 16 * 1024
# A failing accept() (no descriptors left) must not become a busy loop.
PAUSE_S = 0.1

NOWHERE = Target("0.0.0.0", 0)
SOCKS_REPLIES = {
    errno.ECONNREFUSED: socks5.Reply.CONNECTION_REFUSED,
    errno.EHOSTUNREACH: socks5.Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: socks5.Reply.HOST_UNREACHABLE,
    errno.ENETUNREACH: socks5.Reply.NETWORK_UNREACHABLE,
    errno.EACCES: socks5.Reply.NOT_ALLOWED,
}
HTTP_REFUSALS = {
    errno.ETIMEDOUT: http.Refusal.TIMEOUT,
    errno.ENOBUFS: http.Refusal.BUSY,
    errno.EMFILE: http.Refusal.BUSY,
    errno.EACCES: http.Refusal.FORBIDDEN,
}


class Dialler:
    """From a target to a connection in the tunnel."""

    def __init__(self, net: TunnelNet, names: Names) -> None:
        self.net = net
        self.names = names
        self._asked: set[asyncio.Task[None]] = set()
        net.name_asked = self._name_asked

    async def addresses(self, target: Target) -> tuple[str, ...]:
        """Return where a target is; OSError for what nobody may reach this way."""
        found = (target.host,) if target.address else await self.names.resolve(target.host)
        good = tuple(a for a in found if self.net.reaches(a))
        if not good:
            raise OSError(errno.EACCES, f"{target.host} is no address of a tunnel")
        return good

    def _name_asked(self, name: bytes) -> None:
        """A SOCKS client sent a datagram to a name that the native thread does not know."""
        task = asyncio.get_running_loop().create_task(self._learn(name))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _learn(self, name: bytes) -> None:
        address, ttl_s = None, NOTHING_TTL_S
        try:
            host = parse_host(name.decode("ascii"))
            if Target(host, 0).address:
                found: tuple[str, ...] = (host,)
            else:
                found, ttl_s = await self.names.look_up(host)
            address = next((a for a in found if self.net.reaches(a)), None)
        except (OSError, ValueError):
            ttl_s = NOTHING_TTL_S
        self.net.learn_name(name, address, ttl_s)

    async def dial(self, target: Target) -> int:
        """Connect to the first address that answers; OSError of the last one otherwise."""
        failed = OSError(errno.EHOSTUNREACH, "no address")
        for address in await self.addresses(target):
            try:
                return await self.net.dial(address, target.port)
            except OSError as error:
                failed = error
        raise failed


def _hang_up(connection: socket.socket) -> None:
    """End an opening: whoever reads from it finds the end of its stream."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Listener(ABC):
    """A listening socket of the host; each of its connections is carried into the tunnel."""

    def __init__(self, dialler: Dialler, host: str, port: int) -> None:
        self._dialler = dialler
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._admission = Admission()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    @property
    def port(self) -> int:
        """The port as bound."""
        port: int = self._socket.getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening; what is open stays."""
        tasks = [self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, client = await loop.sock_accept(self._socket)
            except OSError:
                await asyncio.sleep(PAUSE_S)
                continue
            place = self._admission.enter(client[0], functools.partial(_hang_up, connection))
            if place is None:
                connection.close()
                continue
            task = loop.create_task(self._carry(connection, place))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, connection: socket.socket, place: Place) -> None:
        try:
            with connection, contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(OPENING_S):
                    await self.open(connection, place)
        finally:
            self._admission.leave(place)

    @abstractmethod
    async def open(self, connection: socket.socket, place: Place) -> None:
        """Do what precedes the flow of bytes, then splice; or return, and it is closed."""


class ForwardListener(Listener):
    """A port of the host that is one in the tunnel."""

    def __init__(self, dialler: Dialler, host: str, port: int, target: Target) -> None:
        super().__init__(dialler, host, port)
        self._target = target

    async def open(self, connection: socket.socket, place: Place) -> None:
        place.asked()
        flow = await self._dialler.dial(self._target)
        self._dialler.net.splice(flow, connection)


async def _receive_request(
    connection: socket.socket, opening: socks5.Socks5Server | http.HttpProxy
) -> socks5.Request | http.Request | None:
    """Read until there is a request; None when there will be none."""
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(connection, READ_BYTES)
        if not data:
            return None
        request = opening.receive(data)
        await loop.sock_sendall(connection, opening.data_to_send())
        if request is not None:
            return request
        if opening.state is State.CLOSED:
            connection.shutdown(socket.SHUT_WR)
            return None


class Socks5Listener(Listener):
    """A SOCKS5 server (RFC 1928)."""

    def __init__(
        self, dialler: Dialler, host: str, port: int, credentials: Credentials | None
    ) -> None:
        super().__init__(dialler, host, port)
        self._credentials = credentials
        self._associations: set[asyncio.Task[None]] = set()
        self._places = Admission(MAX_ASSOCIATIONS, MAX_ASSOCIATIONS // 3)

    async def open(self, connection: socket.socket, place: Place) -> None:
        loop = asyncio.get_running_loop()
        opening = socks5.Socks5Server(self._credentials)
        request = await _receive_request(connection, opening)
        if not isinstance(request, socks5.Request):
            return
        place.asked()
        if request.command is socks5.Command.UDP_ASSOCIATE:
            self._associate(connection, opening, request.target)
            await loop.sock_sendall(connection, opening.data_to_send())
            return
        try:
            flow = await self._dialler.dial(request.target)
        except OSError as error:
            reply = SOCKS_REPLIES.get(error.errno or 0, socks5.Reply.GENERAL_FAILURE)
            opening.refuse(reply)
            await loop.sock_sendall(connection, opening.data_to_send())
            return
        try:
            opening.accept(NOWHERE)
            await loop.sock_sendall(connection, opening.data_to_send())
        except BaseException:
            self._dialler.net.close(flow)
            raise
        self._dialler.net.splice(flow, connection, opening.rest())

    def _associate(
        self, connection: socket.socket, opening: socks5.Socks5Server, sender: Target
    ) -> None:
        """Open a UDP port beside the control connection, for as long as that one lasts."""
        ours, client = connection.getsockname()[0], connection.getpeername()[0]
        place = self._places.enter(client, lambda: None)
        if place is None:
            opening.refuse(socks5.Reply.GENERAL_FAILURE)
            return
        place.asked()
        try:
            flow, port = self._dialler.net.associate_socks(ours, client, sender.port)
            try:
                held = connection.dup()
            except OSError:
                self._dialler.net.close(flow)
                raise
        except OSError:
            self._places.leave(place)
            opening.refuse(socks5.Reply.GENERAL_FAILURE)
            return
        opening.accept(Target(ours, port))
        held.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._hold(held, flow, place))
        self._associations.add(task)
        task.add_done_callback(self._associations.discard)

    async def _hold(self, control: socket.socket, flow: int, place: Place) -> None:
        with control, contextlib.suppress(OSError):
            try:
                while await asyncio.get_running_loop().sock_recv(control, READ_BYTES):
                    continue
            finally:
                self._dialler.net.close(flow)
                self._places.leave(place)

    async def close(self) -> None:
        await super().close()
        for task in list(self._associations):
            task.cancel()
        await asyncio.gather(*self._associations, return_exceptions=True)


class HttpListener(Listener):
    """An HTTP proxy: CONNECT, and requests in absolute form."""

    def __init__(
        self, dialler: Dialler, host: str, port: int, credentials: Credentials | None
    ) -> None:
        super().__init__(dialler, host, port)
        self._credentials = credentials

    async def open(self, connection: socket.socket, place: Place) -> None:
        loop = asyncio.get_running_loop()
        opening = http.HttpProxy(self._credentials)
        request = await _receive_request(connection, opening)
        if not isinstance(request, http.Request):
            return
        place.asked()
        try:
            flow = await self._dialler.dial(request.target)
        except OSError as error:
            opening.refuse(HTTP_REFUSALS.get(error.errno or 0, http.Refusal.FAILED))
            await loop.sock_sendall(connection, opening.data_to_send())
            connection.shutdown(socket.SHUT_WR)
            return
        try:
            opening.accept()
            await loop.sock_sendall(connection, opening.data_to_send())
        except BaseException:
            self._dialler.net.close(flow)
            raise
        framing = (len(request.first), request.body_bytes) if request.first else None
        self._dialler.net.splice(flow, connection, request.first + opening.rest(), framing)
