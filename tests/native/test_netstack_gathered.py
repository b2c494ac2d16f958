"""Payload of several segments in one call: what is held, when it is given, what is taken back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.netstack import testing
from tests.support import segments
from tests.support.netstack import THEIRS, Peer, listening
from tests.support.segments import ACK, FIN, PSH, RST, SYN

MSS = 1000


def connected(**arguments: object) -> Peer:
    peer = Peer(listening(parts=True, **arguments))
    peer.handshake(mss=MSS)
    return peer


def segment(peer: Peer, seq: int, payload: bytes, flags: int = ACK) -> bytes:
    """A segment whose sequence number counts from the SYN."""
    return segments.tcp(
        peer.theirs, peer.ours, flags, peer.isn + seq, peer.iss + 1, payload
    )  # fmt: skip


def received(peer: Peer) -> bytes:
    return bytes(peer.stack.received.get(peer.handle, b""))


def in_order(peer: Peer, sizes: list[int], flags: int = ACK) -> tuple[list[bytes], bytes]:
    """Segments of these sizes one behind the other, and the stream that they carry."""
    data = bytes(i * 7 % 256 for i in range(sum(sizes)))
    made, at = [], 0
    for size in sizes:
        made.append(segment(peer, 1 + at, data[at : at + size], flags))
        at += size
    return made, data


@pytest.mark.parametrize(
    ("count", "calls"), [(1, 1), (2, 1), (256, 1), (257, 2), (512, 2), (513, 3)]
)
def test_a_batch_in_order_is_given_at_once(count: int, calls: int) -> None:
    peer = connected()
    packets, data = in_order(peer, [100] * count, ACK | PSH)
    peer.stack.input_batch(packets)
    assert received(peer) == data
    assert peer.stack.parts_given() == calls
    assert [s.ack for s in peer.receive()] == [1 + len(data)]


def test_two_flows_that_alternate_stay_whole() -> None:
    first = connected()
    second = Peer(first.stack, theirs=(THEIRS[0], 40001), isn=77)
    second.handshake(mss=MSS)
    a, data = in_order(first, [MSS] * 5)
    b, _ = in_order(second, [MSS] * 5)
    first.stack.input_batch(p for two in zip(a, b, strict=True) for p in two)
    assert received(first) == data
    assert received(second) == data
    assert first.stack.parts_given() == 10


def test_what_the_consumer_leaves_is_parked_and_acknowledged() -> None:
    peer = connected()
    peer.stack.take = lambda handle, length: 600
    packets, data = in_order(peer, [MSS] * 4)
    peer.stack.input_batch(packets)
    assert received(peer) == data[:600]
    assert peer.one().ack == 1 + 4 * MSS
    assert peer.stack.recv(peer.handle) == data[600:]
    assert peer.stack.check() == 0


@pytest.mark.parametrize("count", [2, 50])
def test_what_a_filled_hole_sets_free_is_given_at_once(count: int) -> None:
    """With what fills it: two are enough for a call of several."""
    peer = connected()
    packets, data = in_order(peer, [MSS] * count)
    peer.stack.input_batch(packets[1:])
    peer.receive()
    assert peer.stack.parts_given() == 0
    peer.stack.input_batch(packets[:1])
    assert received(peer) == data
    assert peer.stack.parts_given() == 1
    assert peer.receive()[-1].ack == 1 + len(data)
    assert peer.stack.usage()["blocks"] == 0


def test_what_was_parked_goes_on_at_once() -> None:
    peer = connected()
    peer.stack.take = lambda handle, length: 0
    packets, data = in_order(peer, [1300] * 40)
    peer.stack.input_batch(packets)
    given = peer.stack.parts_given()
    peer.stack.take = None
    peer.stack.set_receive_space(peer.handle, 1 << 20)
    assert received(peer) == data
    assert peer.stack.parts_given() == given + 1
    assert peer.stack.usage()["blocks"] == 0


@given(
    sizes=st.lists(st.integers(1, 1400), min_size=1, max_size=120),
    first=st.integers(0, 5),
    takes=st.lists(st.integers(0, 9000), max_size=300),
    spaces=st.lists(st.integers(0, 20_000), max_size=20),
    fin=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_consumer_that_takes_as_it_likes_gets_every_byte_once(
    sizes: list[int], first: int, takes: list[int], spaces: list[int], fin: bool
) -> None:
    """Behind a hole, then parked, then on with each word of the consumer's."""
    peer = connected()
    packets, data = in_order(peer, sizes)
    if len(data) > 60_000:
        return  # more than the window
    if fin:
        packets.append(segment(peer, 1 + len(data), b"", FIN | ACK))
    limits = iter(takes)
    peer.stack.take = lambda handle, length: next(limits, length)
    peer.stack.input_batch(packets[first:])
    peer.receive()
    peer.stack.input_batch(packets[:first])
    for space in spaces:
        peer.stack.set_receive_space(peer.handle, space)
        assert data.startswith(received(peer))
        assert peer.stack.check() == 0
    for _ in range(len(takes) + 1):
        peer.stack.set_receive_space(peer.handle, 1 << 20)
    assert received(peer) == data
    assert peer.stack.usage()["blocks"] == 0
    assert not fin or peer.stack.events()[-1][1] & testing.EVENT_PEER_CLOSED


