"""`wantasticd nc HOST PORT`: standard input and output as one connection in the tunnel.

It goes through the SOCKS5 proxy of a running agent, so that
`ssh -o ProxyCommand="wantasticd nc %h %p" host` works as any user of this machine who
may use the proxy. The end of the input is passed on; the end of the other side's data
ends the program.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from wantastic.cli import exits
from wantastic.cli.args import UsageError
from wantastic.config.access import SOCKS_PORT
from wantastic.config.model import HostPort, ProxyListenConfig
from wantastic.config.values import parse_host_port
from wantastic.proxy.socks5 import Reply
from wantastic.proxy.target import Target, parse_host

READ_BYTES = 64 * 1024
TIMEOUT_S = 60.0
REASONS = {
    Reply.NOT_ALLOWED: "the proxy does not allow this destination",
    Reply.NETWORK_UNREACHABLE: "the tunnel does not lead there",
    Reply.HOST_UNREACHABLE: "there is no answer from there, or no such name",
    Reply.CONNECTION_REFUSED: "connection refused",
}


class Failed(Exception):
    """The connection cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Options:
    proxy: ProxyListenConfig
    target: Target


def parse(arguments: Sequence[str]) -> Options:
    """Return the options; UsageError, or ConfigError of a file that is wrong."""
    proxy = ProxyListenConfig(HostPort("127.0.0.1", SOCKS_PORT))
    words, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = name.lstrip("-")
        if not word.startswith("-"):
            words.append(word)
            continue
        if name not in ("config", "proxy"):
            raise UsageError(f"nc: {word[:40]} is not a flag of it")
        value = value if equals else rest.pop(0) if rest else ""
        proxy = proxy_of_file(value) if name == "config" else proxy_at(value)
    if len(words) != 2:
        raise UsageError("nc needs a host and a port: wantasticd nc 10.0.0.9 22")
    host, port = words
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise UsageError(f"nc: {port[:40]} is no port (1 to 65535)")
    try:
        return Options(proxy, Target(parse_host(host), int(port)))
    except ValueError as error:
        raise UsageError(f"nc: {host[:80]} is {error}") from None


def proxy_at(text: str) -> ProxyListenConfig:
    """Return a proxy without a password."""
    try:
        return ProxyListenConfig(parse_host_port(text, SOCKS_PORT))
    except ValueError as error:
        raise UsageError(f"nc: -proxy {error}") from None


def proxy_of_file(path: str) -> ProxyListenConfig:
    """Return the SOCKS5 proxy of an agent's configuration."""
    from wantastic.config.load import load_config

    found = load_config(path).config.proxy.socks5
    if found is None:
        raise UsageError(f"nc: {path} has no proxy.socks5")
    return found


def read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise Failed("the proxy ended the connection: user or password may be wrong")
        data += piece
    return data


def open_target(options: Options) -> socket.socket:
    """Return a connection whose bytes are the target's (RFC 1928, 1929)."""
    proxy, target = options.proxy, options.target
    place = proxy.listen
    try:
        connection = socket.create_connection((place.host, place.port), TIMEOUT_S)
    except OSError as error:
        raise Failed(f"no SOCKS5 proxy answers at {place}: {error.strerror or error}") from error
    method = 2 if proxy.user else 0
    connection.sendall(bytes((5, 1, method)))
    if read_exactly(connection, 2)[1] != method:
        raise Failed("the proxy wants a user and a password: give -config FILE")
    if proxy.user:
        user, password = proxy.user.encode(), proxy.password.encode()
        login = bytes((1, len(user))) + user + bytes((len(password),)) + password
        connection.sendall(login)
        if read_exactly(connection, 2)[1]:
            raise Failed("the proxy refuses this user and password")
    address = target.address
    if address is None:
        name = target.host.encode()
        where = bytes((3, len(name))) + name
    else:
        where = bytes((1 if address.version == 4 else 4,)) + address.packed
    connection.sendall(b"\x05\x01\x00" + where + target.port.to_bytes(2, "big"))
    _, code, _, kind = read_exactly(connection, 4)
    if code:
        reason = REASONS.get(Reply(code)) if code in set(Reply) else None
        raise Failed(f"{target}: {reason or 'the proxy failed'}")
    read_exactly(connection, 6 if kind == 1 else 18)
    connection.settimeout(None)
    return connection


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def send_input(connection: socket.socket, source: int) -> None:
    """Copy until the input ends, then say so."""
    with contextlib.suppress(OSError):
        while data := os.read(source, READ_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def carry(connection: socket.socket, source: int, sink: int) -> None:
    """Copy both ways until the connection's data ends.

    A thread for each way: either may stand still while the other one must not.
    """
    threading.Thread(target=send_input, args=(connection, source), daemon=True).start()
    while data := connection.recv(READ_BYTES):
        write_all(sink, data)


def run(arguments: Sequence[str]) -> int:
    """Run until the connection ends; return the exit status."""
    import sys

    from wantastic.config.errors import ConfigError

    try:
        with open_target(parse(arguments)) as connection:
            carry(connection, 0, 1)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return exits.CONFIG
    except (Failed, OSError) as error:
        sys.stderr.write(f"wantasticd: nc: {error}\n")
        return exits.FAILED
    return exits.OK
