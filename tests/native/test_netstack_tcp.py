"""TCP segment by segment: each mechanism against a hand-made peer, in virtual time."""

from __future__ import annotations

import itertools

import pytest

from cext.netstack import testing
from tests.support import segments
from tests.support.netstack import OURS, THEIRS, Peer, listening
from tests.support.segments import ACK, FIN, PSH, RST, SYN

MSS = 1380


def connected(*, ts: bool = False, sack: bool = True, window: int = 65535, mss: int = MSS,
              wscale: int | None = None, rtt_ms: float = 0,
              **arguments: object) -> Peer:  # fmt: skip
    peer = Peer(listening(**arguments), ts=ts)
    peer.handshake(sack=sack, window=window, mss=mss, wscale=wscale, rtt_ms=rtt_ms)
    return peer


def events(peer: Peer) -> int:
    """All events of the connection since last asked, as one mask."""
    mask = 0
    for handle, raised, _, _ in peer.stack.events():
        assert handle == peer.handle
        mask |= raised
    return mask


# -- opening --
def test_syn_ack_offers_what_was_asked_for() -> None:
    rows = [
        ({"mss": 1460}, {"mss": 1380, "wscale": None, "sack_ok": False, "ts": None}),
        ({"mss": 1460, "sack_ok": True}, {"sack_ok": True}),
        ({"mss": 1460, "wscale": 7}, {"wscale": 6}),
        ({"mss": 1460, "ts": (77, 0)}, {"mss": 1380}),
        ({}, {"mss": 1380}),
    ]
    for asked, expected in rows:
        peer = Peer(listening())
        peer.send(SYN, 0, opts=segments.options(**asked))
        answer = peer.one()
        assert answer.flags == SYN | ACK
        assert answer.ack == 1
        for name, value in expected.items():
            assert getattr(answer, name) == value, asked
        assert (answer.ts is not None) == ("ts" in asked)
        if answer.ts is not None:
            assert answer.ts[1] == 77


def test_ipv6_connection() -> None:
    peer = Peer(listening(), ours=("fd00::1", 80), theirs=("fd00::9", 1234))
    handle = peer.handshake()
    peer.send(ACK | PSH, 1, 1, b"hello")
    assert peer.stack.received[handle] == b"hello"
    assert peer.stack.send(handle, b"x" * 3000) == 3000
    assert [len(s.payload) for s in peer.receive()] == [1360, 1360, 280]


def test_initial_sequence_numbers_are_keyed_and_move_on() -> None:
    first = Peer(listening(seed=1))
    first.send(SYN, 0)
    other = Peer(listening(seed=2))
    other.send(SYN, 0)
    assert first.one().flags == other.one().flags == SYN | ACK
    assert first.iss != other.iss
    ports = set()
    for port in range(1000, 1020):
        peer = Peer(first.stack, theirs=("10.0.0.9", port))
        peer.send(SYN, 0)
        peer.one()
        ports.add(peer.iss)
    assert len(ports) == 20


def test_syn_ack_is_repeated_then_given_up() -> None:
    peer = Peer(listening())
    peer.send(SYN, 0)
    assert peer.one().flags == SYN | ACK
    waits = []
    for _ in range(3):
        waits.append(round(peer.wait() / 1000))
        assert peer.one().flags == SYN | ACK
    assert waits == [1, 2, 4]
    peer.sleep(60_000)
    assert peer.receive() == []
    assert peer.stack.usage()["syn"] == 0


def test_connect_retries_and_times_out() -> None:
    stack = testing.Stack()
    peer = Peer(stack)
    handle = stack.connect(THEIRS)
    syn = peer.one()
    assert syn.flags == SYN
    assert (syn.mss, syn.wscale, syn.sack_ok) == (1380, 6, True)
    waits = []
    for _ in range(6):
        waits.append(round(peer.wait() / 1000))
        assert peer.one().flags == SYN
    assert waits == [1, 2, 4, 8, 16, 32]
    peer.wait()
    assert stack.events() == [(handle, testing.EVENT_CLOSED, testing.REASON_TIMEOUT, 0)]
    assert stack.close(handle) == 0
    assert stack.usage()["tcp"] == 0


def active(**arguments: object) -> Peer:
    """A peer to which the stack has sent its SYN."""
    stack = testing.Stack(**arguments)
    handle = stack.connect(THEIRS, local=("10.0.0.1", 5555))
    peer = Peer(stack, ours=("10.0.0.1", 5555))
    peer.handle = handle
    assert peer.one().flags == SYN
    return peer


