"""The handshake against an independent implementation, both roles, and what must be refused."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.wireguard.testing import Device, tai64n, whiten
from tests.support import noise_reference as reference
from tests.support import vectors
from tests.support.wireguard import (
    DATA,
    ENDPOINT,
    HANDSHAKE,
    INITIATION,
    KEEPALIVE_LEN,
    MS,
    RESPONSE,
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

HOME = address("192.0.2.9", 999)
PSK = bytes(range(32))


def device_with(peer: str, *, psk: bytes = bytes(32), endpoint: bool = True) -> Device:
    """Ours, named "ours", with one peer that the reference plays."""
    device = Device(5)
    device.set_private_key(private_key("ours"))
    device.set_unix_time(START_NS, START_UNIX_NS)
    device.add_peer(public_key(peer))
    device.set_preshared_key(public_key(peer), psk)
    device.add_allowed_ip(public_key(peer), prefix("10.0.0.2/32"))
    device.add_allowed_ip(public_key(peer), prefix("fd00::2/128"))
    if endpoint:
        device.set_endpoint(START_NS, public_key(peer), HOME)
    device.up(START_NS)
    return device


def them(*, psk: bytes = bytes(32), name: str = "theirs") -> reference.Peer:
    return reference.Peer(private_key(name), public_key("ours"), psk)


@pytest.mark.parametrize("psk", [bytes(32), PSK])
def test_we_initiate_and_the_reference_answers(psk: bytes) -> None:
    device, peer = device_with("theirs", psk=psk), them(psk=psk)
    inner = packet("10.0.0.1", "10.0.0.2", b"staged")
    assert device.send(START_NS, inner) is None
    [(initiation, to)] = device.transmits(START_NS)
    assert (len(initiation), to) == (148, HOME)
    assert initiation[132:] == bytes(16), "no cookie, no MAC2"
    assert peer.consume_initiation(initiation) == tai64n(whiten(START_UNIX_NS))

    response, session = peer.response(0xA1B2C3D4)
    assert device.receive(START_NS + 7, response, HOME) is None
    assert device.drops() == {}
    [(datagram, _)] = device.staged(START_NS + 7)
    opened = session.open(datagram)
    assert opened[: len(inner)] == inner
    assert opened[len(inner) :] == bytes(-len(inner) % 16)
    assert device.transmits(START_NS + 7) == [], "the packet confirms, no keepalive needed"

    reply = packet("10.0.0.2", "10.0.0.1", b"welcome")
    assert device.receive(START_NS + 8, session.seal(reply), HOME) == reply
    [event] = [e for e in device.events() if e[0] == HANDSHAKE]
    assert event[3] == 7


@pytest.mark.parametrize("psk", [bytes(32), PSK])
def test_the_reference_initiates_and_we_answer(psk: bytes) -> None:
    device, peer = device_with("theirs", psk=psk, endpoint=False), them(psk=psk)
    initiation = peer.initiation(0x01020304, tai64n(START_UNIX_NS))
    assert device.receive(START_NS, initiation, HOME) is None
    [(response, to)] = device.transmits(START_NS)
    assert (len(response), to) == (92, HOME)
    session = peer.consume_response(response)

    inner = packet("fd00::1", "fd00::2")
    assert device.send(START_NS, inner) is None, "not before the session is confirmed"
    assert device.receive(START_NS, session.seal(b""), HOME) is None
    [(datagram, _)] = device.staged(START_NS)
    assert session.open(datagram).startswith(inner)
    assert device.sessions(public_key("theirs"))[0] == (session.remote_index, 0x01020304)
    assert {e[0] for e in device.events()} == {HANDSHAKE, ENDPOINT}


def test_indices_are_random_and_never_repeat_while_in_use() -> None:
    device, peer = device_with("theirs"), them()
    seen = set()
    for i in range(20):
        now_ns = START_NS + i * SECOND
        device.receive(now_ns, peer.initiation(i, tai64n(START_UNIX_NS + now_ns)), HOME)
        [(response, _)] = device.transmits(now_ns)
        seen.add(struct.unpack_from("<I", response, 4)[0])
    assert len(seen) == 20
    assert max(seen) > 2**28
    assert device.indices_in_use() == 1


def change(message: bytes, at: int, *, fix_mac: bytes | None = None) -> bytes:
    """Flip one bit; repair MAC1 for a receiver, as an attacker can who knows its key."""
    changed = bytearray(message)
    changed[at] ^= 1
    if fix_mac is None:
        return bytes(changed)
    return reference.add_macs(bytes(changed[:-32]), fix_mac)


@pytest.mark.parametrize("at", [8, 39, 40, 87, 88, 115])
def test_a_forged_initiation_gets_no_answer(at: int) -> None:
    device, peer = device_with("theirs"), them()
    genuine = peer.initiation(1, tai64n(START_UNIX_NS))
    forged = change(genuine, at, fix_mac=public_key("ours"))
    device.receive(START_NS, forged, HOME)
    assert device.transmits(START_NS) == []
    assert device.drops() == {"wg_bad_handshake": 1}
    device.receive(START_NS, genuine, HOME)
    assert [kind(m) for m, _ in device.transmits(START_NS)] == [RESPONSE]


def test_the_sender_index_is_all_that_an_initiation_does_not_authenticate() -> None:
    """So an attacker can misdirect a response, and nothing more."""
    device, peer = device_with("theirs"), them()
    initiation = peer.initiation(1, tai64n(START_UNIX_NS))
    device.receive(START_NS, change(initiation, 4, fix_mac=public_key("ours")), HOME)
    [(response, _)] = device.transmits(START_NS)
    assert struct.unpack_from("<I", response, 8) == (0,)


@pytest.mark.parametrize("at", [8, 12, 43, 44, 59])
def test_a_forged_response_never_clears_a_pending_handshake(at: int) -> None:
    device, peer = device_with("theirs"), them()
    device.initiate(START_NS, public_key("theirs"))
    [(initiation, _)] = device.transmits(START_NS)
    peer.consume_initiation(initiation)
    response, session = peer.response(77)
    forged = change(response, at, fix_mac=public_key("ours"))
    for _ in range(3):
        device.receive(START_NS, forged, HOME)
    assert sum(device.drops().values()) == 3
    assert device.transmits(START_NS) == []
    assert device.sessions(public_key("theirs")) == (None, None, None)

    device.receive(START_NS, response, HOME)
    [(keepalive, _)] = device.transmits(START_NS)
    assert session.open(keepalive) == b""


def test_a_response_is_taken_once() -> None:
    device, peer = device_with("theirs"), them()
    device.initiate(START_NS, public_key("theirs"))
    [(initiation, _)] = device.transmits(START_NS)
    peer.consume_initiation(initiation)
    response, _ = peer.response(77)
    device.receive(START_NS, response, HOME)
    before = device.sessions(public_key("theirs"))
    device.receive(START_NS, response, HOME)
    assert device.drops() == {"wg_unknown_index": 1}
    assert device.sessions(public_key("theirs")) == before


def test_two_responses_in_one_batch_make_one_session() -> None:
    """The second one is queued while the handshake is still pending."""
    device, peer = device_with("theirs"), them()
    device.initiate(START_NS, public_key("theirs"))
    [(initiation, _)] = device.transmits(START_NS)
    peer.consume_initiation(initiation)
    response, _ = peer.response(77)
    for _ in range(2):
        device.prepare(START_NS, response, HOME)
    assert device.process_handshakes(START_NS) == 0
    assert device.drops() == {"wg_unknown_index": 1}
    assert device.indices_in_use() == 1


def test_the_wrong_preshared_key_makes_no_session() -> None:
    device, peer = device_with("theirs", psk=PSK), them()
    device.initiate(START_NS, public_key("theirs"))
    [(initiation, _)] = device.transmits(START_NS)
    peer.consume_initiation(initiation)
    device.receive(START_NS, peer.response(77)[0], HOME)
    assert device.drops() == {"wg_bad_handshake": 1}
    assert not device.status(START_NS, public_key("theirs"))["has_session"]


def test_an_unknown_static_key_gets_silence() -> None:
    device, stranger = device_with("theirs"), them(name="stranger")
    device.receive(START_NS, stranger.initiation(1, tai64n(START_UNIX_NS)), HOME)
    assert device.transmits(START_NS) == []
    assert device.drops() == {"wg_unknown_peer": 1}


def test_a_message_for_another_device_gets_silence() -> None:
    device = device_with("theirs")
    misdirected = reference.Peer(private_key("theirs"), public_key("else"))
    device.receive(START_NS, misdirected.initiation(1, tai64n(START_UNIX_NS)), HOME)
    assert device.transmits(START_NS) == []
    assert device.drops() == {"wg_bad_mac1": 1}


REPLAYS = [
    # after the first initiation at unix time T: wait, timestamp, answered, reason
    (SECOND, 0, False, "wg_old_timestamp"),
    (SECOND, -SECOND, False, "wg_old_timestamp"),
    (SECOND, SECOND, True, None),
    (19 * MS, SECOND, False, "wg_initiation_flood"),
    (20 * MS, SECOND, True, None),
    (0, SECOND, False, "wg_initiation_flood"),
]


@pytest.mark.parametrize(("wait_ns", "ahead_ns", "answered", "reason"), REPLAYS)
def test_initiations_are_refused_by_timestamp_and_rate(
    wait_ns: int, ahead_ns: int, answered: bool, reason: str | None
) -> None:
    device, peer = device_with("theirs"), them()
    device.receive(START_NS, peer.initiation(1, tai64n(START_UNIX_NS)), HOME)
    device.transmits(START_NS)
    second = peer.initiation(2, tai64n(START_UNIX_NS + ahead_ns))
    device.receive(START_NS + wait_ns, second, HOME)
    assert len(device.transmits(START_NS + wait_ns)) == answered
    assert device.drops() == ({reason: 1} if reason else {})


def test_the_last_timestamp_outlives_the_session() -> None:
    device, peer = device_with("theirs"), them()
    initiation = peer.initiation(1, tai64n(START_UNIX_NS))
    device.receive(START_NS, initiation, HOME)
    later_ns = START_NS + 10_000 * SECOND
    device.advance(later_ns)
    device.set_private_key(private_key("ours"))
    device.transmits(later_ns)
    device.receive(later_ns, initiation, HOME)
    assert device.drops() == {"wg_old_timestamp": 1}


@pytest.mark.parametrize("number", range(7))
def test_a_low_order_public_key_emits_nothing(number: int) -> None:
    points = vectors.load("wireguard-kernel/low_order_points.json")["base64"]
    point = base64.b64decode(points[number])
    device = Device(3)
    device.set_private_key(private_key("ours"))
    device.add_peer(point)
    device.set_endpoint(START_NS, point, HOME)
    device.add_allowed_ip(point, prefix("10.0.0.2/32"))
    device.set_keepalive(START_NS, point, 1)
    device.up(START_NS)
    for second in range(30):
        now_ns = START_NS + second * SECOND
        device.advance(now_ns)
        device.initiate(now_ns, point)
        assert device.send(now_ns, packet("10.0.0.1", "10.0.0.2")) is None
        assert device.outgoing(now_ns) == []
    assert device.status(START_NS, point)["tx_bytes"] == 0
    assert device.indices_in_use() == 0


@pytest.mark.parametrize("number", range(7))
def test_a_low_order_ephemeral_gets_no_answer(number: int) -> None:
    points = vectors.load("wireguard-kernel/low_order_points.json")["base64"]
    device = device_with("theirs")
    message = bytearray(them().initiation(1, tai64n(START_UNIX_NS)))
    message[8:40] = base64.b64decode(points[number])
    device.receive(START_NS, reference.add_macs(bytes(message[:116]), public_key("ours")), HOME)
    assert device.transmits(START_NS) == []
    assert device.drops() == {"wg_bad_handshake": 1}

    device.initiate(START_NS, public_key("theirs"))
    [(initiation, _)] = device.transmits(START_NS)
    peer = them()
    peer.consume_initiation(initiation)
    response = bytearray(peer.response(4)[0])
    response[12:44] = base64.b64decode(points[number])
    device.receive(START_NS, reference.add_macs(bytes(response[:60]), public_key("ours")), HOME)
    assert device.drops() == {"wg_bad_handshake": 2}
    assert device.sessions(public_key("theirs")) == (None, None, None)


def test_both_sides_initiate_at_once_and_both_directions_work() -> None:
    pair = Pair()
    pair.alice.device.initiate(pair.now_ns, pair.bob.public)
    pair.bob.device.initiate(pair.now_ns, pair.alice.public)
    first = [(pair.alice, pair.alice.device.transmits(pair.now_ns))]
    first += [(pair.bob, pair.bob.device.transmits(pair.now_ns))]
    for side, messages in first:
        assert [kind(m) for m, _ in messages] == [INITIATION]
        pair.put(side, messages[0][0])
    pair.flush()
    for _ in range(3):
        a, b = pair.send(pair.alice, b"a"), pair.send(pair.bob, b"b")
        assert pair.bob.received[-1] == a
        assert pair.alice.received[-1] == b
    for side in (pair.alice, pair.bob):
        assert side.device.drops() == {}
    sent = len(pair.alice.sent) + len(pair.bob.sent)
    pair.run(9 * SECOND)
    assert len(pair.alice.sent) + len(pair.bob.sent) == sent, "and no third handshake"


def test_a_new_preshared_key_keeps_the_session_and_counts_from_the_next_handshake() -> None:
    pair = Pair()
    pair.connect()
    before = pair.alice.device.sessions(pair.bob.public)
    for side in (pair.alice, pair.bob):
        side.device.set_preshared_key(pair.other(side).public, PSK)
    inner = pair.send(pair.alice, b"x")
    assert pair.bob.received == [inner]
    assert pair.alice.device.sessions(pair.bob.public) == before
    pair.bob.device.set_preshared_key(pair.alice.public, bytes(32))
    pair.run(SECOND)
    pair.alice.device.expire_session(pair.bob.public)
    pair.send(pair.alice, b"y")
    assert pair.alice.device.drops() == {"wg_bad_handshake": 1}
    pair.bob.device.set_preshared_key(pair.alice.public, PSK)
    pair.run(6 * SECOND)
    assert pair.bob.received[-1].endswith(b"y")


def test_tags_of_every_packet_are_checked_with_the_reference() -> None:
    device, peer = device_with("theirs"), them()
    device.receive(START_NS, peer.initiation(9, tai64n(START_UNIX_NS)), HOME)
    session = peer.consume_response(device.transmits(START_NS)[0][0])
    good = session.seal(packet("10.0.0.2", "10.0.0.1", bytes(40)))
    for at in range(16, len(good)):
        assert device.receive(START_NS, change(good, at), HOME) is None
    assert device.drops() == {"wg_bad_tag": len(good) - 16}
    assert device.receive(START_NS, good, HOME) is not None, "none of them moved the window"
    assert device.receive(START_NS, good, HOME) is None
    assert device.drops()["wg_replay"] == 1


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(0))
def test_any_keys_interoperate_with_the_reference(ours: bytes, theirs: bytes, seed: int) -> None:
    device = Device(seed % 2**64)
    device.set_private_key(ours)
    keys = device.keys()
    peer_public = reference.public(theirs)
    if keys is None or keys[1] == peer_public:
        return
    assert keys[1] == reference.public(ours)
    peer = reference.Peer(theirs, keys[1], ours)
    device.add_peer(peer_public)
    device.set_preshared_key(peer_public, ours)
    device.up(START_NS)
    device.receive(START_NS, peer.initiation(seed % 2**32, tai64n(START_UNIX_NS)), HOME)
    [(response, _)] = device.transmits(START_NS)
    session = peer.consume_response(response)
    device.receive(START_NS, session.seal(b""), HOME)
    [(datagram, _)] = [device.send_to(START_NS, peer_public, b"\x45" * 20) or (b"", HOME)]
    assert kind(datagram) == DATA
    assert len(session.seal(b"")) == KEEPALIVE_LEN
    assert session.open(datagram)[:20] == b"\x45" * 20
