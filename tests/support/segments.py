"""IP packets in a few lines of Python: built and taken apart naively, for tests."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


def checksum(data: bytes) -> int:
    """RFC 1071, one word at a time."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    a, b = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    if len(a) == 4:
        return a + b + struct.pack("!BBH", 0, protocol, length)
    return a + b + struct.pack("!IHBB", length, 0, 0, protocol)


def ip(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    ident: int = 0,
    fragment: int = 0,
) -> bytes:
    """One IPv4 or IPv6 packet; `fragment` is IPv4's field of flags and offset."""
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if a.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl)
        return head + a.packed + b.packed + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, fragment, ttl, protocol, 0)
    head += a.packed + b.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def options(
    *,
    mss: int | None = None,
    wscale: int | None = None,
    sack_ok: bool = False,
    ts: tuple[int, int] | None = None,
    sacks: tuple[tuple[int, int], ...] = (),
    raw: bytes = b"",
) -> bytes:
    """TCP options, padded with NOPs in front of each as everybody does."""
    out = b""
    if mss is not None:
        out += struct.pack("!BBH", 2, 4, mss)
    if sack_ok:
        out += b"\1\1\4\2"
    if ts is not None:
        out += b"\1\1" + struct.pack("!BBII", 8, 10, ts[0] & 0xFFFFFFFF, ts[1] & 0xFFFFFFFF)
    if wscale is not None:
        out += struct.pack("!BBBB", 1, 3, 3, wscale)
    if sacks:
        out += b"\1\1" + struct.pack("!BB", 5, 2 + 8 * len(sacks))
        for start, end in sacks:
            out += struct.pack("!II", start & 0xFFFFFFFF, end & 0xFFFFFFFF)
    out += raw
    return out + b"\1" * (-len(out) % 4)


def tcp(
    source: tuple[str, int],
    destination: tuple[str, int],
    flags: int,
    seq: int,
    ack: int = 0,
    payload: bytes = b"",
    *,
    window: int = 65535,
    opts: bytes = b"",
    ttl: int = 64,
    urgent: int = 0,
) -> bytes:
    """One TCP packet with right checksums."""
    head = struct.pack(
        "!HHIIBBHHH",
        source[1],
        destination[1],
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF,
        (20 + len(opts)) // 4 << 4,
        flags,
        window,
        0,
        urgent,
    )
    body = head + opts + payload
    value = checksum(pseudo(source[0], destination[0], TCP, len(body)) + body)
    body = body[:16] + struct.pack("!H", value) + body[18:]
    return ip(source[0], destination[0], TCP, body, ttl=ttl)


def udp(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """The UDP part alone, checksummed; wrap it with ip()."""
    body = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    value = checksum(pseudo(source[0], destination[0], UDP, len(body)) + body) or 0xFFFF
    return body[:6] + struct.pack("!H", value) + body[8:]


def udp_packet(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    return ip(source[0], destination[0], UDP, udp(source, destination, payload))


def icmp(source: str, destination: str, kind: int, code: int, rest: bytes) -> bytes:
    """An ICMP or ICMPv6 packet; `rest` begins with the four bytes behind the checksum."""
    six = ":" in source
    body = struct.pack("!BBH", kind, code, 0) + rest
    prefix = pseudo(source, destination, ICMPV6, len(body)) if six else b""
    body = body[:2] + struct.pack("!H", checksum(prefix + body)) + body[4:]
    return ip(source, destination, ICMPV6 if six else ICMP, body)


@dataclass(frozen=True)
class Packet:
    """What a packet says; raises AssertionError for one that is not right."""

    source: str
    destination: str
    protocol: int
    ttl: int
    payload: bytes
    fragment: int = 0
    ident: int = 0


@dataclass(frozen=True)
class Segment:
    source: tuple[str, int]
    destination: tuple[str, int]
    flags: int
    seq: int
    ack: int
    window: int
    payload: bytes
    mss: int | None = None
    wscale: int | None = None
    sack_ok: bool = False
    ts: tuple[int, int] | None = None
    sacks: tuple[tuple[int, int], ...] = field(default=())


def parse(data: bytes) -> Packet:
    if data[0] >> 4 == 4:
        assert data[0] == 0x45
        assert checksum(data[:20]) == 0
        total, ident, fragment = struct.unpack("!HHH", data[2:8])
        assert total == len(data)
        a, b = ipaddress.ip_address(data[12:16]), ipaddress.ip_address(data[16:20])
        return Packet(str(a), str(b), data[9], data[8], data[20:], fragment, ident)
    assert data[0] >> 4 == 6
    assert struct.unpack("!H", data[4:6])[0] == len(data) - 40
    source, destination = ipaddress.ip_address(data[8:24]), ipaddress.ip_address(data[24:40])
    return Packet(str(source), str(destination), data[6], data[7], data[40:])


def parse_tcp(data: bytes) -> Segment:
    p = parse(data)
    assert p.protocol == TCP
    body = p.payload
    assert checksum(pseudo(p.source, p.destination, TCP, len(body)) + body) == 0
    sport, dport, seq, ack, offset, flags, window, _, _ = struct.unpack("!HHIIBBHHH", body[:20])
    at, end = 20, (offset >> 4) * 4
    found: dict[str, object] = {}
    while at < end:
        kind = body[at]
        if kind == 1:
            at += 1
            continue
        if kind == 0:
            break
        size = body[at + 1]
        value = body[at + 2 : at + size]
        if kind == 2:
            found["mss"] = struct.unpack("!H", value)[0]
        elif kind == 3:
            found["wscale"] = value[0]
        elif kind == 4:
            found["sack_ok"] = True
        elif kind == 5:
            words = struct.unpack(f"!{len(value) // 4}I", value)
            found["sacks"] = tuple(zip(words[::2], words[1::2], strict=True))
        elif kind == 8:
            found["ts"] = struct.unpack("!II", value)
        at += size
    return Segment(
        (p.source, sport), (p.destination, dport), flags, seq, ack, window, body[end:],
        **found,  # type: ignore[arg-type]
    )  # fmt: skip