def test_connect() -> None:
    peer = active()
    peer.send(SYN | ACK, 0, 1, opts=segments.options(mss=1000, sack_ok=True))
    assert events(peer) == testing.EVENT_CONNECTED
    assert peer.one().flags == ACK
    assert peer.stack.info(peer.handle)["mss"] == 1000


CONNECT_REFUSED = [
    (RST | ACK, 1, testing.REASON_REFUSED),
    (RST, None, None),  # without ACK: anybody's guess
    (RST | ACK, 2, None),
    (RST | ACK, 0, None),
]


@pytest.mark.parametrize(("flags", "ack", "reason"), CONNECT_REFUSED)
def test_connect_refused(flags: int, ack: int | None, reason: int | None) -> None:
    peer = active()
    peer.send(flags, 0, ack)
    got = peer.stack.events()
    if reason is None:
        assert got == []
    else:
        assert got == [(peer.handle, testing.EVENT_CLOSED, reason, 0)]


def test_wrong_ack_of_a_syn_is_reset() -> None:
    peer = active()
    peer.send(SYN | ACK, 0, 100)
    reset = peer.one()
    assert (reset.flags, reset.seq) == (RST, 100)
    assert peer.stack.info(peer.handle)["state"] == "SYN_SENT"


def test_simultaneous_open() -> None:
    peer = active()
    peer.send(SYN, 0, opts=segments.options(mss=1000))
    answer = peer.one()
    assert (answer.flags, answer.seq, answer.ack) == (SYN | ACK, 0, 1)
    peer.send(SYN | ACK, 0, 1, opts=segments.options(mss=1000))
    assert events(peer) == testing.EVENT_CONNECTED
    peer.send(ACK, 1, 1, b"hi")
    assert peer.stack.received[peer.handle] == b"hi"


# -- the exit handshake --
def dialled(**arguments: object) -> tuple[Peer, int]:
    stack = testing.Stack(**arguments)
    peer = Peer(stack, ours=("192.0.2.1", 443))
    peer.send(SYN, 0, opts=segments.options(mss=1300))
    assert peer.receive() == []
    ((request, raised, _, _),) = stack.events()
    assert raised == testing.EVENT_SYN
    assert stack.tuple(request) == ("192.0.2.1", 443, *THEIRS)
    return peer, request


def test_dial_is_answered_only_after_accept() -> None:
    peer, request = dialled()
    peer.send(SYN, 0, opts=segments.options(mss=1300))  # repeated: still nothing
    assert peer.receive() == []
    assert peer.stack.events() == []
    peer.handle = peer.stack.accept(request, user=7)
    answer = peer.one()
    assert (answer.flags, answer.ack) == (SYN | ACK, 1)
    peer.send(ACK, 1, 1, b"GET /")
    assert peer.stack.events() == [(peer.handle, testing.EVENT_CONNECTED, 0, 7)]
    assert peer.stack.received[peer.handle] == b"GET /"
    assert peer.stack.accept(request) < 0  # the request's handle is spent


REFUSALS = [
    (testing.REFUSE_RESET, None),
    (testing.REFUSE_NETWORK, (3, 0)),
    (testing.REFUSE_HOST, (3, 1)),
    (testing.REFUSE_PORT, (3, 3)),
    (testing.REFUSE_PROHIBITED, (3, 13)),
]


@pytest.mark.parametrize(("how", "icmp"), REFUSALS)
def test_dial_refused(how: int, icmp: tuple[int, int] | None) -> None:
    peer, request = dialled()
    assert peer.stack.refuse(request, how) == 0
    (data,) = peer.stack.packets()
    if icmp is None:
        reset = segments.parse_tcp(data)
        assert (reset.flags, reset.ack) == (RST | ACK, peer.isn + 1)
    else:
        p = segments.parse(data)
        assert (p.protocol, p.payload[0], p.payload[1]) == (segments.ICMP, *icmp)
        assert segments.checksum(p.payload) == 0
        quoted = segments.parse(p.payload[8:])
        assert (quoted.source, quoted.destination) == ("10.0.0.9", "192.0.2.1")
        assert quoted.payload[:4] == (40000).to_bytes(2, "big") + (443).to_bytes(2, "big")
    assert peer.stack.usage()["syn"] == 0


