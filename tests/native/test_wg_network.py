"""Two devices over a hostile network that loses, repeats, reorders, delays, reads and forges."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.wireguard import (
    COOKIE,
    DATA,
    MS,
    SECOND,
    Pair,
    Side,
    address,
    deliver_all,
    kind,
    packet,
    prefix,
)

SIDES = st.booleans()


class HostileNetwork(RuleBasedStateMachine):
    """Everything sent lands in `wire`; the rules decide what arrives, when and how often.

    Eve sees every datagram, may repeat, change and redirect it, and knows all addresses
    and public keys. What must hold: nothing arrives that was not sent, nothing arrives
    twice, no counter is used twice, nothing is readable, and when she goes away the two
    talk again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(handshake_rate=20, handshake_queue=16)
        self.wire: list[tuple[Side, bytes]] = []
        self.pair.network = self.capture
        self.number = 0
        self.inner_sent: dict[str, set[bytes]] = {"alice": set(), "bob": set()}
        self.used: set[tuple[str, bytes]] = set()
        self.psk = 0

    def capture(self, _pair: Pair, sender: Side, datagram: bytes) -> list[tuple[int, bytes]]:
        self.wire.append((sender, datagram))
        if kind(datagram) == DATA:
            header = (sender.name, datagram[4:16])
            assert header not in self.used, "a counter was used twice"
            self.used.add(header)
        assert b"plaintext" not in datagram
        return []

    def side(self, alice: bool) -> Side:
        return self.pair.alice if alice else self.pair.bob

    def arrive(self, sender: Side, datagram: bytes, source: tuple[bytes, int]) -> bytes | None:
        receiver = self.pair.other(sender)
        inner = receiver.device.receive(self.pair.now_ns, datagram, source)
        if inner is not None:
            assert inner in self.inner_sent[sender.name], "nobody sent this"
            assert inner not in receiver.received, "delivered twice"
            receiver.received.append(inner)
        self.pair.flush()
        return inner

    # -- what the two do --

    @rule(alice=SIDES, size=st.integers(0, 100))
    def send(self, alice: bool, size: int) -> None:
        self.number += 1
        payload = b"plaintext %d " % self.number + bytes(size)
        side = self.side(alice)
        self.inner_sent[side.name].add(packet(side.inner, self.pair.other(side).inner, payload))
        self.pair.send(side, payload)

    @rule(alice=SIDES)
    def initiate(self, alice: bool) -> None:
        side = self.side(alice)
        side.device.initiate(self.pair.now_ns, self.pair.other(side).public)
        self.pair.flush()

    @rule(alice=SIDES)
    def expire(self, alice: bool) -> None:
        side = self.side(alice)
        side.device.expire_session(self.pair.other(side).public)

    @rule(alice=SIDES, seconds=st.sampled_from([0, 1, 25]))
    def keepalive(self, alice: bool, seconds: int) -> None:
        side = self.side(alice)
        side.device.set_keepalive(self.pair.now_ns, self.pair.other(side).public, seconds)
        self.pair.flush()

    @rule()
    def change_psk(self) -> None:
        self.psk += 1
        for side in (self.pair.alice, self.pair.bob):
            key = bytes([self.psk % 256] * 32)
            side.device.set_preshared_key(self.pair.other(side).public, key)

    @rule(alice=SIDES)
    def restart(self, alice: bool) -> None:
        side, now_ns = self.side(alice), self.pair.now_ns
        side.device.down()
        side.device.up(now_ns)
        self.pair.flush()

    @rule(alice=SIDES)
    def forget_peer(self, alice: bool) -> None:
        side, other = self.side(alice), self.pair.other(self.side(alice))
        status = self.pair.status(side)
        # Who forgets a peer forgets its last timestamp; that is the administrator's doing.
        self.wire.clear()
        side.device.remove_peer(other.public)
        # The removed peer's memory is what poll_at() asks to release at once.
        assert side.device.poll_at() == 0
        side.device.advance(self.pair.now_ns)
        side.device.add_peer(other.public)
        side.device.set_preshared_key(other.public, status["preshared_key"])
        side.device.set_endpoint(self.pair.now_ns, other.public, other.endpoint)
        side.device.add_allowed_ip(other.public, prefix(other.inner + "/32"))

    @rule(wait_ms=st.sampled_from([1, 20, 400, 5_400, 16_000, 121_000, 181_000, 600_000]))
    def time_passes(self, wait_ms: int) -> None:
        self.pair.run(wait_ms * MS)

    # -- what the network does --

    @precondition(lambda self: self.wire)
    @rule(pick=st.integers(0, 10**6), keep=st.booleans())
    def deliver(self, pick: int, keep: bool) -> None:
        """Any datagram, so order is nobody's; kept ones arrive again some day."""
        at = pick % len(self.wire)
        sender, datagram = self.wire[at] if keep else self.wire.pop(at)
        self.arrive(sender, datagram, sender.endpoint)

    @precondition(lambda self: self.wire)
    @rule()
    def deliver_everything_in_order(self) -> None:
        for _ in range(100):
            if not self.wire:
                return
            sender, datagram = self.wire.pop(0)
            self.arrive(sender, datagram, sender.endpoint)

    @precondition(lambda self: self.wire)
    @rule(pick=st.integers(0, 10**6))
    def lose(self, pick: int) -> None:
        self.wire.pop(pick % len(self.wire))

    @precondition(lambda self: self.wire)
    @rule(pick=st.integers(0, 10**6), port=st.integers(1, 65535))
    def redirect(self, pick: int, port: int) -> None:
        """From another address: right contents move the endpoint, repeated ones do not."""
        sender, datagram = self.wire.pop(pick % len(self.wire))
        self.arrive(sender, datagram, address("198.51.100.66", port))

    @precondition(lambda self: self.wire)
    @rule(pick=st.integers(0, 10**6), bit=st.integers(0, 10**6), cut=st.booleans())
    def forge(self, pick: int, bit: int, cut: bool) -> None:
        sender, datagram = self.wire[pick % len(self.wire)]
        changed = bytearray(datagram)
        changed[bit // 8 % len(changed)] ^= 1 << bit % 8
        if cut:
            changed = changed[: bit % len(changed)]
        receiver = self.pair.other(sender)
        before = self.pair.status(receiver)
        at = bit // 8 % len(datagram)
        # A handshake's sender index and MAC2 are not covered by anything else.
        free = kind(datagram) in (1, 2) and not cut and (4 <= at < 8 or at >= len(datagram) - 16)
        inner = receiver.device.receive(self.pair.now_ns, bytes(changed), address("203.0.113.6", 6))
        assert inner is None
        if not free:
            after = self.pair.status(receiver)
            assert after["endpoint"] == before["endpoint"]
            assert after["rx_bytes"] == before["rx_bytes"]
        self.pair.flush()

    @rule(alice=SIDES, data=st.binary(max_size=200), head=st.integers(0, 5))
    def junk(self, alice: bool, data: bytes, head: int) -> None:
        sender = self.side(alice)
        assert self.arrive(sender, bytes([head, 0, 0, 0]) + data, sender.endpoint) is None

    # -- what must always hold --

    @invariant()
    def bounded(self) -> None:
        for side in (self.pair.alice, self.pair.bob):
            other = self.pair.other(side).public
            sessions = side.device.sessions(other)
            pending = side.device.handshake_index(other) != 0
            assert side.device.indices_in_use() == pending + sum(s is not None for s in sessions)
            at_ns = side.device.poll_at()
            assert at_ns is None or at_ns > self.pair.now_ns

    def teardown(self) -> None:
        """Eve leaves: an unanswered packet starts a handshake, then both directions work."""
        pair = self.pair
        self.wire.clear()
        pair.network = deliver_all
        pair.run(30 * SECOND)
        for side in (pair.alice, pair.bob):
            other = pair.other(side)
            side.device.set_endpoint(pair.now_ns, other.public, other.endpoint)
            pair.send(side, b"wake")
            pair.run(30 * SECOND)
            inner = pair.send(side, b"after all")
            pair.run(10 * SECOND)
            assert inner in other.received
        super().teardown()


HostileNetwork.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_hostile_network = HostileNetwork.TestCase


@pytest.mark.parametrize("seed", range(4))
def test_a_bad_line_for_ten_minutes(seed: int) -> None:
    """20 % loss, repetition, delay up to 80 ms; every packet at most once, most of them."""
    rng, pair = random.Random(seed), Pair(seed=seed)

    def bad_line(_pair: Pair, _sender: Side, datagram: bytes) -> list[tuple[int, bytes]]:
        copies = rng.choices([0, 1, 2], [20, 70, 10])[0]
        return [(rng.randrange(80) * MS, datagram) for _ in range(copies)]

    pair.network = bad_line
    sent = set()
    for i in range(3000):
        side = rng.choice([pair.alice, pair.bob])
        sent.add(pair.send(side, b"%d" % i))
        pair.run(200 * MS)
    received = pair.alice.received + pair.bob.received
    assert len(received) == len(set(received))
    assert set(received) <= sent
    assert len(received) > 0.7 * len(sent)
    assert COOKIE not in pair.kinds(pair.alice) + pair.kinds(pair.bob)


def test_an_outage_of_an_hour_ends_within_ten_seconds() -> None:
    pair = Pair()
    pair.alice.device.set_keepalive(pair.now_ns, pair.bob.public, 25)
    pair.run(60 * SECOND)
    pair.network = lambda *_: []
    pair.run(3600 * SECOND)
    pair.network = deliver_all
    inner = pair.send(pair.alice, b"back")
    pair.run(10 * SECOND)
    assert inner in pair.bob.received
