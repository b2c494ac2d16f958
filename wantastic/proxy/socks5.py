"""SOCKS5, the server's side of one control connection (RFC 1928, 1929); sans-IO.

    methods --no authentication chosen--> request --whole--> WAITING --accept()--> OPEN
       |                                     ^                   |
       +--user/password chosen--> login -----+                   +----refuse()---> CLOSED

Every answer is taken with data_to_send(). No message is longer than 513 bytes, so a
client can make us hold no more than that before WAITING; afterwards the caller stops
reading until it has answered.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import IntEnum

from wantastic.proxy.credentials import Credentials
from wantastic.proxy.opening import Opening, State
from wantastic.proxy.target import Target, parse_host

VERSION = 5
LOGIN_VERSION = 1
NO_AUTHENTICATION, USER_PASSWORD, NONE_ACCEPTABLE = 0, 2, 0xFF
IPV4, DOMAIN, IPV6 = 1, 3, 4


class Command(IntEnum):
    """What a client may ask for (RFC 1928 section 4)."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Reply(IntEnum):
    """How a request ended (RFC 1928 section 6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. For UDP_ASSOCIATE the target is where the client will send from;
    all zero, or port 0, means that it does not know yet."""

    command: Command
    target: Target


class NeedMore(Exception):
    """The message is not whole yet."""


class Malformed(Exception):
    """No SOCKS5 client sends this; `reply` is what it gets, None for silence."""

    def __init__(self, reply: Reply | None = None) -> None:
        super().__init__()
        self.reply = reply


class Socks5Server(Opening):
    """One control connection."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        super().__init__(credentials)
        self._step = self._methods

    def receive(self, data: bytes) -> Request | None:
        """Take bytes from the client; return its request once it is whole."""
        if not self._keep(data):
            return None
        try:
            while True:
                request = self._step()
                if request is not None:
                    self._state = State.WAITING
                    return request
        except NeedMore:
            return None
        except Malformed as error:
            if error.reply is not None:
                self._answer(error.reply, None)
            self._close()
            return None

    def accept(self, bound: Target) -> None:
        """Say that the request succeeded: from here on the bytes are the target's."""
        assert self._state is State.WAITING, self._state
        self._answer(Reply.SUCCEEDED, bound)
        self._state = State.OPEN

    def refuse(self, reply: Reply) -> None:
        """Say why the request failed. Close when data_to_send() is sent."""
        assert self._state is State.WAITING, self._state
        self._answer(reply, None)
        self._close()

    def _take(self, count: int) -> bytes:
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def _peek(self, count: int) -> bytearray:
        if len(self._received) < count:
            raise NeedMore
        return self._received

    def _methods(self) -> Request | None:
        head = self._peek(1)
        if head[0] != VERSION:
            raise Malformed
        count = self._peek(2)[1]
        offered = bytes(self._peek(2 + count)[2 : 2 + count])
        self._take(2 + count)
        wanted = USER_PASSWORD if self._credentials else NO_AUTHENTICATION
        if wanted not in offered:
            self._to_send += bytes((VERSION, NONE_ACCEPTABLE))
            raise Malformed
        self._to_send += bytes((VERSION, wanted))
        self._step = self._login if self._credentials else self._request
        return None

    def _login(self) -> Request | None:
        if self._peek(1)[0] != LOGIN_VERSION:
            raise Malformed
        user_length = self._peek(2)[1]
        password_length = self._peek(3 + user_length)[2 + user_length]
        end = 3 + user_length + password_length
        message = bytes(self._peek(end)[:end])
        self._take(end)
        user, password = message[2 : 2 + user_length], message[3 + user_length :]
        assert self._credentials is not None
        good = self._credentials.match(user, password)
        self._to_send += bytes((LOGIN_VERSION, 0 if good else 1))
        if not good:
            raise Malformed
        self._step = self._request
        return None

    def _request(self) -> Request | None:
        if self._peek(1)[0] != VERSION:
            raise Malformed
        command = self._peek(4)[1]
        target, end = parse_address(bytes(self._received[: 4 + 1 + 255 + 2]), 3)
        self._take(end)
        if command not in (Command.CONNECT, Command.UDP_ASSOCIATE):
            raise Malformed(Reply.COMMAND_NOT_SUPPORTED)
        if command == Command.CONNECT and target.port == 0:
            raise Malformed(Reply.GENERAL_FAILURE)
        return Request(Command(command), target)

    def _answer(self, reply: Reply, bound: Target | None) -> None:
        self._to_send += bytes((VERSION, reply, 0)) + format_address(bound)


def parse_address(message: bytes, at: int) -> tuple[Target, int]:
    """Parse ATYP, address and port at offset `at`; return them and the offset behind.

    Raises NeedMore when the message ends early, Malformed otherwise.
    """
    if len(message) <= at:
        raise NeedMore
    kind = message[at]
    at += 1
    if kind in (IPV4, IPV6):
        length = 4 if kind == IPV4 else 16
    elif kind == DOMAIN:
        if len(message) <= at:
            raise NeedMore
        length = message[at]
        at += 1
    else:
        raise Malformed(Reply.ADDRESS_TYPE_NOT_SUPPORTED)
    end = at + length + 2
    if len(message) < end:
        raise NeedMore
    raw, port = message[at : at + length], int.from_bytes(message[end - 2 : end], "big")
    if kind != DOMAIN:
        return Target(str(ipaddress.ip_address(raw)), port), end
    try:
        return Target(parse_host(raw.decode("ascii")), port), end
    except ValueError:
        raise Malformed(Reply.GENERAL_FAILURE) from None


def format_address(target: Target | None) -> bytes:
    """Return ATYP, address and port; None and names become 0.0.0.0:0 (a reply needs one)."""
    address = target.address if target else None
    if target is None or address is None:
        return bytes((IPV4, 0, 0, 0, 0, 0, 0))
    kind = IPV4 if address.version == 4 else IPV6
    return bytes((kind,)) + address.packed + target.port.to_bytes(2, "big")


def parse_datagram(message: bytes) -> tuple[Target, bytes] | None:
    """Parse a UDP request header (RFC 1928 section 7); None for what must be dropped.

    Fragments are dropped, as the RFC allows: no client in use sends them.
    """
    if len(message) < 4 or message[:2] != b"\0\0" or message[2] != 0:
        return None
    try:
        target, at = parse_address(message, 3)
    except (NeedMore, Malformed):
        return None
    return (target, message[at:]) if target.port else None


def format_datagram(source: Target, payload: bytes) -> bytes:
    """Return `payload` with the UDP header that names its source, an address."""
    return b"\0\0\0" + format_address(source) + payload