def test_dial_times_out_as_host_unreachable() -> None:
    peer, request = dialled(dial_ms=5000)
    assert 4900 < peer.wait() < 5100
    (data,) = peer.stack.packets()
    assert segments.parse(data).payload[:2] == b"\x03\x01"
    ((handle, raised, _, _),) = peer.stack.events()
    assert (handle, raised) == (request, testing.EVENT_CANCELLED)
    assert peer.stack.accept(request) < 0
    assert peer.stack.refuse(request, testing.REFUSE_RESET) == 0
    assert peer.stack.packets() == []


@pytest.mark.parametrize(("seq", "cancelled"), [(1, True), (0, True), (2, False), (-1, False)])
def test_reset_cancels_a_dial(seq: int, cancelled: bool) -> None:
    peer, _ = dialled()
    peer.send(RST, seq)
    assert bool(peer.stack.events()) == cancelled


# -- receiving --
def test_in_order_bytes_go_straight_to_the_consumer() -> None:
    peer = connected()
    peer.send(ACK, 1, 1, b"abc")
    peer.send(ACK, 4, 1, b"def")
    assert peer.stack.received[peer.handle] == b"abcdef"
    assert peer.stack.usage()["blocks"] == 0


def test_two_full_segments_are_acknowledged_at_once_one_later() -> None:
    peer = connected(delayed_ack_ms=40)
    at = 1
    for _ in range(16):  # the first ones are acknowledged quickly, for the peer's slow start
        peer.send(ACK, at, 1, b"q")
        at += 1
        assert peer.one().ack == at
    peer.send(ACK, at, 1, b"x" * MSS)
    assert peer.receive() == []
    assert 35 < peer.wait() < 45
    assert peer.one().ack == at + MSS
    peer.send(ACK, at + MSS, 1, b"x" * MSS)
    peer.send(ACK, at + 2 * MSS, 1, b"x" * MSS)
    assert peer.one().ack == at + 3 * MSS


def test_sack_blocks_most_recent_first() -> None:
    peer = connected()
    rows = [
        (101, 100, ((101, 201),)),
        (301, 100, ((301, 401), (101, 201))),
        (501, 100, ((501, 601), (301, 401), (101, 201))),
        (701, 100, ((701, 801), (501, 601), (301, 401))),
        (201, 100, ((101, 401), (701, 801), (501, 601))),
    ]
    for seq, length, expected in rows:
        peer.send(ACK, seq, 1, b"x" * length)
        got = peer.one()
        assert got.ack == 1
        if seq != 201:
            assert got.sacks[: len(expected)] == expected
        else:
            # What lay before the remembered ranges joins only in part; never too much.
            assert set(got.sacks[0]) <= {101, 201, 301, 401}
    peer.send(ACK, 1, 1, b"x" * 100)
    assert peer.one().ack == 401


def test_duplicates_are_reported_once() -> None:
    peer = connected()
    peer.send(ACK, 1, 1, b"x" * 100)
    peer.receive()
    peer.send(ACK, 1, 1, b"x" * 100)
    assert peer.one().sacks == ((1, 101),)
    peer.send(ACK, 301, 1, b"x" * 100)
    assert peer.one().sacks == ((301, 401),)
    peer.send(ACK, 51, 1, b"x" * 100)  # half of it is new
    got = peer.one()
    assert got.ack == 151
    assert got.sacks[0] == (51, 101)
    assert peer.stack.received[peer.handle] == b"x" * 150


def test_urgent_pointer_is_ignored() -> None:
    peer = connected()
    peer.send(ACK | segments.URG, 1, 1, b"abc", urgent=2)
    assert peer.stack.received[peer.handle] == b"abc"


def test_what_the_consumer_does_not_take_is_parked_and_shrinks_the_window() -> None:
    peer = connected(space=5000)
    peer.stack.take = lambda handle, length: 0
    edge = 0
    for at in range(1, 5001, 1000):
        peer.send(ACK, at, 1, b"x" * 1000)
        for s in peer.receive():
            assert s.ack + s.window >= edge
            edge = s.ack + s.window
    assert edge == 5001
    assert events(peer) == testing.EVENT_READABLE
    assert peer.stack.info(peer.handle)["parked"] == 5000
    peer.send(ACK, 5001, 1, b"beyond")
    last = peer.one()
    assert (last.ack, last.window) == (5001, 0)
    assert peer.stack.recv(peer.handle, 5000) == b"x" * 5000
    update = peer.one()
    assert (update.ack, update.window) == (5001, 5000)
    assert peer.stack.usage()["blocks"] == 0