def test_what_finds_no_room_was_never_received() -> None:
    peer = connected(flow_rx_bytes=4096, mtu=1420)
    peer.stack.take = lambda handle, length: 0
    packets, data = in_order(peer, [40] * 100)
    peer.stack.input_batch(packets)
    kept = peer.receive()[-1].ack - 1
    held = peer.stack.recv(peer.handle)
    assert held == data[:kept]
    assert peer.stack.check() == 0
    # It comes again and is taken then.
    peer.stack.take = None
    peer.send(ACK, 1 + kept, 1, data[kept : kept + 40])
    assert received(peer) == data[kept : kept + 40]


@pytest.mark.parametrize(
    ("flags", "event"),
    [(FIN | ACK, testing.EVENT_PEER_CLOSED), (RST | ACK, testing.EVENT_CLOSED)],
)
def test_the_end_is_behind_what_was_held(flags: int, event: int) -> None:
    peer = connected()
    packets, data = in_order(peer, [MSS] * 3)
    peer.stack.input_batch([*packets, segment(peer, 1 + len(data), b"", flags)])
    assert received(peer) == data
    assert peer.stack.events()[-1][1] & event


@given(
    cuts=st.lists(st.integers(1, 1400), min_size=1, max_size=150),
    order=st.randoms(use_true_random=False),
    moves=st.integers(0, 20),
    doubles=st.integers(0, 20),
    takes=st.lists(st.integers(0, 3000), max_size=300),
    batches=st.lists(st.integers(1, 130), max_size=30),
)
@settings(max_examples=150, deadline=None)
def test_any_batches_give_the_same_stream(
    cuts: list[int], order: object, moves: int, doubles: int, takes: list[int], batches: list[int]
) -> None:
    """Against bytes: reordered, repeated, taken in part, cut into any batches."""
    peer = connected()
    # What the consumer leaves is read out between batches: it stays in order.
    packets, data = in_order(peer, cuts)
    for _ in range(moves):
        a, b = (order.randrange(len(packets)) for _ in range(2))  # type: ignore[attr-defined]
        packets.insert(b, packets.pop(a))
    for _ in range(doubles):
        packets.insert(order.randrange(len(packets)), order.choice(packets))  # type: ignore[attr-defined]
    limits = iter(takes)
    stream = bytearray()
    peer.stack.take = lambda handle, length: next(limits, length)
    at = 0
    sizes = iter(batches)
    rest = list(packets)
    while rest:
        n = next(sizes, len(rest))
        peer.stack.input_batch(rest[:n])
        del rest[:n]
        stream += received(peer)[at:]
        at = len(received(peer))
        while part := peer.stack.recv(peer.handle):
            stream += part
        assert peer.stack.check() == 0
        assert data.startswith(bytes(stream))
        acked = peer.receive()
        if acked:
            assert acked[-1].ack - 1 == len(stream)
    if len(data) <= 65535:
        assert bytes(stream) == data


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("early", [False, True], ids=["parked", "early"])
def test_a_whole_window_finds_room_however_it_waits(parts: bool, early: bool) -> None:
    """What was advertised is kept: behind a stalled consumer, and behind a hole."""
    peer = Peer(listening(parts=parts, flow_rx_bytes=1 << 16))
    peer.handshake(mss=1380)
    peer.stack.take = lambda handle, length: 0
    window = 65535
    data = bytes(i * 11 % 256 for i in range(window))
    first = 1380 if early else 0
    for at in range(first, window, 1380):
        peer.stack.input_batch([segment(peer, 1 + at, data[at : at + 1380])])
    if early:
        peer.receive()
        peer.stack.input_batch([segment(peer, 1, data[:1380])])
    assert peer.receive()[-1].ack == 1 + window
    assert peer.stack.drops().get("ns_receive_full", 0) == 0
    got = bytearray()
    while part := peer.stack.recv(peer.handle):
        got += part
    assert bytes(got) == data


@pytest.mark.parametrize("parts", [False, True])
def test_a_native_consumer_has_the_same_room_after_every_batch(parts: bool) -> None:
    peer = Peer(listening(parts=parts, native=True, space=20_000))
    peer.stack.app_set(space=20_000)
    peer.send(SYN, 0)
    peer.send(ACK, 1, peer.one().seq + 1)
    peer.stack.app_serve()
    for at in range(0, 80_000, 8_000):
        made = [segment(peer, 1 + at + MSS * i, bytes(MSS)) for i in range(8)]
        peer.stack.input_batch(made)
        last = peer.receive()[-1]
        assert (last.ack, last.window) == (1 + at + 8_000, 20_000)


@pytest.mark.parametrize("parts", [False, True])
def test_the_window_grows_with_what_is_taken_either_way(parts: bool) -> None:
    peer = Peer(listening(parts=parts, space=1 << 22, ram_bytes=1 << 28))
    peer.handshake(mss=MSS, wscale=7)
    at, shown = 0, []
    for _ in range(20):
        peer.stack.input_batch([segment(peer, 1 + at + MSS * i, bytes(MSS)) for i in range(32)])
        at += 32 * MSS
        shown.append(peer.receive()[-1].window)
    assert shown[-1] > 4 * shown[0]
