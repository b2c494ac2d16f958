"""Checksum and IP header code against the plainest model of each."""

from __future__ import annotations

import platform
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cext.wire import testing as wire
from tests.support import packets
from tests.support.packets import TCP, UDP, Segment

CHECKSUMS = [
    (1, b"", "ffff"),
    (2, b"\x00\x00", "ffff"),
    (3, b"\xff\xff", "0000"),
    (4, b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7", "220d"),  # RFC 1071, section 3
    (5, b"\x01", "feff"),
    (6, b"\xff" * 65535, "00ff"),
    (7, bytes.fromhex("45000073000040004011") + b"\0\0" + bytes.fromhex("c0a80001c0a800c7"),
     "b861"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "data", "expected"), CHECKSUMS)
def test_checksum_table(row: int, data: bytes, expected: str) -> None:
    assert wire.checksum([data]).hex() == expected, row


@given(st.binary(max_size=3000), st.integers(0, 7), st.integers(0, 2**47))
def test_checksum_with_and_without_vectors(data: bytes, offset: int, total: int) -> None:
    portable, chosen, copied = wire.sums(data, offset, total)
    assert portable == chosen == copied


def test_checksum_of_every_length_that_a_packet_has() -> None:
    data = bytes((7 * i * i + 255) & 255 for i in range(1600))
    full = b"\xff" * 1600
    for size in range(1600):
        model = struct.pack("!H", packets.checksum(data[:size]))
        for sample in (data[:size], full[:size]):
            assert len(set(wire.sums(sample, size % 8))) == 1, size
        assert wire.checksum([data[:size]]) == model
    assert len(set(wire.sums(b"\xff" * 65535))) == 1


def test_vectors_are_used_where_the_cpu_has_them() -> None:
    # Under an emulator /proc/cpuinfo is about the machine that emulates.
    flags = Path("/proc/cpuinfo").read_text().split() if platform.machine() == "x86_64" else ()
    assert wire.is_wide() == ("avx2" in flags)


def test_udp_checksum_is_never_zero() -> None:
    assert wire.checksum([b"\xff\xff"], udp=True) == b"\xff\xff"


@given(st.lists(st.binary(max_size=90), max_size=4), st.integers(0, 7))
def test_checksum_equals_the_model_at_any_alignment(parts: list[bytes], offset: int) -> None:
    even = [part + b"\0" * (len(part) % 2) for part in parts[:-1]] + parts[-1:]
    expected = packets.checksum(b"".join(even))
    assert wire.checksum(even, offset) == struct.pack("!H", expected)


def test_every_length_at_every_alignment() -> None:
    data = random.Random(1).randbytes(300)
    for length in range(len(data)):
        expected = struct.pack("!H", packets.checksum(data[:length]))
        for offset in range(8):
            assert wire.checksum([data[:length]], offset) == expected, (length, offset)


@given(st.binary(max_size=3000))
def test_copy_copies_and_sums(data: bytes) -> None:
    copied, valid = wire.copy(data)
    assert copied == data
    assert valid == (packets.checksum(data) == 0)


SHAPES = [
    Segment(payload=b"x"),
    Segment(protocol=UDP, payload=b"odd"),
    Segment(source="fd00::1", destination="fd00::2", payload=b"abc"),
    Segment(source="fd00::1", destination="fd00::2", protocol=UDP),
    Segment(ip_options=b"\x01" * 8, payload=b"y" * 9),
]


@pytest.mark.parametrize("segment", SHAPES)
def test_pseudo_header(segment: Segment) -> None:
    packet = bytes(segment)
    l4 = packet[segment.l4_offset :]
    assert wire.pseudo_valid(segment.addresses, segment.protocol, l4)
    broken = l4[:-1] + bytes([l4[-1] ^ 1])
    assert not wire.pseudo_valid(segment.addresses, segment.protocol, broken)


HOP_BY_HOP = bytes([TCP, 0]) + bytes(6)
FRAGMENT_FIRST = bytes([UDP, 0, 0x00, 0x01, 0, 0, 0, 9])
FRAGMENT_LATER = bytes([UDP, 0, 0x05, 0x00, 0, 0, 0, 9])
V6 = Segment(source="fd00::1", destination="fd00::2", payload=b"abcd")

PARSES: list[tuple[int, bytes, dict[str, int] | None]] = [
    (1, b"", None),
    (2, bytes(Segment())[:19], None),
    (3, bytes(Segment())[:-1], None),
    (4, bytes(Segment()) + b"padding", {"version": 4, "total_len": 40, "l4_offset": 20}),
    (5, b"\x44" + bytes(Segment())[1:], None),
    (6, b"\x4f" + bytes(Segment())[1:], None),
    (7, b"\x55" + bytes(Segment())[1:], None),
    (8, bytes(V6), {"version": 6, "protocol": TCP, "l4_offset": 40, "total_len": 64}),
    (9, bytes(V6)[:-1], None),
    (10, bytes(Segment(**{**vars(V6), "extensions": HOP_BY_HOP, "first_extension": 0})),
     {"protocol": TCP, "l4_offset": 48}),
    (11, bytes(Segment(**{**vars(V6), "protocol": UDP, "extensions": FRAGMENT_FIRST,
                          "first_extension": 44})),
     {"protocol": UDP, "l4_offset": 48, "fragment": True, "first_fragment": True}),
    (12, bytes(Segment(**{**vars(V6), "protocol": UDP, "extensions": FRAGMENT_LATER,
                          "first_extension": 44})),
     {"fragment": True, "first_fragment": False}),
    (13, bytes(Segment(**{**vars(V6), "extensions": bytes([0, 0] + [0] * 6) * 9,
                          "first_extension": 0})), None),
    (14, bytes(Segment(**{**vars(V6), "extensions": bytes([TCP, 200]) + bytes(6),
                          "first_extension": 0})), None),
]  # fmt: skip


@pytest.mark.parametrize(("row", "packet", "expected"), PARSES)
def test_parse_table(row: int, packet: bytes, expected: dict[str, int] | None) -> None:
    found = wire.parse(packet)
    if expected is None:
        assert found is None, row
    else:
        assert found is not None, row
        assert {k: found[k] for k in expected} == expected, row


@given(st.binary(max_size=120))
def test_parse_stays_inside_the_packet(data: bytes) -> None:
    found = wire.parse(data)
    if found:
        assert found["l4_offset"] <= found["total_len"] <= len(data)


@pytest.mark.parametrize("segment", SHAPES)
def test_unreachable_quotes_the_packet(segment: Segment) -> None:
    packet = bytes(segment)
    error = wire.unreachable(packet)
    info = wire.parse(error)
    assert info is not None
    body = error[info["l4_offset"] :]
    if segment.version == 4:
        assert body[:2] == b"\x03\x01"
        assert packets.checksum(error[:20]) == 0
        assert packets.checksum(body) == 0
        assert error[12:20] == packet[16:20] + packet[12:16]
    else:
        assert body[:2] == b"\x01\x03"
        assert wire.pseudo_valid(error[8:40], 58, body)
        assert error[8:40] == packet[24:40] + packet[8:24]
    assert body[8:] == packet


def test_too_big_says_the_mtu() -> None:
    error = wire.too_big(bytes(Segment(payload=bytes(1400))), 1280)
    assert len(error) == 576
    assert error[20:22] == b"\x03\x04"
    assert struct.unpack("!H", error[26:28]) == (1280,)
    error = wire.too_big(bytes(Segment(**{**vars(V6), "payload": bytes(1400)})), 1280)
    assert len(error) == 1280
    assert error[40:42] == b"\x02\x00"
    assert struct.unpack("!I", error[44:48]) == (1280,)


ECHO_ERROR = wire.unreachable(bytes(Segment(payload=b"x")))
SILENT = [
    (1, b""),
    (2, ECHO_ERROR),
    (3, wire.unreachable(bytes(V6))),
    (4, bytes(Segment(destination="224.0.0.1"))),
    (5, bytes(Segment(destination="255.255.255.255"))),
    (6, bytes(Segment(source="0.0.0.0"))),
    (7, bytes(Segment(source="fd00::1", destination="ff02::1"))),
    (8, bytes(Segment(source="::", destination="fd00::1"))),
    (9, bytes(Segment())[:6] + b"\x00\x10" + bytes(Segment())[8:]),
]


@pytest.mark.parametrize(("row", "packet"), SILENT)
def test_what_no_error_answers(row: int, packet: bytes) -> None:
    assert wire.unreachable(packet) == b"", row