def test_end_of_stream_comes_after_the_last_parked_byte() -> None:
    peer = connected()
    peer.stack.take = lambda handle, length: 1
    peer.send(ACK | FIN, 1, 1, b"abc")
    assert events(peer) == testing.EVENT_READABLE
    assert peer.stack.recv(peer.handle) == b"bc"
    assert events(peer) == testing.EVENT_PEER_CLOSED


# -- sending --
def test_initial_window_of_ten_segments() -> None:
    peer = connected()
    assert peer.stack.send(peer.handle, b"x" * 40000) > 20000
    got = peer.receive()
    assert [len(s.payload) for s in got] == [MSS] * 10


def test_super_segments_are_announced_as_runs() -> None:
    peer = connected()
    peer.stack.send(peer.handle, b"x" * (3 * MSS + 5))
    runs = [(len(data), run) for data, run, _, _ in peer.stack.packets_with_run()]
    assert runs == [(1420, 2), (1420, 1), (1420, 0), (45, 0)]


def test_small_window_is_filled_in_part_only_when_it_pays() -> None:
    peer = connected(window=1000)
    peer.stack.send(peer.handle, b"x" * 5000)
    assert [len(s.payload) for s in peer.receive()] == [1000]
    peer.send(ACK, 1, 1001, window=100)  # less than half of the largest: not worth it
    assert peer.receive() == []
    peer.send(ACK, 1, 1001, window=600)
    assert [len(s.payload) for s in peer.receive()] == [380]  # the rest of the one it cut


def test_a_window_that_was_overtaken_says_nothing() -> None:
    """RFC 9293 section 3.10.7.4: SND.WL2 must not move back, or the edge would lie too far."""
    peer = connected(window=4 * MSS)
    peer.stack.send(peer.handle, b"x" * 8 * MSS)
    assert len(peer.receive()) == 4
    peer.send(ACK, 1, 1 + 2 * MSS, window=2 * MSS)  # the right edge stays where it was
    assert peer.receive() == []
    peer.send(ACK, 1, 1 + MSS, window=3 * MSS)  # the same edge, told before, comes later
    assert peer.receive() == []
    assert peer.stack.info(peer.handle)["snd_wnd"] == 2 * MSS


def test_nagle_holds_back_what_is_small() -> None:
    peer = connected()
    peer.stack.set_nagle(peer.handle, True)
    peer.stack.send(peer.handle, b"a")
    assert peer.one().payload == b"a"
    peer.stack.send(peer.handle, b"b")
    peer.stack.send(peer.handle, b"c")
    assert peer.receive() == []
    peer.send(ACK, 1, 2)
    assert peer.one().payload == b"bc"


def test_zero_window_is_probed_for_ever() -> None:
    peer = connected(window=0, user_timeout_s=100)
    peer.stack.send(peer.handle, b"x" * 100)
    assert peer.receive() == []
    waits = []
    for _ in range(12):
        waits.append(peer.wait())
        probe = peer.one()
        assert probe.payload == b""
        peer.send(ACK, 1, 1, window=0)
        assert peer.receive() == []
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(60_000, rel=0.01)
    peer.send(ACK, 1, 1, window=65535)
    assert peer.one().payload == b"x" * 100


def test_zero_window_without_answers_ends_by_user_timeout() -> None:
    peer = connected(window=0, user_timeout_s=30)
    peer.stack.send(peer.handle, b"x")
    for _ in range(20):
        peer.wait()
        if any(s.flags & RST for s in peer.receive()):
            break
    assert peer.stack.events()[-1][1:3] == (testing.EVENT_CLOSED, testing.REASON_TIMEOUT)


# -- timers --
def test_timeout_doubles_and_ends_by_user_timeout() -> None:
    peer = connected(user_timeout_s=20, sack=False)
    peer.stack.send(peer.handle, b"x")
    assert peer.one().payload == b"x"
    waits = []
    while True:
        waits.append(peer.wait())
        (segment,) = peer.receive()
        if segment.flags & RST:
            break
        assert segment.payload == b"x"
    # Handshake in no virtual time: the least RTO.
    assert waits[0] == pytest.approx(200, abs=5)
    for before, after in itertools.pairwise(waits[:-1]):
        assert after == pytest.approx(2 * before, rel=0.02)
    assert peer.stack.events()[-1][1:3] == (testing.EVENT_CLOSED, testing.REASON_TIMEOUT)


