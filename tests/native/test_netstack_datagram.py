"""IP input, reassembly, UDP, ICMP and echo of the netstack."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.netstack import testing
from cext.netstack.testing import Stack
from tests.support import segments
from tests.support.segments import ICMP, ICMPV6, UDP

US, THEM, WORLD = ("10.0.0.1", 53), ("10.0.0.9", 4000), ("192.0.2.7", 443)
US6, THEM6 = ("fd00::1", 53), ("fd00::9", 4000)
MS = 1_000_000


def stack_of(**arguments: object) -> Stack:
    arguments.setdefault("addresses", ("10.0.0.1", "fd00::1"))
    return Stack(**arguments)


# -- IP --
def broken(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


GOOD = segments.udp_packet(THEM, US, b"data")
GOOD6 = segments.udp_packet(THEM6, US6, b"data")
BAD = [
    (b"", "ns_bad_header"),
    (b"\x45", "ns_bad_header"),
    (GOOD[:19], "ns_bad_header"),
    (GOOD[:-1], "ns_bad_header"),
    (broken(GOOD, 0, 0x55), "ns_bad_header"),
    (broken(GOOD, 0, 0x44), "ns_bad_header"),
    (broken(GOOD, 8, 9), "ns_bad_checksum"),
    (broken(GOOD, 30, 9), "ns_bad_checksum"),
    (broken(GOOD6, 47, 9), "ns_bad_checksum"),
    (GOOD6[:39], "ns_bad_header"),
    (segments.ip("224.0.0.1", "10.0.0.1", UDP, b"x" * 8), "ns_bad_header"),
    (segments.ip("10.0.0.9", "255.255.255.255", UDP, b"x" * 8), "ns_bad_header"),
    (segments.ip("10.0.0.9", "127.0.0.1", UDP, b"x" * 8), "ns_bad_header"),
    (segments.ip("fd00::9", "::1", UDP, b"x" * 8), "ns_bad_header"),
    (segments.ip("fd00::9", "::", UDP, b"x" * 8), "ns_bad_header"),
    (segments.ip("::ffff:10.0.0.9", "fd00::1", UDP, b"x" * 8), "ns_bad_header"),
    (segments.ip("10.0.0.9", "10.0.0.1", UDP, b"x" * 7), "ns_bad_header"),
    (segments.ip("10.0.0.9", "10.0.0.1", 132, b"x" * 20), "ns_not_ours"),
    (segments.ip("fd00::9", "fd00::1", UDP, struct.pack("!HHHH", 5, 6, 8, 0)), "ns_bad_checksum"),
]


@pytest.mark.parametrize(("data", "reason"), BAD)
def test_bad_packets_are_counted_and_forgotten(data: bytes, reason: str) -> None:
    stack = stack_of()
    stack.input(data)
    assert stack.drops() == {reason: 1}
    assert stack.packets() == []
    assert stack.datagrams == []


def test_traceroute_gets_an_answer() -> None:
    stack = stack_of()
    for source, destination, kind in [
        (THEM, WORLD, (ICMP, 11)),
        (THEM6, ("2001:db8::1", 5), (ICMPV6, 3)),
    ]:
        data = segments.ip(source[0], destination[0], UDP,
                          segments.udp(source, destination, b"probe"), ttl=1)  # fmt: skip
        stack.input(data)
        (answer,) = stack.packets()
        p = segments.parse(answer)
        assert (p.protocol, p.payload[0]) == kind
        assert p.source in {"10.0.0.1", "fd00::1"}
        assert p.payload[8 : 8 + len(data)] == data
    stack.input(segments.ip(*("10.0.0.9", "10.0.0.1"), UDP, segments.udp(THEM, US, b"x"), ttl=1))
    assert len(stack.datagrams) == 1


# -- UDP --
@pytest.mark.parametrize(("ours", "theirs"), [(US, THEM), (US6, THEM6), (WORLD, THEM)])
def test_udp_flow(ours: tuple[str, int], theirs: tuple[str, int]) -> None:
    stack = stack_of()
    stack.listen(53, protocol=17, user=5)
    stack.input(segments.udp_packet(theirs, ours, b"question"), peer=3)
    ((handle, raised, _, user),) = stack.events()
    assert raised == testing.EVENT_OPENED
    assert user == (5 if ours[1] == 53 else 0)
    assert stack.datagrams == [(handle, user, b"question", 0, 64)]
    assert stack.tuple(handle) == (*ours, *theirs)
    assert stack.send_datagram(handle, b"answer", ttl=9) == 0
    ((data, _, owner, peer),) = stack.packets_with_run()
    assert (owner, peer) == (handle, 3)
    p = segments.parse(data)
    assert (p.source, p.destination, p.ttl) == (ours[0], theirs[0], 9)
    assert p.payload == segments.udp(ours, theirs, b"answer")
    assert stack.close(handle) == 0
    assert stack.usage()["udp"] == 0


@pytest.mark.parametrize(("port", "idle_s"), [(53, 30), (443, 120)])
def test_udp_idle(port: int, idle_s: int) -> None:
    stack = stack_of()
    now = 10**15
    stack.input(segments.udp_packet(THEM, (WORLD[0], port), b"x"))
    ((handle, _, _, _),) = stack.events()
    for _ in range(3):
        now += (idle_s - 2) * 1000 * MS
        stack.poll(now)
        assert stack.events() == []
        stack.send_datagram(handle, b"y")
        stack.packets()
    now += (idle_s + 2) * 1000 * MS
    stack.poll(now)
    assert stack.events() == [(handle, testing.EVENT_CLOSED, testing.REASON_IDLE, 0)]
    assert stack.send_datagram(handle, b"z") < 0
    stack.close(handle)
    assert stack.usage()["timers"] == 0


def test_udp_table_makes_room_in_time() -> None:
    stack = stack_of(udp_flows=64)
    for port in range(1, 200):
        stack.input(segments.udp_packet((THEM[0], port), WORLD, b"x"))
        for handle, raised, _, _ in stack.events():
            if raised & testing.EVENT_CLOSED:
                stack.close(handle)
    assert len(stack.datagrams) == 199
    assert stack.usage()["udp"] <= 64


def closed_flows(stack: Stack) -> list[int]:
    """Close what the stack says is over; their handles."""
    ended = [handle for handle, raised, _, _ in stack.events() if raised & testing.EVENT_CLOSED]
    for handle in ended:
        stack.close(handle)
    return ended


def test_no_peer_ends_the_udp_flows_of_another_nor_fills_the_table() -> None:
    stack = stack_of(udp_flows=64)

    def first_datagrams(peer: int, count: int) -> int:
        """Each for a flow of its own; how many were let in."""
        before = len(stack.datagrams)
        for port in range(count):
            source = (f"10.0.{peer}.9", 1000 + port)
            stack.input(segments.udp_packet(source, WORLD, b"x"), peer=peer)
            closed_flows(stack)
        return len(stack.datagrams) - before

    kept = [stack.open_datagram((THEM[0], 5000 + n)) for n in range(5)]
    assert first_datagrams(1, 500) == 500
    # Whoever comes later finds a place, however many came before and how much they want.
    for peer in (2, 3):
        assert first_datagrams(peer, 500) == 500
    assert stack.statistics()["evicted"] > 1400
    assert all(stack.send_datagram(handle, b"still here") == 0 for handle in kept)
    assert stack.check() == 0
    assert stack.usage()["udp"] <= 64


@given(
    flows=st.sampled_from([1, 2, 7, 40]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["new", "new", "new", "use", "close", "wait"]),
            st.sampled_from([1, 2, 3, 65, 4097]),  # three of one bucket
            st.integers(0, 40),
        ),
        max_size=300,
    ),
)
@settings(max_examples=60, deadline=None)
def test_udp_flows_end_as_in_a_naive_model(flows: int, steps: list[tuple[str, int, int]]) -> None:
    """The model: for each peer the ports of its flows, that which was idle longest first."""
    stack, now_ns = stack_of(udp_flows=flows, udp_idle_s=60_000), 10**15
    model: dict[int, list[int]] = {}
    handles: dict[tuple[int, int], int] = {}
    used: dict[tuple[int, ...], int] = {}
    for number, (what, peer, which) in enumerate(steps):
        now_ns += 1_000_000_000
        stack.poll(now_ns)
        assert closed_flows(stack) == []
        own = model.setdefault(peer, [])
        if what == "new":
            port = 1000 + number
            free = flows - sum(map(len, model.values()))
            expected = []
            if free <= 1:
                # Most flows; among equals, whose oldest was used before the others'.
                most = max(model, key=lambda p: (len(model[p]), -used.get((p, *model[p][:1]), 0)))
                victim = most if len(model[most]) > len(own) + 1 else peer
                if model[victim]:
                    expected = [handles.pop((victim, model[victim].pop(0)))]
            packet = segments.udp_packet((f"10.0.{peer % 256}.9", port), WORLD, b"x")
            stack.input(packet, now_ns=now_ns, peer=peer)
            events = stack.events()
            opened = [h for h, raised, _, _ in events if raised & testing.EVENT_OPENED]
            assert [h for h, raised, _, _ in events if raised & testing.EVENT_CLOSED] == expected
            if free:
                own.append(port)
                handles[peer, port] = opened[0]
                used[peer, port] = number
            else:
                assert opened == []  # one ended, whose slot is free the next time
            for handle in expected:
                assert stack.close(handle) == 0
        elif own and what == "use":
            port = own.pop(which % len(own))
            own.append(port)
            used[peer, port] = number
            packet = segments.udp_packet((f"10.0.{peer % 256}.9", port), WORLD, b"y")
            stack.input(packet, now_ns=now_ns, peer=peer)
        elif own and what == "close":
            port = own.pop(which % len(own))
            assert stack.close(handles.pop((peer, port))) == 0
        assert stack.check() == 0
        for (holder, port), handle in handles.items():
            assert stack.tuple(handle) == (*WORLD, f"10.0.{holder % 256}.9", port)
        assert stack.usage()["udp"] == sum(map(len, model.values()))


@pytest.mark.parametrize(
    ("verdict", "to", "answer"),
    [
        (testing.DENY, WORLD, None),
        (testing.REJECT, WORLD, (3, 13)),
        (testing.REJECT, US, (3, 3)),
        (testing.DENY, US, None),
    ],
)
def test_udp_refused(verdict: int, to: tuple[str, int], answer: tuple[int, int] | None) -> None:
    asked = []
    stack = stack_of(admit=lambda *a: asked.append(a) or verdict)
    stack.input(segments.udp_packet(THEM, to, b"x"), peer=8)
    assert asked == [((*to, *THEM), 17, 8)]
    got = [segments.parse(p) for p in stack.packets()]
    assert [(p.payload[0], p.payload[1]) for p in got] == ([answer] if answer else [])
    assert stack.usage()["udp"] == 0


def test_host_unreachable_for_a_datagram() -> None:
    stack = stack_of()
    stack.input(segments.udp_packet(THEM, WORLD, b"x"))
    handle = stack.events()[0][0]
    assert stack.refuse_datagram(handle, testing.REFUSE_HOST) == 0
    (data,) = stack.packets()
    p = segments.parse(data)
    assert p.payload[:2] == b"\3\1"
    quoted = segments.parse(p.payload[8:])
    assert (quoted.source, quoted.destination) == (THEM[0], WORLD[0])
    assert quoted.payload[:4] == struct.pack("!HH", THEM[1], WORLD[1])


def test_icmp_error_reaches_the_flow_it_is_about() -> None:
    stack = stack_of()
    handle = stack.open_datagram(THEM, local=("10.0.0.1", 777))
    stack.send_datagram(handle, b"x")
    (sent,) = stack.packets()
    stack.input(segments.icmp("10.0.0.9", "10.0.0.1", 3, 3, b"\0\0\0\0" + sent[:28]))
    assert stack.errors == [(handle, 0, testing.REFUSE_PORT)]
    other = segments.udp_packet(("10.0.0.1", 778), THEM, b"x")
    stack.input(segments.icmp("10.0.0.9", "10.0.0.1", 3, 3, b"\0\0\0\0" + other[:28]))
    assert len(stack.errors) == 1


# -- echo --
@pytest.mark.parametrize(("us", "them", "kinds"), [
    ("10.0.0.1", "10.0.0.9", (8, 0)), ("fd00::1", "fd00::9", (128, 129)),
])  # fmt: skip
@pytest.mark.parametrize("size", [0, 56, 1385, 5000])
def test_ping(us: str, them: str, kinds: tuple[int, int], size: int) -> None:
    stack = stack_of()
    data = bytes(i % 251 for i in range(size))
    stack.input(segments.icmp(them, us, kinds[0], 0, b"\x12\x34\0\7" + data))
    got = stack.packets()
    if size <= 1385 and len(got) == 1:
        p = segments.parse(got[0])
        assert p.payload[0] == kinds[1]
        assert p.payload[4:] == b"\x12\x34\0\7" + data
    else:
        whole = join(got)
        assert whole[4:] == b"\x12\x34\0\7" + data
    assert stack.usage()["udp"] == 0


def join(fragments: list[bytes]) -> bytes:
    """The upper layer of a fragmented packet, naively."""
    parts: dict[int, bytes] = {}
    for data in fragments:
        assert len(data) <= 1420
        p = segments.parse(data)
        if data[0] >> 4 == 4:
            parts[(p.fragment & 0x1FFF) * 8] = p.payload
        else:
            parts[struct.unpack("!H", p.payload[2:4])[0] & 0xFFF8] = p.payload[8:]
    whole = b""
    for at in sorted(parts):
        assert at == len(whole)
        whole += parts[at]
    return whole


def test_echo_through_the_consumer() -> None:
    stack = stack_of()
    stack.input(segments.icmp("10.0.0.9", "192.0.2.7", 8, 0, b"\0\x11\0\1ping"))
    handle = stack.events()[0][0]
    assert stack.datagrams == [(handle, 0, b"ping", 1, 64)]
    stack.send_datagram(handle, b"ping", sequence=1)
    (answer,) = stack.packets()
    p = segments.parse(answer)
    assert (p.source, p.payload[0], p.payload[4:]) == ("192.0.2.7", 0, b"\0\x11\0\1ping")


def test_our_own_ping() -> None:
    stack = stack_of()
    handle = stack.open_datagram(("10.0.0.9", 77), protocol=1)
    stack.send_datagram(handle, b"hello", sequence=3)
    (request,) = stack.packets()
    p = segments.parse(request)
    assert (p.payload[0], p.payload[4:]) == (8, b"\0\x4d\0\3hello")
    stack.input(segments.icmp("10.0.0.9", "10.0.0.1", 0, 0, p.payload[4:]))
    assert stack.datagrams == [(handle, 0, b"hello", 3, 64)]


# -- reassembly --
def fragments(data: bytes, ident: int, cuts: list[int], *, six: bool = False) -> list[bytes]:
    """Cut an upper layer at multiples of eight."""
    edges = sorted({0, len(data), *(c * 8 for c in cuts if c * 8 < len(data))})
    out = []
    for start, end in itertools.pairwise(edges):
        more = end < len(data)
        if six:
            head = struct.pack("!BBHI", UDP, 0, start | more, ident)
            out.append(segments.ip("fd00::9", "fd00::1", 44, head + data[start:end]))
        else:
            out.append(segments.ip("10.0.0.9", "10.0.0.1", UDP, data[start:end], ident=ident,
                                  fragment=start // 8 | (0x2000 if more else 0)))  # fmt: skip
    return out


@given(
    size=st.integers(1, 3000),
    cuts=st.lists(st.integers(1, 370), min_size=1, max_size=20),
    order=st.randoms(use_true_random=False),
    repeat=st.booleans(),
    drop=st.booleans(),
    six=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_reassembly_against_a_naive_join(
    size: int, cuts: list[int], order: object, repeat: bool, drop: bool, six: bool
) -> None:
    stack = stack_of()
    payload = bytes(i * 7 % 256 for i in range(size))
    theirs, ours = (THEM6, US6) if six else (THEM, US)
    parts = fragments(segments.udp(theirs, ours, payload), 99, cuts, six=six)
    if any(len(p) > 1500 for p in parts):
        return
    expected = [payload]
    if drop and len(parts) > 1:
        parts.pop(order.randrange(len(parts)))
        expected = []
    order.shuffle(parts)
    if repeat and len(parts) > 2:
        parts.insert(1, parts[0])
    for part in parts:
        stack.input(part)
    assert [d[2] for d in stack.datagrams] == expected
    stack.poll(10**15 + 31_000 * MS)
    assert stack.usage()["blocks"] == stack.usage()["reassemblies"] == 0


OVERLAPS = [
    [(0, 16, True), (8, 24, False)],
    [(0, 32, True), (8, 24, True)],
    [(16, 32, False), (8, 24, True)],
    [(0, 16, True), (16, 32, False), (16, 40, False)],
    [(0, 15, True)],  # not a multiple of eight
    [(0, 16, False), (16, 32, False)],  # two ends
]


@pytest.mark.parametrize("pieces", OVERLAPS)
def test_overlapping_fragments_end_the_datagram(pieces: list[tuple[int, int, bool]]) -> None:
    stack = stack_of()
    data = segments.udp(THEM, US, b"x" * 100)
    for start, end, more in pieces:
        stack.input(segments.ip("10.0.0.9", "10.0.0.1", UDP, data[start:end], ident=5,
                               fragment=start // 8 | (0x2000 if more else 0)))  # fmt: skip
    assert stack.datagrams == []
    assert stack.drops().get("ns_bad_fragment", 0) + stack.drops().get("ns_bad_header", 0) >= 1


def test_fragment_flood_is_bounded() -> None:
    stack = stack_of(reassemblies=4, reassembly_blocks=20)
    for ident in range(1000):
        data = segments.udp(THEM, US, bytes(2000))
        first, *_ = fragments(data, ident, [100])
        stack.input(first)
    assert stack.usage()["reassemblies"] == 4
    assert stack.usage()["blocks"] <= 20
    for part in fragments(segments.udp(THEM, US, b"real" * 100), 7777, [20, 40]):
        stack.input(part)
    assert [d[2] for d in stack.datagrams] == [b"real" * 100]


@given(st.binary(max_size=120), st.sampled_from([0x45, 0x60, 0x46]))
@settings(max_examples=300)
def test_any_bytes_are_survived(data: bytes, first: int) -> None:
    stack = stack_of()
    stack.input(bytes([first]) + data)
    stack.packets()
    assert stack.check() == 0
