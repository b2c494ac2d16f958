"""The cross-platform WireGuard control protocol as bytes; no I/O.

    get=1\\n\\n                          ->  key=value lines, errno=0, empty line
    set=1\\n key=value lines \\n         ->  errno=N, empty line

Lines are `key=value`, an empty line ends a request, keys are hexadecimal; lines after
`public_key` belong to that peer. A set request is read to its end and checked before
any of it is applied, so that a wrong line changes nothing.
See https://www.wireguard.com/xplatform/.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from wantastic.config.keys import KEY_BYTES, NO_KEY
from wantastic.config.values import is_numeric, parse_host_port, parse_network

if TYPE_CHECKING:
    from cext.engine.engine import DeviceStatus, PeerStatus

# `wg` writes a whole device in one request: room for some ten thousand peers.
MAX_REQUEST_BYTES = 8 << 20
MAX_LINE_BYTES = 512
# Shorter than a key, which has digits or capitals besides.
_NAME = re.compile("[a-z_]{1,32}")


@dataclass(frozen=True, slots=True)
class Get:
    """The device's state is asked for."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A request that cannot be carried out, for the errno given; `fatal` ends the stream."""

    errno: int
    line: str
    fatal: bool = False


@dataclass(slots=True)
class PeerSet:
    """One peer of a set request; None and empty leave things as they are."""

    public_key: bytes
    remove: bool = False
    update_only: bool = False
    preshared_key: bytes | None = field(default=None, repr=False)
    endpoint: tuple[str, int] | None = None
    keepalive_s: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: list[str] = field(default_factory=list)
    removed_allowed_ips: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Set:
    """A set request; `private_key` all zero removes the key."""

    private_key: bytes | None = field(default=None, repr=False)
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: list[PeerSet] = field(default_factory=list)


Request: TypeAlias = Get | Set | Bad


def _key(text: str) -> bytes:
    if len(text) != 2 * KEY_BYTES:
        raise ValueError("not a key")
    key = bytes.fromhex(text)
    # fromhex() skips blanks.
    if len(key) != KEY_BYTES:
        raise ValueError("not a key")
    return key