def test_keepalive() -> None:
    peer = connected(keepalive_s=60)
    assert peer.wait() == pytest.approx(60_000, abs=1100)
    probe = peer.one()
    assert (probe.seq, probe.payload) == (0, b"")
    peer.send(ACK, 1, 1)
    peer.wait()
    for _ in range(9):
        assert peer.one().seq == 0
        assert peer.wait() == pytest.approx(75_000, abs=100)
    assert peer.one().flags & RST
    assert peer.stack.events()[-1][1:3] == (testing.EVENT_CLOSED, testing.REASON_TIMEOUT)


# -- loss --
def flight(peer: Peer, segments: int) -> None:
    peer.stack.send(peer.handle, b"x" * (segments * MSS))
    assert len(peer.receive()) == segments


def at(segment: int) -> int:
    return 1 + segment * MSS


def test_rack_retransmits_what_later_segments_overtook() -> None:
    peer = connected(rtt_ms=20)
    flight(peer, 10)
    peer.sleep(20)
    peer.send(ACK, 1, at(0), sacks=((at(1), at(4)),))
    again = peer.receive()
    assert [s.seq for s in again][:1] == [at(0)]
    info = peer.stack.info(peer.handle)
    assert info["recovery"] == "fast"
    assert info["ssthresh"] == 10 * MSS * 7 // 10
    peer.send(ACK, 1, at(10))
    assert peer.stack.info(peer.handle)["recovery"] == "open"


def test_fast_retransmit_without_sack() -> None:
    peer = connected(sack=False, rtt_ms=20)
    flight(peer, 10)
    peer.sleep(20)
    for _ in range(2):
        peer.send(ACK, 1, at(0))
        assert at(0) not in [s.seq for s in peer.receive()]
    peer.send(ACK, 1, at(0))
    assert peer.receive()[0].seq == at(0)
    peer.send(ACK, 1, at(3))  # partial: the next hole follows (RFC 6582)
    assert peer.receive()[0].seq == at(3)
    peer.send(ACK, 1, at(10))
    assert peer.stack.info(peer.handle)["recovery"] == "open"


def test_tail_loss_probe_after_two_round_trips() -> None:
    peer = connected(rtt_ms=50)
    flight(peer, 4)
    peer.sleep(50)
    peer.send(ACK, 1, at(1))
    assert peer.receive() == []
    assert peer.wait() == pytest.approx(2 * 50, rel=0.1)
    assert peer.one().seq == at(3)
    peer.sleep(50)
    peer.send(ACK, 1, at(1), sacks=((at(3), at(4)),))
    assert [s.seq for s in peer.receive()] == [at(1)]  # PRR lets one out for one delivered


def test_prr_lets_out_one_for_each_two_delivered() -> None:
    peer = connected(window=65535, wscale=4, rtt_ms=20)
    flight(peer, 10)
    peer.sleep(20)
    peer.stack.send(peer.handle, b"x" * (30 * MSS))
    sent = 0
    for delivered in range(2, 11):
        peer.send(ACK, 1, at(0), sacks=((at(1), at(delivered)),))
        sent += sum(1 for s in peer.receive())
    # ssthresh is 7 of 10: no more than about that share of what was delivered.
    assert 5 <= sent <= 9
    assert peer.stack.info(peer.handle)["pipe"] <= 8 * MSS


def test_spurious_timeout_is_undone_by_timestamps() -> None:
    peer = connected(ts=True, rtt_ms=20)
    peer.stack.send(peer.handle, b"x" * 5 * 1368)
    first = peer.receive()
    stamp = first[0].ts
    assert stamp is not None
    before = peer.stack.info(peer.handle)["cwnd"]
    while peer.stack.info(peer.handle)["recovery"] != "loss":
        peer.wait()
        peer.receive()
    assert peer.stack.info(peer.handle)["cwnd"] < before
    peer.ts_recent = stamp[0]
    peer.send(ACK, 1, 1 + 5 * 1368)
    info = peer.stack.info(peer.handle)
    assert info["recovery"] == "open"
    assert info["cwnd"] >= before


