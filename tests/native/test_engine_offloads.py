"""Segmentation and coalescing against a model, and against each other."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.engine import testing as engine
from tests.support import packets
from tests.support.packets import (
    ACK,
    CWR,
    ECE,
    FIN,
    FINISHED,
    GSO_TCPV4,
    GSO_UDP_L4,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    URG,
    Header,
    Segment,
)

V6 = {"source": "fd00::1", "destination": "fd00::2"}
TIMESTAMPS = b"\x01\x01\x08\x0a" + bytes(8)
HOP_BY_HOP = bytes([TCP, 0]) + bytes(6)


def cut(segment: Segment, segment_len: int) -> list[bytes]:
    packet, header = segment.unfinished(segment_len)
    result = engine.segment(packet, header)
    assert isinstance(result, list), result
    return result


def payload(n: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(n)


CUTS = [
    (1, Segment(payload=payload(3000)), 1000),
    (2, Segment(payload=payload(3001)), 1000),
    (3, Segment(payload=payload(1)), 1000),
    (4, Segment(payload=payload(61000), options=TIMESTAMPS), 1368),
    (5, Segment(payload=payload(2999), flags=ACK | PSH | FIN), 1000),
    (6, Segment(payload=payload(2999), flags=ACK | CWR | ECE), 1000),
    (7, Segment(payload=payload(2999), flags=ACK | URG, urgent=7), 1000),
    (8, Segment(payload=payload(2999), ip_options=b"\x01" * 12), 777),
    (9, Segment(payload=payload(2999), identification=65535, dont_fragment=False), 777),
    (10, Segment(payload=payload(2999), sequence=2**32 - 5), 777),
    (11, Segment(payload=payload(2999), **V6), 777),
    (12, Segment(payload=payload(2999), extensions=HOP_BY_HOP, **V6), 777),
    (13, Segment(payload=payload(2999), protocol=UDP), 777),
    (14, Segment(payload=payload(64 * 40), protocol=UDP, tos=1, **V6), 40),
    (15, Segment(payload=payload(2999), tos=2, ttl=3, flow_label=0xABCDE, **V6), 1),
]


@pytest.mark.parametrize(("row", "segment", "segment_len"), CUTS)
def test_segmentation_table(row: int, segment: Segment, segment_len: int) -> None:
    expected = [bytes(piece) for piece in segment.cut(segment_len)]
    assert cut(segment, segment_len) == expected, row


def test_a_lone_packet_gets_its_checksum() -> None:
    for segment in (Segment(payload=b"abc"), Segment(protocol=UDP, **V6)):
        packet, header = segment.unfinished()
        assert engine.segment(packet, header) == [bytes(segment)]


def test_a_finished_packet_passes_as_it_is() -> None:
    assert engine.segment(bytes(Segment(payload=b"q")), FINISHED) == [bytes(Segment(payload=b"q"))]


SUPER, GOOD = Segment(payload=payload(3000)).unfinished(1000)
BAD_HEADERS: list[tuple[int, bytes, Header]] = [
    (1, SUPER[:19], GOOD),
    (2, SUPER, (1, 9, 40, 1000, 20, 16)),  # no such type
    (3, SUPER, (1, 4, 40, 1000, 20, 16)),  # the other family
    (4, SUPER, (1, 1, 40, 0, 20, 16)),  # no segment length
    (5, SUPER, (1, 1, 40, 1000, 24, 16)),  # not where the IP header ends
    (6, SUPER, (0, 1, 40, 1000, 20, 16)),  # nothing to finish
    (7, SUPER[:40], GOOD),  # no payload
    (8, SUPER[:30], GOOD),  # half a TCP header
    (9, SUPER[:32] + b"\x40" + SUPER[33:], GOOD),  # data offset too small
    (10, SUPER[:40], (1, 0, 0, 0, 39, 16)),  # checksum behind the end
    (11, SUPER, (1, 1, 40, 1000, 65535, 65535)),
    (12, b"\x55" + SUPER[1:], GOOD),
]


@pytest.mark.parametrize(("row", "packet", "header"), BAD_HEADERS)
def test_bad_vnet_headers_are_dropped(row: int, packet: bytes, header: Header) -> None:
    assert engine.segment(packet, header) == "host_bad_vnet_header", row


@given(st.binary(max_size=200), st.tuples(*[st.integers(0, 255)] * 2, *[st.integers(0, 300)] * 4))
def test_segmentation_survives_anything(packet: bytes, header: Header) -> None:
    engine.segment(packet, header)


@st.composite
def super_packets(draw: st.DrawFn) -> tuple[Segment, int]:
    tcp = draw(st.booleans())
    v6 = draw(st.booleans())
    segment_len = draw(st.integers(1, 1400))
    length = draw(st.integers(1, min(segment_len * 60, 60000)))
    segment = Segment(
        protocol=TCP if tcp else UDP,
        payload=payload(length, draw(st.integers(0, 9))),
        flags=ACK | draw(st.sampled_from([0, PSH, ECE, PSH | ECE])),
        sequence=draw(st.integers(0, 2**32 - 1)),
        window=draw(st.integers(0, 65535)),
        options=draw(st.sampled_from([b"", TIMESTAMPS])) if tcp else b"",
        identification=draw(st.integers(0, 65535)),
        dont_fragment=draw(st.booleans()),
        tos=draw(st.integers(0, 255)),
        ttl=draw(st.integers(1, 255)),
        flow_label=draw(st.integers(0, 2**20 - 1)) if v6 else 0,
        **(V6 if v6 else {}),
    )
    return segment, segment_len


@given(super_packets())
def test_segmentation_equals_the_model(case: tuple[Segment, int]) -> None:
    segment, segment_len = case
    assert cut(segment, segment_len) == [bytes(piece) for piece in segment.cut(segment_len)]


@given(super_packets())
@settings(deadline=None)
def test_cut_then_joined_is_the_same(case: tuple[Segment, int]) -> None:
    segment, segment_len = case
    pieces = cut(segment, segment_len)
    joined = engine.coalesce(pieces)
    assert len(joined) == 1
    header, packet, count = joined[0]
    assert count == len(pieces)
    if count == 1:
        assert (header, packet) == (FINISHED, pieces[0])
    else:
        assert (packet, header) == segment.unfinished(segment_len)


def counts(pieces: list[Segment | bytes]) -> list[int]:
    """Join, check that cutting gives the packets back, return how many each group has."""
    raw = [bytes(piece) for piece in pieces]
    joined = engine.coalesce(raw)
    again: list[bytes] = []
    for header, packet, count in joined:
        back = engine.segment(packet, header)
        assert isinstance(back, list)
        assert len(back) == count
        again += back
    assert sorted(again) == sorted(raw)
    return [count for _, _, count in joined]


def flow(n: int, size: int = 100, **changes: object) -> list[Segment]:
    whole = replace(Segment(payload=payload(n * size)), **changes)  # type: ignore[arg-type]
    return whole.cut(size)


def corrupt(piece: Segment) -> bytes:
    raw = bytes(piece)
    return raw[:-1] + bytes([raw[-1] ^ 0x55])


def with_(pieces: list[Segment], i: int, **changes: object) -> list[Segment | bytes]:
    changed = replace(pieces[i], **changes)  # type: ignore[arg-type]
    return [*pieces[:i], changed, *pieces[i + 1 :]]


F = flow(4)
U = flow(4, protocol=UDP)
OTHER = flow(4, source_port=40001)
JOINS: list[tuple[int, list[Segment | bytes], list[int]]] = [
    (1, [*F], [4]),
    (2, [F[0], F[2], F[1], F[3]], [1, 1, 1, 1]),  # nothing follows on
    (3, [F[0], F[1], F[3]], [2, 1]),
    (4, with_(F, 1, flags=ACK | PSH), [2, 2]),
    (5, with_(F, 1, flags=ACK | FIN), [1, 1, 2]),
    (6, with_(F, 1, flags=ACK | URG), [1, 1, 2]),
    (7, with_(F, 1, flags=ACK | CWR), [1, 1, 2]),
    (8, with_(F, 1, flags=ACK | ECE), [1, 1, 2]),
    (9, with_(F, 1, flags=SYN), [1, 1, 2]),
    (10, with_(F, 1, flags=RST | ACK), [1, 1, 2]),
    (11, with_(F, 1, flags=0), [1, 1, 2]),
    (12, with_(F, 1, window=501), [1, 1, 2]),
    (13, with_(F, 1, acknowledgement=8), [1, 1, 2]),
    (14, with_(F, 1, tos=1), [1, 1, 2]),
    (15, with_(F, 1, ttl=63), [1, 1, 2]),
    (16, with_(F, 1, dont_fragment=False), [1, 1, 2]),
    (17, with_(F, 1, options=TIMESTAMPS), [1, 1, 2]),
    (18, with_(F, 1, payload=b"short"), [2, 2]),
    (19, with_(F, 1, payload=bytes(101)), [1, 1, 2]),
    (20, with_(F, 1, payload=b""), [1, 1, 2]),
    (21, with_(F, 1, ip_options=b"\x01" * 4), [1, 1, 2]),
    (22, with_(F, 1, urgent=3), [1, 1, 2]),
    (23, [F[0], OTHER[0], F[1], OTHER[1]], [2, 2]),
    (24, [corrupt(F[0]), *F[1:]], [1, 3]),
    (25, [F[0], corrupt(F[1]), F[2], F[3]], [1, 1, 2]),
    (26, [F[0], F[1], corrupt(F[2]), F[3]], [2, 1, 1]),
    (27, [*U], [4]),
    (28, [U[0], corrupt(U[1]), U[2], U[3]], [1, 1, 2]),
    (29, [*flow(70, 10, protocol=UDP)], [64, 6]),
    (30, [*flow(60, 1400)], [46, 14]),
    (31, [*flow(4, dont_fragment=False)], [4]),
    (32, with_(flow(4, dont_fragment=False), 1, identification=9), [1, 1, 2]),
    (33, [*flow(4, **V6)], [4]),
    (34, with_(flow(4, **V6), 1, flow_label=1), [1, 1, 2]),
    (35, [*flow(4, extensions=HOP_BY_HOP, **V6)], [1, 1, 1, 1]),
    (36, [bytes(U[0])[:26] + b"\0\0" + bytes(U[0])[28:], *U[1:]], [1, 3]),  # no UDP checksum
    (37, [bytes(F[0])[:10] + b"\0\1" + bytes(F[0])[12:], *F[1:]], [1, 3]),  # bad IP checksum
    (38, [b"", b"\x45", b"x" * 30, *F], [1, 1, 1, 4]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "pieces", "expected"), JOINS)
def test_coalescing_table(row: int, pieces: list[Segment | bytes], expected: list[int]) -> None:
    if row == 38:
        joined = engine.coalesce([bytes(p) for p in pieces])
        assert [count for _, _, count in joined] == expected
    else:
        assert counts(pieces) == expected, row


def test_more_flows_than_can_be_open_stay_apart() -> None:
    flows = [flow(3, source_port=1000 + i) for i in range(20)]
    mixed: list[Segment | bytes] = [f[i] for i in range(3) for f in flows]
    assert sum(counts(mixed)) == 60
    grouped: list[Segment | bytes] = [piece for f in flows for piece in f]
    assert counts(grouped) == [3] * 20


def test_without_an_offload_nothing_is_joined() -> None:
    raw = [bytes(p) for p in [*F, *U]]
    assert [c for *_, c in engine.coalesce(raw, tcp=False, udp=True)] == [1, 1, 1, 1, 4]
    assert [c for *_, c in engine.coalesce(raw, tcp=True, udp=False)] == [4, 1, 1, 1, 1]
    kinds = {header[1] for header, *_ in engine.coalesce(raw)}
    assert kinds == {GSO_TCPV4, GSO_UDP_L4}


@st.composite
def traffic(draw: st.DrawFn) -> list[bytes]:
    """Pieces of a few flows, now and then changed, dropped, broken or swapped."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    streams: list[list[bytes]] = []
    for i in range(rng.randint(1, 12)):
        udp = rng.random() < 0.3
        whole = Segment(
            protocol=UDP if udp else TCP,
            source_port=1000 + i,
            payload=rng.randbytes(rng.randint(1, 2000)),
            identification=rng.randint(0, 65535),
            dont_fragment=rng.random() < 0.5,
            flags=ACK | (PSH if rng.random() < 0.5 else 0),
            **(V6 if rng.random() < 0.5 else {}),
        )
        out = []
        for piece in whole.cut(rng.randint(50, 500)):
            dice = rng.random()
            if dice < 0.05:
                out.append(corrupt(piece))
            elif dice < 0.10:
                out.append(bytes(replace(piece, window=rng.randint(0, 3))))
            elif dice < 0.13:
                out.append(bytes(replace(piece, flags=ACK | FIN)))
            elif dice > 0.03 + 0.12:
                out.append(bytes(piece))
        streams.append(out)
    mixed = []
    while any(streams):
        stream = rng.choice([s for s in streams if s])
        run = rng.randint(1, 6)
        mixed += stream[:run]
        del stream[:run]
    return mixed[:256]


