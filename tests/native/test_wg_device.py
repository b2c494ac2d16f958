"""A device as its user sees it: configuration, routing, sending, receiving, observing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cext.wireguard.testing import Device
from tests.support.wireguard import (
    CONSUMED,
    DELIVER,
    DROPPED,
    ENDPOINT,
    FLOOR,
    HANDSHAKE,
    MS,
    OPEN,
    SECOND,
    START_NS,
    START_UNIX_NS,
    Pair,
    address,
    kind,
    packet,
    prefix,
    private_key,
    public_key,
)

HOUR = 3600 * SECOND


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.connect()
    return pair


# -- keys and peers --


def test_a_private_key_is_clamped_and_can_be_taken_away() -> None:
    device = Device()
    assert device.keys() is None
    device.set_private_key(b"\xff" * 32)
    keys = device.keys()
    assert keys is not None
    assert keys[0] == b"\xf8" + b"\xff" * 30 + b"\x7f"
    device.set_private_key(bytes(32))
    assert device.keys() is None
    device.set_private_key(private_key("x"))
    device.set_private_key(None)
    assert device.keys() is None


def test_the_same_private_key_keeps_sessions_and_another_forgets_them(pair: Pair) -> None:
    device = pair.alice.device
    before = device.sessions(pair.bob.public)
    unclamped = bytearray(private_key("alice"))
    unclamped[0] |= 7
    for same in (private_key("alice"), bytes(unclamped)):
        device.set_private_key(same)
        assert device.sessions(pair.bob.public) == before
    device.set_private_key(private_key("another"))
    assert device.sessions(pair.bob.public) == (None, None, None)
    assert not any(device.secret_bytes(pair.bob.public))
    assert pair.status(pair.alice)["allowed_ips"] == {prefix("10.0.0.2/32")}


def test_our_own_key_is_no_peer(pair: Pair) -> None:
    device = pair.alice.device
    assert device.add_peer(pair.alice.public) == -3
    device.add_peer(public_key("later"))
    device.set_private_key(private_key("later"))
    assert device.peers() == [pair.bob.public]


def test_peers_are_limited_and_listed_in_order() -> None:
    device = Device(max_peers=3)
    names = [public_key(name) for name in ("a", "b", "c", "d")]
    assert [device.add_peer(name) for name in names] == [0, 0, 0, -2]
    assert device.add_peer(names[1]) == 0, "adding again finds it"
    device.remove_peer(names[1])
    assert device.peers() == [names[0], names[2]]
    assert device.add_peer(names[3]) == 0
    assert device.peers() == [names[0], names[2], names[3]]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=200))
def test_peers_agree_with_a_list(steps: list[tuple[bool, int]]) -> None:
    device, model = Device(), list[bytes]()
    for add, number in steps:
        # Keys that differ only behind what the table hashes collide there.
        key = bytes(31) + bytes([number])
        if add:
            device.add_peer(key)
            model += [key] if key not in model else []
        elif key in model:
            device.remove_peer(key)
            model.remove(key)
        assert device.has_peer(key) == (key in model)
    assert device.peers() == model
    device.advance(START_NS)


def test_removing_a_peer_forgets_everything_of_it(pair: Pair) -> None:
    device = pair.alice.device
    before = Device().memory_bytes()
    device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    device.remove_peer(pair.bob.public)
    assert device.indices_in_use() == 0
    assert device.route(packet("10.0.0.1", "10.0.0.2")) is None
    assert device.outgoing(pair.now_ns) == []
    device.advance(pair.now_ns)
    assert device.poll_at() is None
    assert device.memory_bytes() - before < 1000


def test_the_memory_of_removed_peers_waits_for_no_timer() -> None:
    device = Device()
    device.add_peer(bytes([1] * 32))
    device.remove_peer(bytes([1] * 32))
    before = device.memory_bytes()
    assert device.poll_at() == 0
    device.advance(START_NS)
    assert device.poll_at() is None
    assert device.memory_bytes() < before


def test_an_initiation_that_an_answer_overtakes_is_made_later() -> None:
    pair = Pair()
    alice, bob = pair.alice.device, pair.bob.device
    assert alice.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2")) is None
    bob.initiate(pair.now_ns, pair.alice.public)
    [(initiation, _)] = bob.outgoing(pair.now_ns)
    alice.receive(pair.now_ns, initiation, pair.bob.endpoint)
    alice.process_handshakes(pair.now_ns)
    [(answer, _)] = alice.outgoing(pair.now_ns)
    assert kind(answer) == 2, "the answer, and no initiation within the same 5 s"
    # Lost: so the packet that waits needs a handshake of its own.
    at_ns = alice.poll_at()
    assert at_ns is not None
    assert 5 * SECOND <= at_ns - pair.now_ns < 5.4 * SECOND
    alice.advance(at_ns)
    assert [kind(sent) for sent, _ in alice.outgoing(at_ns)] == [1]


def test_a_removed_peers_response_does_not_leave(pair: Pair) -> None:
    pair.run(6 * SECOND)
    bob, alice = pair.bob.device, pair.alice.device
    bob.add_peer(public_key("third"))
    alice.expire_session(pair.bob.public)
    alice.initiate(pair.now_ns, pair.bob.public)
    [(initiation, _)] = alice.transmits(pair.now_ns)
    bob.receive(pair.now_ns, initiation, pair.alice.endpoint)
    bob.remove_peer(pair.alice.public)
    assert bob.transmits(pair.now_ns) == []


# -- the batch rule --


def test_a_peer_removed_between_prepare_and_finish_is_harmless(pair: Pair) -> None:
    sealed = pair.alice.device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    assert sealed is not None
    bob = pair.bob.device
    item = bob.prepare(pair.now_ns, sealed[0], pair.alice.endpoint)
    assert item.verdict == OPEN
    bob.open(item)
    bob.remove_peer(pair.alice.public)
    assert bob.finish(pair.now_ns, item) == DROPPED
    assert bob.drops() == {"wg_unknown_index": 1}
    item = bob.prepare(pair.now_ns, sealed[0], pair.alice.endpoint)
    assert item.verdict == DROPPED


def test_a_session_forgotten_between_prepare_and_finish_is_harmless(pair: Pair) -> None:
    sealed = pair.alice.device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    assert sealed is not None
    bob = pair.bob.device
    item = bob.prepare(pair.now_ns, sealed[0], pair.alice.endpoint)
    bob.set_private_key(private_key("other"))
    bob.open(item)
    assert bob.finish(pair.now_ns, item) == DROPPED


def test_one_batch_may_confirm_a_session_and_use_the_old_one(pair: Pair) -> None:
    """A late packet of the session before, the confirmation, and one more of each."""
    alice, bob = pair.alice.device, pair.bob.device
    pair.run(6 * SECOND)
    old = [alice.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2", b"%d" % i)) for i in range(2)]
    alice.expire_session(pair.bob.public)
    alice.initiate(pair.now_ns, pair.bob.public)
    for datagram, _ in alice.transmits(pair.now_ns):
        bob.receive(pair.now_ns, datagram, pair.alice.endpoint)
    for datagram, _ in bob.transmits(pair.now_ns):
        alice.receive(pair.now_ns, datagram, pair.bob.endpoint)
    new = [alice.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2", b"%d" % i)) for i in range(2)]
    batch = [sealed[0] for sealed in (old[0], new[0], old[1], new[1]) if sealed is not None]
    items = [bob.prepare(pair.now_ns, datagram, pair.alice.endpoint) for datagram in batch]
    for item in items:
        bob.open(item)
    assert [bob.finish(pair.now_ns, item) for item in items] == [DELIVER] * 4


# -- datagrams that are none --

JUNK = [
    (b"", "wg_too_short"),
    (b"\x01\x00\x00", "wg_too_short"),
    (b"\x00" * 148, "wg_bad_type"),
    (b"\x05\x00\x00\x00" + bytes(144), "wg_bad_type"),
    (b"\x01\x00\x00\x01" + bytes(144), "wg_bad_type"),  # reserved bytes are zero
    (b"\x01\x00\x00\x00" + bytes(143), "wg_bad_length"),
    (b"\x01\x00\x00\x00" + bytes(145), "wg_bad_length"),
    (b"\x02\x00\x00\x00" + bytes(87), "wg_bad_length"),
    (b"\x03\x00\x00\x00" + bytes(61), "wg_bad_length"),
    (b"\x04\x00\x00\x00" + bytes(27), "wg_too_short"),
    (b"\x01\x00\x00\x00" + bytes(144), "wg_bad_mac1"),
    (b"\x02\x00\x00\x00" + bytes(88), "wg_bad_mac1"),
    (b"\x03\x00\x00\x00" + bytes(60), "wg_unknown_index"),
    (b"\x04\x00\x00\x00" + bytes(28), "wg_unknown_index"),
]


@pytest.mark.parametrize(("datagram", "reason"), JUNK)
def test_junk_is_counted_and_gets_silence(pair: Pair, datagram: bytes, reason: str) -> None:
    device = pair.bob.device
    assert device.receive(pair.now_ns, datagram, pair.alice.endpoint) is None
    assert device.drops() == {reason: 1}
    assert device.outgoing(pair.now_ns) == []


def test_without_a_key_or_down_nothing_is_answered() -> None:
    pair = Pair()
    pair.alice.device.initiate(pair.now_ns, pair.bob.public)
    [(initiation, _)] = pair.alice.device.transmits(pair.now_ns)
    pair.bob.device.down()
    pair.bob.device.receive(pair.now_ns, initiation, pair.alice.endpoint)
    pair.bob.device.up(pair.now_ns)
    pair.bob.device.set_private_key(None)
    pair.bob.device.receive(pair.now_ns, initiation, pair.alice.endpoint)
    assert pair.bob.device.drops() == {"wg_no_private_key": 2}
    assert pair.bob.device.outgoing(pair.now_ns) == []
    assert pair.bob.device.send(pair.now_ns, packet("10.0.0.2", "10.0.0.1")) is None


@given(st.binary(max_size=200), st.sampled_from([b"", *(bytes([t, 0, 0, 0]) for t in range(6))]))
def test_random_bytes_get_silence(tail: bytes, head: bytes) -> None:
    device = Device()
    device.set_private_key(private_key("silent"))
    device.up(START_NS)
    assert device.receive(START_NS, head + tail, address("::1", 1)) is None
    assert device.outgoing(START_NS) == []
    assert sum(device.drops().values()) == 1


# -- padding and inner packets --

PADDING = [
    # inner bytes, MTU, bytes of plaintext
    (0, 1420, 0),
    (1, 1420, 16),
    (16, 1420, 16),
    (17, 1420, 32),
    (1408, 1420, 1408),
    (1409, 1420, 1420),
    (1420, 1420, 1420),
    (1419, 1420, 1420),
    (1421, 1420, 1436),  # as the pieces of 1420 and 1 would be
    (2840, 1420, 2840),
    (2829, 1420, 2840),
    (100, 0, 112),
    (65535, 0, 65536),
    (20, 21, 21),
]


@pytest.mark.parametrize(("length", "mtu", "padded"), PADDING)
def test_padding(pair: Pair, length: int, mtu: int, padded: int) -> None:
    sealed = pair.alice.device.send_to(pair.now_ns, pair.bob.public, b"\xff" * length, mtu)
    assert sealed is not None
    assert len(sealed[0]) == 16 + padded + 16


@given(st.integers(0, 3000), st.integers(1, 1500))
def test_padding_never_passes_the_mtu(length: int, mtu: int) -> None:
    pair = Pair()
    pair.connect()
    sealed = pair.alice.device.send_to(pair.now_ns, pair.bob.public, b"\xff" * length, mtu)
    assert sealed is not None
    added = len(sealed[0]) - 32 - length
    last = length if length <= mtu else length % mtu
    assert 0 <= added <= 15
    assert last + added == min(-(-last // 16) * 16, mtu)


def inner4(total: int, size: int) -> bytes:
    head = bytearray(packet("10.0.0.1", "10.0.0.2"))
    struct.pack_into(">H", head, 2, total)
    return bytes(head) + bytes(size - 20)


def inner6(payload: int, size: int) -> bytes:
    head = bytearray(packet("fd00::1", "fd00::2"))
    struct.pack_into(">H", head, 4, payload)
    return bytes(head) + bytes(size - 40)


INNER = [
    # inner packet, bytes delivered or the reason for none
    (inner4(20, 20), 20),
    (inner4(20, 1000), 20),
    (inner4(1000, 1000), 1000),
    (inner4(19, 64), "wg_bad_inner"),
    (inner4(0, 64), "wg_bad_inner"),
    (inner4(1025, 1024), "wg_bad_inner"),
    (inner4(65535, 64), "wg_bad_inner"),
    (inner6(0, 40), 40),
    (inner6(60, 100), 100),
    (inner6(8, 100), 48),
    (inner6(89, 128), "wg_bad_inner"),
    (inner6(65535, 64), "wg_bad_inner"),
    (packet("10.0.0.1", "10.0.0.2")[:16], "wg_bad_inner"),
    (packet("fd00::1", "fd00::2")[:32], "wg_bad_inner"),
    (b"\x00" * 64, "wg_bad_inner"),
    (b"\x56" * 64, "wg_bad_inner"),
    (packet("10.0.0.9", "10.0.0.2"), "wg_source_not_allowed"),
    (packet("10.0.0.2", "10.0.0.1"), "wg_source_not_allowed"),
    (packet("fd00::3", "fd00::2"), "wg_source_not_allowed"),
]


@pytest.mark.parametrize(("inner", "expected"), INNER)
def test_inner_packets(pair: Pair, inner: bytes, expected: int | str) -> None:
    pair.bob.device.add_allowed_ip(pair.alice.public, prefix("fd00::1/128"))
    sealed = pair.alice.device.send_to(pair.now_ns, pair.bob.public, inner)
    assert sealed is not None
    got = pair.bob.device.receive(pair.now_ns, sealed[0], pair.alice.endpoint)
    if isinstance(expected, int):
        assert got == inner[:expected]
    else:
        assert got is None
        assert pair.bob.device.drops() == {expected: 1}


def test_a_source_of_another_peer_is_refused(pair: Pair) -> None:
    third = public_key("third")
    pair.bob.device.add_peer(third)
    pair.bob.device.add_allowed_ip(third, prefix("10.0.0.1/32"))
    pair.send(pair.alice)
    assert pair.bob.received == []
    assert pair.bob.device.drops() == {"wg_source_not_allowed": 1}
    pair.bob.device.remove_peer(third)
    pair.bob.device.add_allowed_ip(pair.alice.public, prefix("10.0.0.0/24"))
    pair.send(pair.alice)
    assert len(pair.bob.received) == 1


ROUTES = [
    (packet("10.0.0.1", "10.0.0.2"), "bob", None),
    (packet("10.0.0.1", "10.9.9.9"), None, "wg_no_route"),
    (packet("fd00::1", "fd00::2"), None, "wg_no_route"),
    (packet("10.0.0.1", "10.0.0.2")[:19], None, "wg_bad_inner"),
    (b"\x60" + bytes(38), None, "wg_bad_inner"),
    (b"\x50" + bytes(60), None, "wg_bad_inner"),
    (b"", None, "wg_bad_inner"),
]


@pytest.mark.parametrize(("inner", "peer", "reason"), ROUTES)
def test_routes(pair: Pair, inner: bytes, peer: str | None, reason: str | None) -> None:
    device = pair.alice.device
    assert device.route(inner) == (public_key(peer) if peer else None)
    assert device.drops() == ({reason: 1} if reason else {})


def test_a_peer_without_endpoint_gets_nothing(pair: Pair) -> None:
    third = public_key("third")
    device = pair.alice.device
    device.add_peer(third)
    device.add_allowed_ip(third, prefix("10.3.0.0/16"))
    device.set_keepalive(pair.now_ns, third, 5)
    assert device.send(pair.now_ns, packet("10.0.0.1", "10.3.0.1")) is None
    assert device.drops() == {"wg_no_endpoint": 1}
    assert device.outgoing(pair.now_ns) == []
    device.set_endpoint(pair.now_ns, third, address("192.0.2.3", 3))
    [(datagram, to)] = device.transmits(pair.now_ns)
    assert (kind(datagram), to) == (1, address("192.0.2.3", 3))


# -- staging --


def test_staged_packets_keep_their_order_and_the_oldest_goes_first() -> None:
    pair = Pair()
    pair.network = lambda *_: []
    for i in range(130):
        pair.send(pair.alice, b"%d" % i)
    assert pair.alice.device.drops() == {"wg_staged_full": 2}
    pair.network = lambda _pair, _sender, datagram: [(0, datagram)]
    pair.run(6 * SECOND)
    assert [int(p[20:]) for p in pair.bob.received] == list(range(2, 130))


def test_one_unreachable_peer_cannot_push_out_what_waits_for_another() -> None:
    pair = Pair(max_staged_packets=4)
    device, third = pair.alice.device, public_key("third")
    device.add_peer(third)
    device.set_endpoint(pair.now_ns, third, address("192.0.2.3", 3))
    device.add_allowed_ip(third, prefix("10.3.0.0/16"))
    pair.network = lambda *_: []
    pair.send(pair.alice, b"wanted")
    for i in range(50):
        device.send(pair.now_ns, packet("10.0.0.1", "10.3.0.1", b"%d" % i))
    assert device.drops() == {"wg_staged_full": 47}
    pair.network = lambda _pair, _sender, datagram: [(0, datagram)]
    pair.run(6 * SECOND)
    assert [p[20:] for p in pair.bob.received] == [b"wanted"]


def test_a_packet_too_long_to_wait_is_counted() -> None:
    pair = Pair(staged_packet_bytes=100)
    pair.network = lambda *_: []
    pair.send(pair.alice, bytes(80))
    assert pair.alice.device.drops() == {}
    pair.send(pair.alice, bytes(81))
    assert pair.alice.device.drops() == {"wg_staged_full": 1}


def test_down_forgets_sessions_and_waiting_packets_and_up_begins_anew() -> None:
    pair = Pair()
    pair.connect()
    device = pair.alice.device
    device.set_keepalive(pair.now_ns, pair.bob.public, 25)
    pair.flush()
    device.expire_session(pair.bob.public)
    device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    device.down()
    assert device.outgoing(pair.now_ns) == []
    assert device.poll_at() is None
    assert device.indices_in_use() == 0
    assert device.drops() == {"wg_staged_expired": 1}
    assert pair.status(pair.alice)["allowed_ips"] == {prefix("10.0.0.2/32")}
    pair.run(SECOND)
    device.up(pair.now_ns)
    pair.flush()
    assert pair.status(pair.alice)["has_session"]


# -- roaming --


def test_any_authenticated_packet_moves_the_endpoint(pair: Pair) -> None:
    bob, new = pair.bob.device, address("2001:db8::7", 7)
    sealed = pair.alice.device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    assert sealed is not None
    forged = sealed[0][:-1] + bytes([sealed[0][-1] ^ 1])
    bob.receive(pair.now_ns, forged, new)
    assert pair.status(pair.bob)["endpoint"] == pair.alice.endpoint
    bob.receive(pair.now_ns, sealed[0], new)
    assert pair.status(pair.bob)["endpoint"] == new
    assert [e[:2] for e in bob.events()] == [(ENDPOINT, pair.alice.public)]
    bob.receive(pair.now_ns, sealed[0], pair.alice.endpoint)
    assert pair.status(pair.bob)["endpoint"] == new, "a replay moves nothing"
    answer = bob.send(pair.now_ns, packet("10.0.0.2", "10.0.0.1"))
    assert answer is not None
    assert answer[1] == new


def test_a_packet_with_a_refused_source_still_moves_the_endpoint(pair: Pair) -> None:
    """It is authenticated; only its content is refused."""
    sealed = pair.alice.device.send_to(pair.now_ns, pair.bob.public, packet("10.9.9.9", "10.0.0.2"))
    assert sealed is not None
    pair.bob.device.receive(pair.now_ns, sealed[0], address("192.0.2.50", 50))
    assert pair.status(pair.bob)["endpoint"] == address("192.0.2.50", 50)


def test_a_new_sticky_source_is_no_event(pair: Pair) -> None:
    sealed = pair.alice.device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    assert sealed is not None
    sticky = address("192.0.2.1", 1001, source="192.0.2.2")
    pair.bob.device.receive(pair.now_ns, sealed[0], sticky)
    assert pair.status(pair.bob)["endpoint"] == sticky
    assert pair.bob.device.events() == []
    pair.bob.device.clear_sources()
    assert pair.status(pair.bob)["endpoint"] == pair.alice.endpoint


# -- clock, floor, counters, events --


def timestamp_of(pair: Pair) -> tuple[int, int]:
    """(seconds, nanoseconds) in the initiation that Alice sends now."""
    from tests.support.noise_reference import Peer

    [(initiation, _)] = pair.alice.device.transmits(pair.now_ns)
    seconds, ns = struct.unpack(
        ">QI", Peer(private_key("bob"), pair.alice.public).consume_initiation(initiation)
    )
    return seconds - 0x400000000000000A, ns


CLOCKS = [
    # unix seconds, floor, build time: what the initiation carries
    (1_700_000_000, 0, 0, 1_700_000_000),
    (5, 0, 0, 5),
    (0, 0, 1_600_000_000, 1_600_000_000),
    (0, 1_650_000_000, 1_600_000_000, 1_650_000_000),
    (1_700_000_000, 1_650_000_000, 1_600_000_000, 1_700_000_000),
    (1_700_000_000, 1_800_000_000, 0, 1_800_000_000),
    (1_500_000_000, 0, 1_600_000_000, 1_600_000_000),
]


@pytest.mark.parametrize(("clock", "floor", "build", "expected"), CLOCKS)
def test_timestamps(clock: int, floor: int, build: int, expected: int) -> None:
    pair = Pair(build_unix_ns=build * SECOND)
    device = pair.alice.device
    device.set_unix_time(pair.now_ns, clock * SECOND)
    device.set_timestamp_floor(floor * SECOND)
    device.initiate(pair.now_ns, pair.bob.public)
    assert timestamp_of(pair) == (expected, 0)


def test_timestamps_always_grow_whatever_the_clock_does() -> None:
    pair = Pair()
    device, last = pair.alice.device, (0, 0)
    jumps = [0, 0, -HOUR, -10 * 365 * 24 * HOUR, HOUR, 0, 10 * 365 * 24 * HOUR, -HOUR]
    for jump in jumps:
        pair.now_ns += 6 * SECOND
        device.set_unix_time(pair.now_ns, START_UNIX_NS + jump)
        device.advance(pair.now_ns)
        device.initiate(pair.now_ns, pair.bob.public)
        now = timestamp_of(pair)
        assert now > last, jump
        assert now[1] % 2**24 == 0
        last = now
    device.remove_peer(pair.bob.public)
    device.add_peer(pair.bob.public)
    device.set_endpoint(pair.now_ns, pair.bob.public, pair.bob.endpoint)
    device.initiate(pair.now_ns, pair.bob.public)
    assert timestamp_of(pair) > last, "a peer that was removed and added again"


def test_the_floor_is_asked_for_ahead_of_use_in_coarse_steps() -> None:
    pair = Pair(floor_step_ns=4 * HOUR)
    device, saved, asked = pair.alice.device, 0, []
    for _ in range(24 * 12):
        pair.now_ns += 300 * SECOND
        device.advance(pair.now_ns)
        device.expire_session(pair.bob.public)
        device.initiate(pair.now_ns, pair.bob.public)
        assert len(device.transmits(pair.now_ns)) == 1, "which carries the clock's time"
        for event in device.events():
            if event[0] == FLOOR:
                saved = event[2]
                asked.append(pair.now_ns)
        assert saved > START_UNIX_NS + pair.now_ns - START_NS
    assert 6 <= len(asked) <= 9, "a day of handshakes every five minutes"


def test_a_boot_without_a_clock_still_handshakes() -> None:
    pair = Pair()
    pair.connect()
    floors = [e[2] for e in pair.alice.device.events() if e[0] == FLOOR]
    floor = max(floors, default=START_UNIX_NS + 4 * HOUR)
    pair.run(HOUR)
    reborn = Device(77)
    reborn.set_private_key(private_key("alice"))
    reborn.add_peer(pair.bob.public)
    reborn.set_endpoint(START_NS, pair.bob.public, pair.bob.endpoint)
    reborn.set_unix_time(START_NS, 5 * SECOND)
    reborn.set_timestamp_floor(floor)
    reborn.up(START_NS)
    pair.alice.device = reborn
    reborn.initiate(pair.now_ns, pair.bob.public)
    pair.flush()
    assert pair.status(pair.alice)["has_session"]


def test_bytes_are_those_of_udp_payloads(pair: Pair) -> None:
    pair = Pair()
    pair.connect()
    assert pair.status(pair.alice)["tx_bytes"] == 148 + 32
    assert pair.status(pair.alice)["rx_bytes"] == 92
    assert pair.status(pair.bob)["tx_bytes"] == 92
    assert pair.status(pair.bob)["rx_bytes"] == 148 + 32
    pair.send(pair.alice, bytes(80))
    assert pair.status(pair.alice)["tx_bytes"] == 180 + 144
    assert pair.status(pair.bob)["rx_bytes"] == 180 + 144


def test_handshake_times_and_durations() -> None:
    pair = Pair()
    pair.network = lambda _pair, _sender, datagram: [(3 * MS, datagram)]
    pair.alice.device.initiate(pair.now_ns, pair.bob.public)
    pair.run(SECOND)
    [event] = [e for e in pair.alice.device.events() if e[0] == HANDSHAKE]
    assert event[1:] == (pair.bob.public, START_UNIX_NS + 6 * MS, 6 * MS)
    status = pair.status(pair.alice)
    assert status["handshake_duration_ns"] == 6 * MS
    assert status["last_handshake_unix_ns"] == START_UNIX_NS + 6 * MS
    [event] = [e for e in pair.bob.device.events() if e[0] == HANDSHAKE]
    assert event[2:] == (START_UNIX_NS + 9 * MS, 0)
    # A clock that is set later corrects what was noted before.
    pair.alice.device.set_unix_time(pair.now_ns, START_UNIX_NS + HOUR)
    assert pair.status(pair.alice)["last_handshake_unix_ns"] == (
        START_UNIX_NS + HOUR + 6 * MS - SECOND
    )


def test_events_are_bounded_and_the_newest_stay(pair: Pair) -> None:
    pair = Pair(events=4)
    pair.connect()
    for port in range(1, 20):
        sealed = pair.alice.device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
        assert sealed is not None
        pair.bob.device.receive(pair.now_ns, sealed[0], address("192.0.2.1", port))
    assert len(pair.bob.device.events()) == 4


def test_what_a_command_left_behind_is_due_at_once(pair: Pair) -> None:
    device = pair.alice.device
    later_ns = device.poll_at()
    assert later_ns is not None
    assert later_ns > pair.now_ns
    device.set_keepalive(pair.now_ns, pair.bob.public, 25)
    assert device.poll_at() == 0
    device.transmits(pair.now_ns)
    assert pair.now_ns < (device.poll_at() or 0) <= pair.now_ns + 25 * SECOND


def test_verdicts_of_the_three_outcomes(pair: Pair) -> None:
    bob = pair.bob.device
    pair.alice.device.set_keepalive(pair.now_ns, pair.bob.public, 5)
    [(keepalive, _)] = pair.alice.device.transmits(pair.now_ns)
    item = bob.prepare(pair.now_ns, keepalive, pair.alice.endpoint)
    bob.open(item)
    assert bob.finish(pair.now_ns, item) == CONSUMED
    item = bob.prepare(pair.now_ns, keepalive, pair.alice.endpoint)
    bob.open(item)
    assert bob.finish(pair.now_ns, item) == DROPPED


def test_memory_does_not_grow_by_packets(pair: Pair) -> None:
    before = pair.bob.device.memory_bytes(), pair.alice.device.memory_bytes()
    for i in range(300):
        pair.send(pair.alice, bytes(i))
        pair.bob.device.receive(pair.now_ns, bytes(i), pair.alice.endpoint)
    pair.run(400 * SECOND)
    assert (pair.bob.device.memory_bytes(), pair.alice.device.memory_bytes()) == before