def test_dsack_widens_the_reordering_window() -> None:
    peer = connected(rtt_ms=20)
    flight(peer, 10)
    peer.sleep(20)
    peer.send(ACK, 1, at(0), sacks=((at(1), at(4)),))
    assert peer.receive()[0].seq == at(0)
    peer.send(ACK, 1, at(4), sacks=((at(0), at(1)), (at(4), at(4) + 0)))
    info = peer.stack.info(peer.handle)
    assert info["reorder_mult"] >= 1
    peer.send(ACK, 1, at(5), sacks=((at(0), at(1)),))
    info = peer.stack.info(peer.handle)
    assert info["reorder_mult"] == 2
    assert info["reordering_seen"]


def test_sacks_that_are_taken_back_are_forgotten_at_a_timeout() -> None:
    peer = connected(rtt_ms=20)
    flight(peer, 5)
    peer.sleep(20)
    peer.send(ACK, 1, at(0), sacks=((at(1), at(5)),))
    peer.receive()
    assert peer.stack.info(peer.handle)["sacked"] == 4 * MSS
    peer.send(ACK, 1, at(1))  # moves over what it said it had
    peer.receive()
    for _ in range(3):
        peer.wait()
        peer.receive()
    assert peer.stack.info(peer.handle)["sacked"] == 0


# -- path MTU --
def too_big(peer: Peer, seq: int, mtu: int) -> bytes:
    inner = segments.tcp(peer.ours, peer.theirs, ACK, peer.iss + seq, 0)[:28]
    return segments.icmp("10.0.0.8", "10.0.0.1", 3, 4, mtu.to_bytes(4, "big") + inner)


@pytest.mark.parametrize(("seq", "believed"), [(1, True), (1380, True), (0, False), (99999, False)])
def test_too_big_counts_only_for_what_is_in_flight(seq: int, believed: bool) -> None:
    peer = connected()
    flight(peer, 3)
    peer.stack.input(too_big(peer, seq, 1000))
    info = peer.stack.info(peer.handle)
    assert info["mss"] == (960 if believed else MSS)
    if believed:
        lengths = [len(s.payload) for s in peer.receive()]
        assert sum(lengths) >= 960
        assert max(lengths) == 960
        assert info["cwnd"] >= 10 * MSS


def test_too_big_never_goes_below_the_least_mtu() -> None:
    peer = connected()
    flight(peer, 1)
    peer.stack.input(too_big(peer, 1, 68))
    assert peer.stack.info(peer.handle)["mss"] == 512


# -- PAWS --
def test_old_timestamps_are_refused() -> None:
    peer = connected(ts=True)
    peer.clock += 100
    peer.send(ACK, 1, 1, b"abc")
    peer.receive()
    peer.clock -= 50
    peer.send(ACK, 4, 1, b"def")
    assert peer.stack.received[peer.handle] == b"abc"
    assert peer.stack.drops()["ns_tcp_paws"] == 1
    assert peer.one().ack == 4
    peer.send(RST, 4)  # a reset needs no timestamp
    assert peer.stack.events()[-1][2] == testing.REASON_RESET


# -- closing --
CLOSINGS = [
    # (who begins, its steps): every order in which two FINs and two ACKs can meet
    ("we", "FIN_WAIT_1", "FIN_WAIT_2"),
    ("they", "CLOSE_WAIT", "LAST_ACK"),
    ("both", "FIN_WAIT_1", "CLOSING"),
]


@pytest.mark.parametrize(("who", "first", "second"), CLOSINGS)
def test_close(who: str, first: str, second: str) -> None:
    peer = connected()
    state = lambda: peer.stack.info(peer.handle)["state"]  # noqa: E731
    if who == "they":
        peer.send(ACK | FIN, 1, 1)
        assert peer.one().ack == 2
        assert state() == first
        assert events(peer) == testing.EVENT_PEER_CLOSED
        peer.stack.shutdown(peer.handle)
        fin = peer.one()
        assert fin.flags & FIN
        assert state() == second
        peer.send(ACK, 2, 2)
        assert events(peer) == testing.EVENT_CLOSED
        assert peer.stack.usage()["time_wait"] == 0
    else:
        peer.stack.shutdown(peer.handle)
        assert peer.one().flags & FIN
        assert state() == first
        if who == "we":
            peer.send(ACK, 1, 2)
            assert state() == second
            peer.send(ACK | FIN, 1, 2)
            assert peer.one().ack == 2
        else:
            peer.send(ACK | FIN, 1, 1)
            assert peer.one().ack == 2
            assert state() == second
            peer.send(ACK, 2, 2)
        assert events(peer) & testing.EVENT_CLOSED
        assert peer.stack.usage()["time_wait"] == 1
        peer.send(ACK | FIN, 1, 2)  # our last ACK was lost
        assert peer.one().ack == 2
        peer.sleep(61_000)
        assert peer.stack.usage()["time_wait"] == 0
    assert peer.stack.close(peer.handle) == 0
    assert {k: v for k, v in peer.stack.usage().items() if v and "block" not in k} == {}


