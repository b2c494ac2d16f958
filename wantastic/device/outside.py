"""Addresses of names, asked outside the tunnel while a default route leads into it.

getaddrinfo() cannot mark what it sends, so its questions would follow the default route
into the tunnel, which may be down for want of the answer. Here the host's own name servers
are asked over sockets that carry the mark of the tunnel's outer packets: the same policy
rule that keeps those out of the tunnel keeps these out.

    lookup_outside(name, mark) -> addresses, blocks up to LOOKUP_S

/etc/hosts comes first. A name server of this very host (dnsmasq, systemd-resolved) would ask
on without the mark, so the servers that it was given are asked instead, where the host
tells them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from wantastic.device.dns_message import AAAA, A, is_answer, is_truncated, make_query, parse_answer

HOSTS = Path("/etc/hosts")
RESOLV_CONF = Path("/etc/resolv.conf")
# What a local name server was given: systemd-resolved, OpenWrt's netifd before and since 2021.
UPSTREAM_FILES = (
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/tmp/resolv.conf.d/resolv.conf.auto"),
    Path("/tmp/resolv.conf.auto"),
)
DNS_PORT = 53
MAX_FILE_BYTES = 256 << 10
MAX_SERVERS = 3
MAX_NAME = 253
MAX_MESSAGE_BYTES = 4096
ATTEMPTS = 2
ATTEMPT_S = 1.5
LOOKUP_S = 9.0
Clock = Callable[[], float]


class Truncated(ValueError):
    """The answer did not fit into a datagram."""


def set_mark(found: socket.socket, mark: int) -> None:
    """Mark a socket's packets; PermissionError without CAP_NET_ADMIN. 0 is no mark."""
    if mark:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))


def parse_hosts(text: str, name: str) -> tuple[str, ...]:
    """Return the addresses that a hosts file has for a name."""
    found = []
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if name.lower() in (n.lower() for n in names) and _is_address(address):
            found.append(address)
    return tuple(dict.fromkeys(found))


def parse_nameservers(text: str) -> tuple[str, ...]:
    """Return the name servers of a resolv.conf, which may carry a zone."""
    words = (line.split() for line in text.splitlines())
    found = (w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and _is_address(w[1]))
    return tuple(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def nameservers(
    resolv_conf: Path = RESOLV_CONF, upstream_files: Iterable[Path] = UPSTREAM_FILES
) -> tuple[str, ...]:
    """Return whom to ask: servers elsewhere, those of this host for want of any."""
    local = parse_nameservers(_read(resolv_conf))
    for found in (local, *(parse_nameservers(_read(path)) for path in upstream_files)):
        elsewhere = [s for s in found if not ipaddress.ip_address(s).is_loopback]
        if elsewhere:
            return tuple(elsewhere[:MAX_SERVERS])
    return local[:MAX_SERVERS]


def lookup_outside(
    name: str,
    mark: int,
    *,
    servers: tuple[str, ...] | None = None,
    port: int = DNS_PORT,
    clock: Clock = time.monotonic,
) -> tuple[str, ...]:
    """Return the addresses of a name; none when nobody answered. Blocks."""
    if known := parse_hosts(_read(HOSTS), name):
        return known
    wanted = name.rstrip(".")
    labels = wanted.split(".")
    if not wanted.isascii() or len(wanted) > MAX_NAME or not all(0 < len(x) < 64 for x in labels):
        return ()
    until_s = clock() + LOOKUP_S
    for attempt in range(ATTEMPTS):
        for server in nameservers() if servers is None else servers:
            left_s = until_s - clock()
            if left_s <= 0:
                return ()
            try:
                return ask(server, port, wanted, mark, min(left_s, ATTEMPT_S * (attempt + 1)))
            except (OSError, ValueError):
                continue
    return ()


def ask(server: str, port: int, name: str, mark: int, seconds: float) -> tuple[str, ...]:
    """Return what one server knows of a name. OSError, ValueError (no usable answer)."""
    found: list[str] = []
    failure: Exception | None = None
    for kind in (A, AAAA):
        query = make_query(int.from_bytes(os.urandom(2), "big"), name, kind)
        try:
            try:
                answer = _exchange(server, port, query, mark, seconds, socket.SOCK_DGRAM)
            except Truncated:
                answer = _exchange(server, port, query, mark, seconds, socket.SOCK_STREAM)
            found += answer
        except (OSError, ValueError) as error:
            # Some servers answer one kind only; what they gave counts.
            failure = error
    if failure and not found:
        raise failure
    return tuple(dict.fromkeys(found))


def _exchange(
    server: str, port: int, query: bytes, mark: int, seconds: float, kind: socket.SocketKind
) -> list[str]:
    flags = socket.AI_NUMERICHOST
    family, _, _, _, address = socket.getaddrinfo(server, port, type=kind, flags=flags)[0]
    until_s = time.monotonic() + seconds
    # Connected: the kernel drops what comes from elsewhere.
    with socket.socket(family, kind) as asked:
        set_mark(asked, mark)
        asked.settimeout(seconds)
        asked.connect(address)
        if kind == socket.SOCK_STREAM:
            asked.sendall(len(query).to_bytes(2, "big") + query)
            size = int.from_bytes(_exactly(asked, 2, until_s), "big")
            return parse_answer(_exactly(asked, size, until_s), query)[0]
        asked.send(query)
        # A late answer to an earlier question, or somebody's guess: the right one may come.
        while not is_answer(message := _receive(asked, MAX_MESSAGE_BYTES, until_s), query):
            continue
        if is_truncated(message):
            raise Truncated
        return parse_answer(message, query)[0]


def _receive(asked: socket.socket, size: int, until_s: float) -> bytes:
    """Return what comes; TimeoutError at `until_s`, however much has come before."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    asked.settimeout(left_s)
    return asked.recv(size)


def _exactly(asked: socket.socket, size: int, until_s: float) -> bytes:
    data = b""
    while len(data) < size:
        more = _receive(asked, size - len(data), until_s)
        if not more:
            raise ConnectionResetError
        data += more
    return data