def transport_is_right(packet: bytes) -> bool:
    if packet[0] >> 4 == 4:
        l4, protocol, addresses = packet[20:], packet[9], packet[12:20]
        pseudo = addresses + bytes([0, protocol]) + len(l4).to_bytes(2, "big")
    else:
        l4, protocol, addresses = packet[40:], packet[6], packet[8:40]
        pseudo = addresses + len(l4).to_bytes(4, "big") + bytes([0, 0, 0, protocol])
    return packets.checksum(pseudo + l4) == 0


def flow_of(packet: bytes) -> bytes:
    if packet[0] >> 4 == 4:
        return packet[12:24] + packet[9:10]
    return packet[8:44] + packet[6:7]


def without_meaningless_id(packet: bytes) -> bytes:
    """With DF the identification means nothing, and the header checksum goes with it."""
    if packet[0] >> 4 == 4 and packet[6] & 0x40:
        return packet[:4] + b"--" + packet[6:10] + b"--" + packet[12:]
    return packet


@given(traffic())
@settings(deadline=None)
def test_coalescing_loses_nothing_and_keeps_each_flows_order(mixed: list[bytes]) -> None:
    again: list[bytes] = []
    for header, packet, count in engine.coalesce(mixed):
        back = engine.segment(packet, header)
        assert isinstance(back, list)
        assert len(back) == count
        if count > 1:
            # The host believes a super-packet's checksums.
            assert all(transport_is_right(piece) for piece in back)
        again += back
    for key in {flow_of(packet) for packet in mixed}:
        before = [without_meaningless_id(p) for p in mixed if flow_of(p) == key]
        after = [without_meaningless_id(p) for p in again if flow_of(p) == key]
        assert before == after


ECN = [
    (1, 0b00, 0b00),
    (2, 0b01, 0b01),
    (3, 0b10, 0b10),
    (4, 0b11, 0b10),  # RFC 3168: the inner mark is not shown outside
    (5, 0xB8 | 0b10, 0b10),  # nor is the DSCP
]


@pytest.mark.parametrize("family", [{}, V6])
@pytest.mark.parametrize(("row", "inner", "outer"), ECN)
def test_outer_tos(row: int, inner: int, outer: int, family: dict[str, str]) -> None:
    assert engine.outer_tos(bytes(Segment(tos=inner, **family))) == outer, row


@pytest.mark.parametrize("family", [{}, V6])
@pytest.mark.parametrize(("inner", "after"), [(0, 0), (1, 3), (2, 3), (3, 3), (0x29, 0x2B)])
def test_an_outer_congestion_mark_is_carried_inside(
    inner: int, after: int, family: dict[str, str]
) -> None:
    for seed in range(20):
        packet = Segment(tos=inner, identification=seed * 3277, **family)
        assert engine.take_congestion(bytes(packet)) == bytes(replace(packet, tos=after))
