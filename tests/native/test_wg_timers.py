"""Every timer, by a numbered table in virtual time: what happens when to which side."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from tests.support.wireguard import (
    GIVEN_UP,
    HANDSHAKE,
    KEEPALIVE_LEN,
    MS,
    SECOND,
    START_NS,
    Pair,
    Side,
    address,
    deliver_all,
    kind,
    packet,
)

JITTER = 0.334
REJECT_AFTER_MESSAGES = 2**64 - 1 - 2**13


@dataclass
class Row:
    """What is done at which second, and every message that must then leave.

    Actions: "a>" and "b>" send inner packets, "a!" and "b!" ask for a handshake,
    "deaf" loses everything from then on, "a|" and "b|" lose what that side sends,
    "hear" ends all loss, "a+N" and "b+N" set the persistent keepalive. "a@" is a change
    of the network, "a*" sets the peer's endpoint anew, "a=" another preshared key.
    Messages: side and Initiation, Response, Data or Keepalive, from second to second.
    """

    why: str
    actions: list[tuple[float, str]]
    messages: list[tuple[str, float] | tuple[str, float, float]]
    until: float = 100.0
    counts: dict[str, int] = field(default_factory=dict)


CONNECT: list[tuple[str, float] | tuple[str, float, float]] = [("aI", 0), ("bR", 0), ("aK", 0)]

UNANSWERED = Row(
    "twenty tries, then silence", [(0, "deaf"), (0, "a>")], [], until=1000, counts={"aI": 20}
)

# fmt: off
TABLE = [
    Row("data starts a handshake and confirms it; silence is answered once after 10 s",
        [(0, "a>")], [("aI", 0), ("bR", 0), ("aD", 0), ("bK", 10)]),
    Row("without data a keepalive confirms, and a keepalive is never answered",
        [(0, "a!")], CONNECT),
    Row("an answer in time replaces the keepalive; the answer is answered in turn",
        [(0, "a!"), (1, "a>"), (6, "b>")], [*CONNECT, ("aD", 1), ("bD", 6), ("aK", 16)]),
    Row("the keepalive is owed from the first packet, not from the last",
        [(0, "a!"), (1, "a>"), (9, "a>"), (10.5, "a>")],
        [*CONNECT, ("aD", 1), ("aD", 9), ("aD", 10.5), ("bK", 11)]),
    Row("a packet after the keepalive owes a new one",
        [(0, "a!"), (1, "a>"), (12, "a>")],
        [*CONNECT, ("aD", 1), ("bK", 11), ("aD", 12), ("bK", 22)]),
    Row("asking twice sends one initiation",
        [(0, "deaf"), (0, "a!"), (1, "a!"), (4.9, "a!")], [("aI", 0)], until=4.95),
    Row("an initiation is repeated after 5 s and jitter",
        [(0, "deaf"), (0, "a!")], [("aI", 0), ("aI", 5, 5 + JITTER)], until=9),
    Row("a lost response is repaired by the repetition",
        [(0, "b|"), (0, "a>"), (3, "hear")],
        [("aI", 0), ("bR", 0), ("aI", 5, 5 + JITTER), ("bR", 5, 5 + JITTER),
         ("aD", 5, 5 + JITTER), ("bK", 15, 15 + JITTER)]),
    Row("no answer for 15 s to data begins a new handshake",
        [(0, "a!"), (20, "deaf"), (20, "a>"), (33, "hear")],
        [*CONNECT, ("aD", 20), ("aI", 35, 35 + JITTER), ("bR", 35, 35 + JITTER),
         ("aK", 35, 35 + JITTER)]),
    Row("15 s count from the first unanswered packet",
        [(0, "a!"), (20, "deaf"), (20, "a>"), (30, "a>")],
        [*CONNECT, ("aD", 20), ("aD", 30), ("aI", 35, 35 + JITTER)], until=40),
    Row("anything that comes in ends the wait for an answer",
        [(0, "a!"), (20, "a>"), (29, "b>"), (29.5, "deaf")],
        [*CONNECT, ("aD", 20), ("bD", 29), ("aK", 39)], until=43),
    Row("an unanswered keepalive begins nothing",
        [(0, "a!"), (1, "b>"), (2, "deaf")],
        [*CONNECT, ("bD", 1), ("aK", 11), ("bI", 16, 16 + JITTER)], until=20),
    Row("the initiator renews when it sends after 120 s",
        [(0, "a!"), (119.9, "a>"), (120, "a>")],
        [*CONNECT, ("aD", 119.9), ("aD", 120), ("aI", 120), ("bR", 120), ("aK", 120)],
        until=170),
    Row("the responder leaves renewing to the initiator",
        [(0, "a!"), (121, "b>"), (164.9, "b>"), (170, "a>")],
        [*CONNECT, ("bD", 121), ("aK", 131), ("aI", 131), ("bR", 131), ("aK", 131),
         ("bD", 164.9), ("aD", 170), ("bK", 180)], until=200),
    Row("the initiator renews when it receives after 165 s",
        [(0, "a!"), (165, "b>")],
        [*CONNECT, ("bD", 165), ("aI", 165), ("bR", 165), ("aK", 165)], until=200),
    Row("but not before",
        [(0, "a!"), (164.9, "b>"), (164.95, "a|")], [*CONNECT, ("bD", 164.9)], until=174),
    Row("the last minute's handshake is asked for once",
        [(0, "a!"), (165, "a|"), (165, "b>"), (166, "b>"), (167, "b>")],
        [*CONNECT, ("bD", 165), ("aI", 165), ("bD", 166), ("bD", 167)], until=169.5),
    Row("after 180 s the session is over: the responder begins a new one",
        [(0, "a!"), (179.9, "b|"), (179.9, "b>"), (180, "hear"), (180, "b>")],
        [*CONNECT, ("bD", 179.9), ("bI", 180), ("aR", 180), ("bD", 180), ("aK", 190)],
        until=193),
    Row("persistent keepalive, from the last packet in either direction",
        [(0, "a+25"), (30, "a>")],
        [*CONNECT, ("aK", 25), ("aD", 30), ("bK", 40), ("aK", 65), ("aK", 90)]),
    Row("persistent keepalive renews the session",
        [(0, "a+25")],
        [*CONNECT, ("aK", 25), ("aK", 50), ("aK", 75), ("aK", 100), ("aK", 125), ("aI", 125),
         ("bR", 125), ("aK", 125), ("aK", 150)], until=170),
    Row("persistent keepalive switched off",
        [(0, "a+25"), (30, "a+0")], [*CONNECT, ("aK", 25)], until=119),
    Row("persistent keepalive switched on in a session sends one at once",
        [(0, "a!"), (5, "b+10")], [*CONNECT, ("bK", 5), ("bK", 15), ("bK", 25)], until=30),
    UNANSWERED,
    Row("new data after giving up begins anew",
        [(0, "deaf"), (0, "a>"), (500, "a>")], [], until=1000, counts={"aI": 40}),
    Row("data while trying starts the count again: never given up",
        [(0, "deaf"), *((second, "a>") for second in range(0, 400, 10))],
        [], until=400, counts={"aI": -70}),
    Row("persistent keepalive tries for ever",
        [(0, "deaf"), (0, "a+25")], [], until=1000, counts={"aI": -150}),
    Row("what waits for a session that nobody confirms gets one of its own",
        [(0, "a|"), (0, "b!"), (0.1, "b|"), (0.3, "a>")],
        [], until=5.4, counts={"bI": 2, "aR": 1, "aI": 1}),
    Row("asking again right after a session was made makes no second one",
        [(0, "a!"), (0, "a!"), (1, "a!"), (4.9, "a!"), (4.9, "b!")], CONNECT, until=115),
    Row("nor does it after a session that the other side began",
        [(0, "b!"), (0.2, "a!"), (0.2, "b!")], [("bI", 0), ("aR", 0), ("bK", 0)], until=115),
    Row("but another path is proved by another handshake",
        [(0, "a!"), (2, "a@"), (2, "a!")],
        [*CONNECT, ("aI", 5, 5 + JITTER), ("bR", 5, 5 + JITTER), ("aK", 5, 5 + JITTER)]),
    Row("and so is another endpoint",
        [(0, "a!"), (2, "a*"), (2, "a!")],
        [*CONNECT, ("aI", 5, 5 + JITTER), ("bR", 5, 5 + JITTER), ("aK", 5, 5 + JITTER)]),
    Row("and another preshared key",
        [(0, "a!"), (2, "a="), (2, "b="), (2, "a!")],
        [*CONNECT, ("aI", 5, 5 + JITTER), ("bR", 5, 5 + JITTER), ("aK", 5, 5 + JITTER)]),
]
# fmt: on


def run(row: Row) -> tuple[Pair, list[tuple[float, str]]]:
    pair = Pair()
    timeline: list[tuple[float, str]] = []
    lost: set[str] = set()

    def network(p: Pair, sender: Side, datagram: bytes) -> list[tuple[int, bytes]]:
        letter = {1: "I", 2: "R", 3: "C", 4: "D"}[kind(datagram)]
        if letter == "D" and len(datagram) == KEEPALIVE_LEN:
            letter = "K"
        timeline.append(((p.now_ns - START_NS) / SECOND, sender.name[0] + letter))
        return [] if sender.name[0] in lost else deliver_all(p, sender, datagram)

    pair.network = network
    for second, action in sorted(row.actions, key=lambda item: item[0]):
        pair.run(START_NS + int(second * 1000) * MS - pair.now_ns)
        side = pair.alice if action[0] == "a" else pair.bob
        if action == "deaf":
            lost |= {"a", "b"}
        elif action == "hear":
            lost.clear()
        elif action[1] == "|":
            lost.add(action[0])
        elif action[1] == ">":
            pair.send(side, b"data")
        elif action[1] == "@":
            side.device.clear_sources()
        elif action[1] == "*":
            other = pair.other(side)
            side.device.set_endpoint(pair.now_ns, other.public, other.endpoint)
        elif action[1] == "=":
            side.device.set_preshared_key(pair.other(side).public, bytes(32 * [7]))
        elif action[1] == "!":
            side.device.initiate(pair.now_ns, pair.other(side).public)
        else:
            side.device.set_keepalive(pair.now_ns, pair.other(side).public, int(action[2:]))
        pair.flush()
    pair.run(START_NS + int(row.until * SECOND) - pair.now_ns)
    return pair, timeline


@pytest.mark.parametrize("number", range(len(TABLE)))
def test_table(number: int) -> None:
    row = TABLE[number]
    _, timeline = run(row)
    if row.counts:
        for what, count in row.counts.items():
            found = sum(1 for _, message in timeline if message == what)
            assert found == count if count >= 0 else found >= -count, (row.why, timeline)
        return
    assert [message for _, message in timeline] == [m[0] for m in row.messages], (
        row.why,
        timeline,
    )
    for (second, message), expected in zip(timeline, row.messages, strict=True):
        latest = expected[2] if len(expected) == 3 else expected[1]
        assert expected[1] <= second <= latest + 0.0005, (row.why, message, second)


def test_giving_up_is_an_event_and_forgets_the_staged_packets() -> None:
    pair, timeline = run(UNANSWERED)
    assert [m for _, m in timeline] == ["aI"] * 20
    last = timeline[-1][0]
    assert 95 <= last <= 19 * (5 + JITTER)
    [event] = [e for e in pair.alice.device.events() if e[0] == GIVEN_UP]
    assert event[1] == pair.bob.public
    assert pair.alice.device.drops() == {"wg_staged_expired": 1}
    assert pair.status(pair.alice)["handshake_attempts"] == 20


def test_the_jitter_varies_and_stays_in_its_bounds() -> None:
    _, timeline = run(UNANSWERED)
    moments = [second for second, _ in timeline]
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    assert all(5 <= gap <= 5 + JITTER + 0.0005 for gap in gaps)
    assert len({round(gap, 3) for gap in gaps}) > 15


def test_keys_are_erased_after_540_seconds() -> None:
    pair = Pair()
    pair.connect()
    pair.run(540 * SECOND - 1)
    for side in (pair.alice, pair.bob):
        assert any(side.device.secret_bytes(pair.other(side).public))
    pair.run(1)
    for side in (pair.alice, pair.bob):
        assert not any(side.device.secret_bytes(pair.other(side).public))
        assert side.device.indices_in_use() == 0
        assert side.device.poll_at() is None


def test_a_pending_handshake_is_erased_540_seconds_after_giving_up() -> None:
    pair, _ = run(Row("", [(0, "deaf"), (0, "a!")], [], until=560))
    assert any(pair.alice.device.secret_bytes(pair.bob.public))
    pair.run(100 * SECOND)
    assert not any(pair.alice.device.secret_bytes(pair.bob.public))


def test_counters_above_2_to_the_60_renew_the_session() -> None:
    pair = Pair()
    pair.connect()
    pair.run(SECOND * 6)
    pair.alice.device.set_send_counter(pair.bob.public, 2**60)
    pair.send(pair.alice, b"x")
    assert pair.kinds(pair.alice) == [4, 1, 4], "the packet, and a new handshake with it"
    assert pair.bob.received[0].endswith(b"x")


def test_the_last_counters_are_never_used() -> None:
    pair = Pair()
    pair.connect()
    pair.run(SECOND * 6)
    device = pair.alice.device
    device.set_send_counter(pair.bob.public, REJECT_AFTER_MESSAGES - 1)
    first = device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    assert first is not None
    assert first[0][8:16] == (REJECT_AFTER_MESSAGES - 1).to_bytes(8, "little")
    assert device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2", b"last")) is None
    pair.bob.device.receive(pair.now_ns, first[0], pair.alice.endpoint)
    pair.flush()
    assert pair.bob.received[-1].endswith(b"last"), "in a new session"
    assert device.sessions(pair.bob.public)[1] is not None


def test_a_header_that_claims_a_huge_counter_ends_no_session() -> None:
    pair = Pair()
    pair.connect()
    sealed = pair.alice.device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    assert sealed is not None
    for counter in (REJECT_AFTER_MESSAGES - 1, REJECT_AFTER_MESSAGES, 2**64 - 1):
        forged = sealed[0][:8] + counter.to_bytes(8, "little") + sealed[0][16:]
        assert pair.bob.device.receive(pair.now_ns, forged, pair.alice.endpoint) is None
    assert pair.bob.device.receive(pair.now_ns, sealed[0], pair.alice.endpoint) is not None


def test_retries_let_routing_choose_the_source_again() -> None:
    pair = Pair()
    sticky = address("192.0.2.2", 1002, source="192.0.2.1")
    pair.connect()
    inner = pair.bob.device.send(pair.now_ns, packet("10.0.0.2", "10.0.0.1"))
    assert inner is not None
    pair.alice.device.receive(pair.now_ns, inner[0], sticky)
    assert pair.status(pair.alice)["endpoint"] == sticky
    sent = pair.alice.device.send(pair.now_ns, packet("10.0.0.1", "10.0.0.2"))
    assert sent is not None
    assert sent[1] == sticky
    pair.network = lambda *_: []
    pair.run(16 * SECOND)
    assert pair.kinds(pair.alice)[-1] == 1
    assert pair.status(pair.alice)["endpoint"] == pair.bob.endpoint


def test_poll_at_is_never_late_and_advance_early_is_harmless() -> None:
    pair = Pair()
    pair.connect()
    pair.send(pair.alice, b"x")
    for _ in range(200):
        at_ns = pair.bob.device.poll_at()
        if at_ns is None:
            break
        pair.bob.device.advance(at_ns - 1)
        assert pair.bob.device.transmits(at_ns - 1) == []
        pair.bob.device.advance(at_ns)
        pair.now_ns = at_ns
        pair.bob.device.transmits(at_ns)
    else:
        pytest.fail("timers never come to rest")


def test_thousands_of_peers_fire_in_order() -> None:
    pair = Pair()
    device = pair.alice.device
    keys = [i.to_bytes(4, "little") + bytes([7] * 28) for i in range(2000)]
    for i, key in enumerate(keys):
        device.add_peer(key)
        device.set_endpoint(START_NS, key, address("192.0.2.77", 1 + i))
        device.set_keepalive(START_NS, key, 1 + i % 500)
    device.transmits(START_NS)
    now_ns, fired = START_NS, 0
    while (at_ns := device.poll_at()) is not None and at_ns < START_NS + 12 * SECOND:
        assert at_ns >= now_ns
        now_ns = at_ns
        device.advance(now_ns)
        fired += len(device.transmits(now_ns))
    assert fired == 2 * 2000, "each repeated its initiation twice: after 5 and 10 s"
    for key in keys[::2]:
        device.remove_peer(key)
    device.advance(now_ns)
    device.remove_all_peers()
    device.advance(now_ns)
    assert device.poll_at() is None
    assert not [e for e in device.events() if e[0] == HANDSHAKE]
