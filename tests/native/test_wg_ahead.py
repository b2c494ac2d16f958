"""What is made ahead of handshakes: each key pair serves once, and none outlives its use."""

from __future__ import annotations

import random

from cext.crypto.primitives import x25519_public
from cext.wireguard.testing import Device, tai64n
from tests.support import noise_reference as reference
from tests.support.wireguard import (
    INITIATION,
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

# Struct noise_ephemeral begins with its private and its public key.
KEPT = 4
HOME = address("192.0.2.9", 999)


def ready(device: Device) -> list[bytes]:
    """The public keys of the pairs that are ready, each checked against its private key."""
    raw, count = device.ephemerals_ahead()
    size = len(raw) // KEPT
    pairs = [raw[i * size : i * size + 64] for i in range(KEPT)]
    assert not any(raw[count * size :]), "what is used is erased"
    assert all(x25519_public(p[:32]) == p[32:] for p in pairs[:count])
    return [p[32:] for p in pairs[:count]]


def fill(device: Device) -> int:
    """Make everything that is wanted; return how much that was."""
    made = 0
    while device.wants_ahead():
        device.make_ahead()
        made += 1
        assert made < 50, "it must come to an end"
    return made


def one_peer(*, endpoint: bool = True) -> Device:
    device = Device(5)
    device.set_private_key(private_key("ours"))
    device.set_unix_time(START_NS, START_UNIX_NS)
    device.add_peer(public_key("theirs"))
    device.add_allowed_ip(public_key("theirs"), prefix("10.0.0.2/32"))
    if endpoint:
        device.set_endpoint(START_NS, public_key("theirs"), HOME)
    return device


def test_nothing_is_wanted_before_it_can_serve() -> None:
    device = Device(5)
    device.up(START_NS)
    assert not device.wants_ahead(), "no key, no peer"
    device.set_private_key(private_key("ours"))
    assert not device.wants_ahead(), "no peer"
    device.make_ahead()
    assert ready(device) == []
    device.add_peer(public_key("theirs"))
    # Four key pairs; without an endpoint there is nobody to initiate to.
    assert fill(device) == KEPT
    device.set_endpoint(START_NS, public_key("theirs"), HOME)
    assert fill(device) == 1, "the Diffie-Hellman of the initiation"
    assert len(ready(device)) == KEPT


def test_down_and_a_new_key_wipe_them() -> None:
    device = one_peer()
    device.up(START_NS)
    fill(device)
    device.down()
    assert ready(device) == []
    assert not device.wants_ahead()
    device.up(START_NS)
    fill(device)
    device.set_private_key(private_key("another"))
    assert ready(device) == []


def test_an_initiation_takes_what_was_made_for_its_peer() -> None:
    device = one_peer()
    device.up(START_NS)
    fill(device)
    before = ready(device)
    peer = reference.Peer(private_key("theirs"), public_key("ours"), bytes(32))
    device.send(START_NS, packet("10.0.0.1", "10.0.0.2"))
    [(initiation, _)] = device.transmits(START_NS)
    peer.consume_initiation(initiation)
    assert set(before) - set(ready(device)) == {initiation[8:40]}
    response, session = peer.response(7)
    device.receive(START_NS, response, HOME)
    [(datagram, _)] = device.staged(START_NS)
    assert session.open(datagram).startswith(packet("10.0.0.1", "10.0.0.2"))


def test_a_response_leaves_the_initiations_pair_alone() -> None:
    device = one_peer()
    device.up(START_NS)
    fill(device)
    peer = reference.Peer(private_key("theirs"), public_key("ours"), bytes(32))
    used = set()
    for i in range(KEPT + 1):
        now_ns = START_NS + i * SECOND
        device.receive(now_ns, peer.initiation(i, tai64n(START_UNIX_NS + now_ns)), HOME)
        [(response, _)] = device.transmits(now_ns)
        peer.consume_response(response)
        used.add(response[12:44])
        assert len(ready(device)) == max(0, KEPT - 1 - i)
    assert len(used) == KEPT + 1, "the last one made on the spot"


def test_a_removed_peer_takes_its_own_along() -> None:
    device = one_peer()
    device.add_peer(public_key("third"))
    device.up(START_NS)
    fill(device)
    device.remove_peer(public_key("theirs"))
    assert len(ready(device)) == KEPT - 1


def test_a_low_order_peer_gets_nothing() -> None:
    device = Device(5)
    device.set_private_key(private_key("ours"))
    device.add_peer(bytes(32))
    device.set_endpoint(START_NS, bytes(32), HOME)
    device.up(START_NS)
    assert fill(device) == KEPT
    device.initiate(START_NS, bytes(32))
    assert device.transmits(START_NS) == []


def test_many_peers_get_no_pair_of_their_own() -> None:
    device = one_peer()
    for i in range(2):
        device.add_peer(public_key(f"more {i}"))
        device.set_endpoint(START_NS, public_key(f"more {i}"), HOME)
    device.up(START_NS)
    assert fill(device) == KEPT


def test_no_key_pair_is_ever_used_twice() -> None:
    """Two devices over thousands of handshakes, making ahead at random moments."""
    chance = random.Random(7)
    pair = Pair()
    seen: set[bytes] = set()
    initiations = responses = 0
    for _ in range(1500):
        side = chance.choice((pair.alice, pair.bob))
        for device in (pair.alice.device, pair.bob.device):
            for _ in range(chance.randrange(4)):
                device.make_ahead()
            ready(device)
        if chance.random() < 0.02:
            side.device.down()
            side.device.up(pair.now_ns)
        side.device.expire_session(pair.other(side).public)
        pair.now_ns += 6 * SECOND
        pair.send(side)
        for sender in (pair.alice, pair.bob):
            for _, datagram in sender.sent:
                if kind(datagram) not in (INITIATION, RESPONSE):
                    continue
                at = 8 if kind(datagram) == INITIATION else 12
                initiations += kind(datagram) == INITIATION
                responses += kind(datagram) == RESPONSE
                assert datagram[at : at + 32] not in seen
                seen.add(datagram[at : at + 32])
            sender.sent.clear()
    assert initiations > 1400
    assert responses > 1400
    assert pair.alice.received
    assert pair.bob.received


def test_staged_packets_whose_session_ended_get_another_handshake() -> None:
    """The session is made, but its staged packet is looked at only when it has expired."""
    device = one_peer()
    device.up(START_NS)
    peer = reference.Peer(private_key("theirs"), public_key("ours"), bytes(32))
    device.send(START_NS, packet("10.0.0.1", "10.0.0.2"))
    [(initiation, _)] = device.transmits(START_NS)
    peer.consume_initiation(initiation)
    device.receive(START_NS, peer.response(7)[0], HOME)
    later_ns = START_NS + 181 * SECOND
    assert device.staged(later_ns) == []
    [(again, _)] = device.transmits(later_ns)
    assert kind(again) == INITIATION
    peer.consume_initiation(again)
    response, session = peer.response(8)
    device.receive(later_ns, response, HOME)
    [(datagram, _)] = device.staged(later_ns)
    assert session.open(datagram).startswith(packet("10.0.0.1", "10.0.0.2"))