def _number(text: str, top: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > top:
        raise ValueError("not a number in range")
    return int(text)


def _true(text: str) -> bool:
    if text != "true":
        raise ValueError("only true is possible")
    return True


def _endpoint(text: str) -> tuple[str, int]:
    place = parse_host_port(text, None)
    if not is_numeric(place.host):
        raise ValueError("not numeric")
    return place.host, place.port


# -- each line of a set request: name -> what it does --


def _private_key(request: Set, value: str) -> None:
    request.private_key = _key(value)


def _listen_port(request: Set, value: str) -> None:
    request.listen_port = _number(value, 65535)


def _fwmark(request: Set, value: str) -> None:
    request.fwmark = _number(value, 2**32 - 1)


def _replace_peers(request: Set, value: str) -> None:
    request.replace_peers = _true(value)


def _public_key(request: Set, value: str) -> None:
    request.peers.append(PeerSet(_key(value)))


def _remove(peer: PeerSet, value: str) -> None:
    peer.remove = _true(value)


def _update_only(peer: PeerSet, value: str) -> None:
    peer.update_only = _true(value)


def _preshared_key(peer: PeerSet, value: str) -> None:
    peer.preshared_key = _key(value)


def _peer_endpoint(peer: PeerSet, value: str) -> None:
    peer.endpoint = _endpoint(value)


def _keepalive(peer: PeerSet, value: str) -> None:
    peer.keepalive_s = _number(value, 65535)


def _replace_allowed_ips(peer: PeerSet, value: str) -> None:
    peer.replace_allowed_ips = _true(value)
    peer.allowed_ips.clear()
    peer.removed_allowed_ips.clear()


def _allowed_ip(peer: PeerSet, value: str) -> None:
    removed = value.startswith("-")
    network = str(parse_network(value[1:] if removed else value.removeprefix("+")))
    into, other = peer.allowed_ips, peer.removed_allowed_ips
    if removed:
        into, other = other, into
    if network in other:
        other.remove(network)
    into.append(network)


def _protocol_version(peer: PeerSet, value: str) -> None:
    if value != "1":
        raise ValueError("only version 1 exists")


DEVICE_LINES: dict[str, Callable[[Set, str], None]] = {
    "private_key": _private_key,
    "listen_port": _listen_port,
    "fwmark": _fwmark,
    "replace_peers": _replace_peers,
}
PEER_LINES: dict[str, Callable[[PeerSet, str], None]] = {
    "remove": _remove,
    "update_only": _update_only,
    "preshared_key": _preshared_key,
    "endpoint": _peer_endpoint,
    "persistent_keepalive_interval": _keepalive,
    "replace_allowed_ips": _replace_allowed_ips,
    "allowed_ip": _allowed_ip,
    "protocol_version": _protocol_version,
}


def told(name: str) -> str:
    """Return what may be told of a refused line: its name, unless that may be a key itself."""
    return name if _NAME.fullmatch(name) else "no name of a setting"


def parse_set(lines: list[str]) -> Set | Bad:
    """Return what a set request's lines ask for, without the `set=1`."""
    request = Set()
    for line in lines:
        name, equals, value = line.partition("=")
        try:
            if not equals:
                return Bad(errno.EPROTO, told(name))
            if name == "public_key":
                _public_key(request, value)
            elif request.peers and name in PEER_LINES:
                PEER_LINES[name](request.peers[-1], value)
            elif not request.peers and name in DEVICE_LINES:
                DEVICE_LINES[name](request, value)
            else:
                return Bad(errno.EINVAL, told(name))
        except ValueError:
            return Bad(errno.EINVAL, told(name))
    return request


class Decoder:
    """Cuts a stream into requests, however it is split."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._bytes = 0

    def feed(self, data: bytes) -> Iterator[Request]:
        """Yield the requests that `data` completes."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._bytes += end + 1
            if len(line) > MAX_LINE_BYTES or self._bytes > MAX_REQUEST_BYTES:
                yield Bad(errno.EPROTO, "too long", fatal=True)
                return
            if line:
                self._lines.append(line.decode("ascii", "replace"))
            elif self._lines:
                lines, self._lines, self._bytes = self._lines, [], 0
                yield self._request(lines)
        if len(self._buffer) > MAX_LINE_BYTES:
            yield Bad(errno.EPROTO, "too long", fatal=True)

    @staticmethod
    def _request(lines: list[str]) -> Request:
        if lines == ["get=1"]:
            return Get()
        if lines[0] == "set=1":
            return parse_set(lines[1:])
        return Bad(errno.EPROTO, told(lines[0].partition("=")[0]), fatal=True)


def render_errno(code: int) -> bytes:
    """Return the end of an answer."""
    return b"errno=%d\n\n" % -code if code else b"errno=0\n\n"


def _render_peer(peer: PeerStatus) -> Iterator[str]:
    yield f"public_key={peer.public_key.hex()}"
    yield f"preshared_key={peer.preshared_key.hex()}"
    yield "protocol_version=1"
    if peer.endpoint:
        host, zone = peer.endpoint.host, peer.endpoint.scope_id
        host = f"[{host}%{zone}]" if zone else f"[{host}]" if ":" in host else host
        yield f"endpoint={host}:{peer.endpoint.port}"
    seconds, rest_ns = divmod(peer.last_handshake_unix_ns, 10**9)
    yield f"last_handshake_time_sec={seconds}"
    yield f"last_handshake_time_nsec={rest_ns}"
    yield f"tx_bytes={peer.tx_bytes}"
    yield f"rx_bytes={peer.rx_bytes}"
    yield f"persistent_keepalive_interval={peer.keepalive_s}"
    for network in peer.allowed_ips:
        yield f"allowed_ip={network}"


def render_get(status: DeviceStatus, configured_port: int) -> bytes:
    """Return the answer to a get request; a device that is down shows its configured port."""
    lines = []
    if status.private_key and status.private_key != NO_KEY:
        lines.append(f"private_key={status.private_key.hex()}")
    if port := status.listen_port or configured_port:
        lines.append(f"listen_port={port}")
    if status.fwmark:
        lines.append(f"fwmark={status.fwmark}")
    for peer in status.peers:
        lines += _render_peer(peer)
    text = "".join(f"{line}\n" for line in lines)
    return text.encode() + render_errno(0)