def test_half_close_both_ways() -> None:
    peer = connected()
    peer.stack.send(peer.handle, b"request")
    peer.stack.shutdown(peer.handle)
    got = peer.one()
    assert (got.payload, got.flags & FIN) == (b"request", FIN)
    assert peer.stack.send(peer.handle, b"more") < 0
    peer.send(ACK, 1, 9)
    for i in range(50):
        peer.send(ACK, 1 + 10 * i, 9, b"0123456789")
    peer.send(ACK | FIN, 501, 9)
    assert peer.stack.received[peer.handle] == b"0123456789" * 50
    assert events(peer) & testing.EVENT_PEER_CLOSED

    peer = connected()
    peer.send(ACK | FIN, 1, 1, b"question")
    assert events(peer) == testing.EVENT_PEER_CLOSED
    peer.receive()
    assert peer.stack.send(peer.handle, b"answer" * 100) == 600
    assert peer.one().payload == b"answer" * 100


def test_close_with_unread_bytes_resets() -> None:
    peer = connected()
    peer.stack.take = lambda handle, length: 0
    peer.send(ACK, 1, 1, b"never read")
    peer.receive()
    peer.stack.close(peer.handle)
    assert peer.one().flags & RST
    assert peer.stack.usage()["tcp"] == 0


def test_data_for_a_closed_consumer_resets() -> None:
    peer = connected()
    peer.stack.close(peer.handle)
    assert peer.one().flags & FIN
    peer.send(ACK, 1, 2, b"late")
    assert peer.one().flags & RST


def test_orphan_in_fin_wait_2_ends() -> None:
    peer = connected()
    peer.stack.close(peer.handle)
    peer.receive()
    peer.send(ACK, 1, 2)
    peer.sleep(61_000)
    assert peer.stack.usage()["tcp"] == 0


def test_abort() -> None:
    peer = connected()
    assert peer.stack.abort(peer.handle) == 0
    assert peer.one().flags & RST
    assert peer.stack.usage()["tcp"] == 0
    assert peer.stack.send(peer.handle, b"x") < 0


TIME_WAIT_REUSE = [
    ({}, 1000, True),  # without timestamps: a greater sequence number
    ({}, -1000, False),
    ({"ts": 1}, -1000, True),  # RFC 6191: a later timestamp is enough
    ({"ts": -1}, 1000, False),
]


@pytest.mark.parametrize(("options", "seq", "accepted"), TIME_WAIT_REUSE)
def test_time_wait_is_taken_over(options: dict[str, int], seq: int, accepted: bool) -> None:
    peer = connected(ts="ts" in options)
    peer.stack.shutdown(peer.handle)
    peer.receive()
    peer.send(ACK | FIN, 1, 2)
    peer.receive()
    peer.stack.close(peer.handle)
    old = peer.iss
    stamp = (peer.clock + options["ts"], 0) if "ts" in options else None
    peer.send(SYN, 2 + seq, opts=segments.options(mss=1000, ts=stamp))
    (answer,) = peer.stack.packets()
    s = segments.parse_tcp(answer)
    assert (s.flags == SYN | ACK) == accepted
    if accepted:
        assert 0 < (s.seq - old - 2) % 2**32 < 2**31


def test_segments_without_a_connection_are_reset() -> None:
    stack = testing.Stack(has_admit=False)
    rows = [
        (SYN, 5, 0, RST | ACK, 0, 6),
        (ACK, 5, 9, RST, 9, 0),
        (FIN, 5, 0, RST | ACK, 0, 6),
        (RST, 5, 0, None, 0, 0),
        (RST | ACK, 5, 9, None, 0, 0),
    ]
    for flags, seq, ack, answer, rseq, rack in rows:
        stack.input(segments.tcp(THEIRS, OURS, flags, seq, ack))
        got = [segments.parse_tcp(p) for p in stack.packets()]
        if answer is None:
            assert got == []
        else:
            assert [(s.flags, s.seq, s.ack) for s in got] == [(answer, rseq, rack)]
