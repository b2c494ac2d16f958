"""Blind attackers and floods: established connections go on, limits hold."""

from __future__ import annotations

import random

import pytest

from cext.netstack import testing
from cext.netstack.testing import Stack
from tests.support import segments
from tests.support.netstack import OURS, Peer, listening
from tests.support.segments import ACK, FIN, RST, SYN

WINDOW = 65535


def established(**arguments: object) -> Peer:
    peer = Peer(listening(**arguments))
    peer.handshake()
    peer.stack.send(peer.handle, b"x" * 1000)
    assert len(peer.receive()) == 1
    return peer


def is_alive(peer: Peer, at: int = 1) -> bool:
    before = len(peer.stack.received.get(peer.handle, b""))
    peer.send(ACK, at, 1001, b"still here")
    peer.sleep(1000)
    peer.receive()
    return bytes(peer.stack.received[peer.handle][before:]) == b"still here"


# RFC 5961: (flags, offset from rcv_nxt, kills, answered by a challenge ACK)
BLIND = [
    (RST, 0, True, False),
    (RST, 1, False, True),
    (RST, 30000, False, True),
    (RST, -1, False, False),
    (RST, 1 << 20, False, False),
    (RST | ACK, 1, False, True),
    (SYN, 0, False, True),
    (SYN, 100, False, True),
    (SYN, 1 << 30, False, True),
    (SYN | ACK, 0, False, True),
]


@pytest.mark.parametrize(("flags", "offset", "kills", "challenged"), BLIND)
def test_blind_reset_and_syn(flags: int, offset: int, kills: bool, challenged: bool) -> None:
    peer = established()
    peer.send(flags, 1 + offset, 1 if flags & ACK else None)
    got = peer.receive()
    if kills:
        assert peer.stack.events()[-1][1] & testing.EVENT_CLOSED
        return
    assert [(s.flags, s.ack) for s in got] == ([(ACK, 1)] if challenged else [])
    assert is_alive(peer)


def test_resets_sampled_over_the_window_do_not_kill() -> None:
    peer = established()
    for offset in range(1, WINDOW, 97):
        peer.send(RST, 1 + offset)
    assert len(peer.receive()) == 1  # challenge ACKs are limited
    assert is_alive(peer)


@pytest.mark.parametrize("ack", [1002, 50_000, 1 << 31, -70_000])
def test_blind_data_needs_a_believable_ack(ack: int) -> None:
    peer = established()
    peer.send(ACK, 1, ack, b"evil")
    assert peer.handle not in peer.stack.received
    assert [s.ack for s in peer.receive()] == [1]
    assert is_alive(peer)


def test_challenges_are_limited_per_connection() -> None:
    peer = established()
    answers = 0
    for _ in range(100):
        peer.send(SYN, 5)
        answers += len(peer.receive())
        peer.sleep(10)
    assert 1 <= answers <= 4


def test_syn_flood_leaves_room_for_real_clients() -> None:
    stack = listening(syn_requests=30)
    real = Peer(stack, theirs=("10.0.0.5", 999), peer=2)
    for i in range(5000):
        stack.input(
            segments.tcp((f"10.1.{i >> 8 & 255}.{i & 255}", 1000 + i), OURS, SYN, i,
                        opts=segments.options(mss=1400)), peer=1,
        )  # fmt: skip
        stack.packets()
    usage = stack.usage()
    assert usage["syn"] == 10  # a third for one peer
    assert usage["tcp"] == 0
    assert usage["blocks"] <= 1
    assert stack.statistics()["cookies_sent"] == 4990
    real.handshake()
    real.send(ACK, 1, 1, b"hello")
    assert stack.received[real.handle] == b"hello"


@pytest.mark.parametrize("ts", [False, True])
@pytest.mark.parametrize("delay_ms", [0, 60_000])
def test_syn_cookie_makes_a_connection(ts: bool, delay_ms: int) -> None:
    stack = listening(syn_requests=3)
    Peer(stack, theirs=("10.0.0.7", 7)).send(SYN, 0)
    stack.packets()
    peer = Peer(stack, ts=ts)
    opts = segments.options(mss=1400, wscale=9, sack_ok=True, ts=(peer.clock, 0) if ts else None)
    peer.send(SYN, 0, opts=opts)
    answer = peer.one()
    assert (answer.flags, answer.ack) == (SYN | ACK, 1)
    assert stack.usage()["syn"] == 1
    peer.sleep(delay_ms)
    stack.packets()
    peer.clock += 1
    peer.send(ACK, 1, 1, b"data with the ACK")
    ((handle, raised, _, _),) = stack.events()
    assert raised & testing.EVENT_CONNECTED
    info = stack.info(handle)
    assert info["mss"] == (1368 if ts else 1380)
    assert (info["sack_ok"], info["snd_scale"]) == ((True, 9) if ts else (False, 0))
    assert stack.received[handle] == b"data with the ACK"
    assert stack.statistics()["cookies_accepted"] == 1


def test_guessed_and_stale_cookies_are_refused() -> None:
    stack = listening(syn_requests=3)
    Peer(stack, theirs=("10.0.0.7", 7)).send(SYN, 0)
    stack.packets()
    peer = Peer(stack)
    peer.send(SYN, 0)
    peer.one()
    for wrong in (2, 0, 1 << 24, 1 << 27):
        peer.send(ACK, 1, wrong)
        assert all(s.flags & RST for s in peer.receive())
    peer.send(ACK, 2, 1)  # right cookie, other sequence number
    assert all(s.flags & RST for s in peer.receive())
    peer.sleep(140_000)
    stack.packets()
    peer.send(ACK, 1, 1)
    assert all(s.flags & RST for s in peer.receive())
    assert stack.usage()["tcp"] == 0


def test_dial_flood_is_bounded_and_fair() -> None:
    stack = Stack(syn_requests=30)
    for i in range(300):
        stack.input(segments.tcp(("10.1.0.1", 1000 + i), ("192.0.2.1", 80), SYN, i), peer=1)
    assert stack.usage()["syn"] == 10
    assert stack.drops()["ns_half_open_full"] == 290
    stack.input(segments.tcp(("10.2.0.1", 5), ("192.0.2.1", 80), SYN, 0), peer=2)
    assert stack.usage()["syn"] == 11
    assert stack.packets() == []


def test_backlog_is_kept() -> None:
    stack = listening(backlog=3)
    for port in range(10):
        peer = Peer(stack, theirs=("10.0.0.9", 1000 + port))
        peer.send(SYN, 0)
        answers = peer.receive()
        if answers:
            peer.send(ACK, 1, 1)
    assert stack.usage()["tcp"] == 3
    assert len(stack.events()) == 3
    peer = Peer(stack, theirs=("10.0.0.9", 5000))
    peer.handshake()


def test_out_of_order_flood_stays_within_the_flow_and_the_slab() -> None:
    stack = listening(space=1 << 20, flow_rx_bytes=200_000, mtu=1420)
    victim = Peer(stack, theirs=("10.0.0.5", 5))
    victim.handshake()
    attacker = Peer(stack)
    attacker.handshake(wscale=2)
    for i in range(5000):
        attacker.send(ACK, 3 + 2 * i, 1, b"z")  # one byte, one missing: worst for blocks
        stack.packets()
    usage = stack.usage()
    assert usage["blocks"] * usage["block_bytes"] <= 200_000 + 3 * usage["block_bytes"]
    assert stack.check() == 0
    victim.send(ACK, 1, 1, b"fine")
    assert stack.received[victim.handle] == b"fine"
    attacker.send(RST, 1)
    assert stack.usage()["blocks"] <= 2


def test_many_flows_out_of_order_leave_the_last_blocks_to_control() -> None:
    stack = listening(ram_bytes=1 << 24)
    peers = []
    for port in range(200):
        peer = Peer(stack, theirs=("10.0.0.9", 1000 + port))
        peer.handshake()
        peers.append(peer)
    for at in range(2001, 60_000, 2000):
        for peer in peers:
            peer.send(ACK, at, 1, b"o" * 1000)
            stack.packets()
    usage = stack.usage()
    assert usage["blocks"] <= usage["blocks_cap"] * 7 // 8 + 1
    assert stack.drops()["ns_slab_full"] > 0
    for peer in peers:  # the hole fills, in order bytes need no block
        peer.send(ACK, 1, 1, b"i" * 1000)
        assert len(stack.received[peer.handle]) >= 1000
    assert stack.check() == 0


def test_slow_readers_close_their_windows() -> None:
    stack = listening(ram_bytes=1 << 24, space=100_000)
    stack.take = lambda handle, length: 0
    peers = []
    for port in range(30):
        peer = Peer(stack, theirs=("10.0.0.9", 1000 + port))
        peer.handshake()
        peer.right = 1 + 65535
        peer.at = 1
        peers.append(peer)
    for _ in range(100):
        for peer in peers:
            if peer.at + 1000 <= peer.right:
                peer.send(ACK, peer.at, 1, b"p" * 1000)
            for s in peer.receive():
                assert s.ack + s.window >= peer.right  # never moves back
                peer.at, peer.right = s.ack, s.ack + s.window
    usage = stack.usage()
    assert usage["blocks"] <= usage["blocks_cap"] * 7 // 8 + 1
    assert stack.check() == 0


def test_flow_table_evicts_the_longest_idle_of_the_same_peer() -> None:
    stack = listening(tcp_flows=8)
    handles = []
    for port in range(6):
        peer = Peer(stack, theirs=("10.0.0.9", 1000 + port), peer=1)
        handles.append(peer.handshake())
    Peer.sleep(peer, 20_000)
    peer = Peer(stack, theirs=("10.0.0.8", 9), peer=2)
    peer.stack_now = 10**15 + 20 * 10**9
    peer.handshake()  # another peer's: nobody has to go
    assert stack.statistics()["evicted"] == 0
    peer = Peer(stack, theirs=("10.0.0.9", 2000), peer=1)
    peer.send(SYN, 0)
    peer.one()
    peer.send(ACK, 1, 1)
    raised = {handle: (mask, reason) for handle, mask, reason, _ in stack.events()}
    assert raised[handles[0]] == (testing.EVENT_CLOSED, testing.REASON_EVICTED)
    assert handles[1] not in raised


def test_full_flow_table_resets() -> None:
    stack = listening(tcp_flows=2)
    for port in range(2):
        Peer(stack, theirs=("10.0.0.9", 1000 + port)).handshake()
    peer = Peer(stack, theirs=("10.0.0.9", 3000))
    peer.send(SYN, 0)
    peer.one()
    peer.send(ACK, 1, 1)
    assert peer.one().flags == RST


def test_resets_and_errors_are_limited() -> None:
    stack = Stack(has_admit=False, icmp_errors_s=50)
    answers = 0
    for i in range(1000):
        stack.input(segments.tcp(("10.0.0.9", 1 + i), OURS, ACK, 0, 5))
        answers += len(stack.packets())
    assert answers == 50


def test_noise_never_breaks_an_invariant() -> None:
    """Random segments around the window of one connection, with time passing."""
    for seed in range(30):
        rng = random.Random(seed)
        peer = established(user_timeout_s=5)
        for _ in range(300):
            flags = rng.choice([ACK, ACK, ACK, ACK | FIN, RST, SYN, SYN | ACK, 0, FIN])
            seq = 1 + rng.choice([0, 0, 1, 5, 1000, 60_000, 1 << 31, -1, -1000])
            ack = rng.choice([1, 500, 1001, 1002, 5000, -1, 1 << 31])
            sacks = tuple(
                (a, a + rng.choice([1, 500, -5, 1 << 30]))
                for a in rng.choices([1, 500, 1001, 4000, -10], k=rng.randrange(4))
            )
            peer.send(flags, seq, ack, bytes(rng.choice([0, 0, 1, 1000])),
                      window=rng.choice([0, 1, 1000, 65535]), sacks=sacks)  # fmt: skip
            if rng.random() < 0.2:
                peer.stack.send(peer.handle, b"y" * rng.randrange(3000))
            if rng.random() < 0.1:
                peer.sleep(rng.choice([1, 50, 300, 2000]))
            if rng.random() < 0.02:
                peer.stack.shutdown(peer.handle)
            peer.stack.packets()
            assert peer.stack.check() == 0, seed


def test_ack_flood_over_the_window_of_a_live_connection() -> None:
    """Blind ACKs, bare and with a byte: nothing is kept, and answers are limited."""
    rng = random.Random(4)
    peer = established()
    answers = 0
    for i in range(20_000):
        ack = rng.randrange(2002, 1 << 32) if i % 2 else rng.randrange(1 << 31, 1 << 32)
        peer.send(ACK, 1 + rng.randrange(WINDOW), ack, b"z" * (i % 3 == 0))
        if i % 100 == 0:
            answers += len(peer.receive())
            peer.sleep(5)
    # A second in all: two challenges, and what their limit lets out at its edges.
    assert answers <= 4
    assert peer.stack.usage()["blocks"] <= 1
    assert peer.stack.drops()["ns_rate_limited"] > 10_000
    assert peer.stack.check() == 0
    assert is_alive(peer)


def test_tiny_segments_to_a_reader_that_sleeps() -> None:
    """One byte each, in order: they fill blocks, not a block each."""
    stack = listening(space=1 << 20)
    victim = Peer(stack, theirs=("10.0.0.5", 5))
    victim.handshake()
    stack.take = lambda handle, length: length if handle == victim.handle else 0
    attacker = Peer(stack)
    attacker.handshake(wscale=4)
    for i in range(30_000):
        attacker.send(ACK, 1 + i, 1, b"t")
        if i % 8 == 0:
            stack.packets()
    usage = stack.usage()
    assert stack.info(attacker.handle)["parked"] == 30_000
    assert usage["blocks"] * usage["block_bytes"] <= 30_000 * 1.2 + usage["block_bytes"]
    assert stack.check() == 0
    victim.send(ACK, 1, 1, b"fine")
    assert stack.received[victim.handle] == b"fine"


@pytest.mark.parametrize("shut", [False, True])
def test_peers_that_never_take_what_we_send(shut: bool) -> None:
    """They ask for much and then shut the window, or go silent: the slab keeps its cap."""
    stack = listening(ram_bytes=1 << 24, user_timeout_s=60)
    greedy = []
    for port in range(200):
        peer = Peer(stack, theirs=("10.0.0.9", 1000 + port))
        peer.handshake(wscale=4)
        greedy.append(peer)
    queued = 0
    for _ in range(4):
        for peer in greedy:
            queued += max(0, stack.send(peer.handle, bytes(100_000)))
            stack.packets()
    if shut:
        for peer in greedy:
            peer.send(ACK, 1, 1, window=0)
    usage = stack.usage()
    assert queued > 500_000
    assert usage["blocks"] <= usage["blocks_cap"] * 15 // 16 + 1
    # Another client comes, writes and is answered all the same.
    victim = Peer(stack, theirs=("10.0.0.5", 5))
    victim.handshake()
    victim.send(ACK, 1, 1, b"fine")
    assert stack.received[victim.handle] == b"fine"
    stack.packets()
    assert stack.check() == 0
    if not shut:
        greedy[0].stack_now = victim.stack_now
        greedy[0].sleep(400_000)  # nobody answers: all of it is given up
        for _ in range(100):
            stack.packets()
            greedy[0].sleep(1000)
        assert stack.usage()["blocks"] <= 1


def test_datagrams_of_one_peer_do_not_sweep_out_the_flows_of_others() -> None:
    stack = listening(udp_flows=30)
    stack.listen(53, protocol=17)

    def send(source: str, port: int, peer: int) -> None:
        data = segments.udp((source, port), ("10.0.0.1", 53), b"?")
        stack.input(segments.ip(source, OURS[0], 17, data), peer=peer)
        for handle, raised, _, _ in stack.events():
            if raised & testing.EVENT_CLOSED:
                stack.close(handle)

    for port in range(8):
        send("10.0.0.9", 1000 + port, 1)
    for port in range(5_000):
        send("10.0.0.8", 1 + port, 2)
    before = stack.statistics()["opened"]
    for port in range(8):
        send("10.0.0.9", 1000 + port, 1)
    assert stack.statistics()["opened"] == before
    # Somebody new gets a place all the same, and may have as many as a third.
    for port in range(10):
        send("10.0.0.7", 1 + port, 3)
    before = stack.statistics()["opened"]
    for port in range(10):
        send("10.0.0.7", 1 + port, 3)
    assert stack.statistics()["opened"] == before
    assert stack.check() == 0


def test_fragments_of_one_peer_do_not_end_the_datagrams_of_others() -> None:
    stack = listening(reassemblies=12, reassembly_blocks=60)
    stack.listen(53, protocol=17)
    data = segments.udp(("10.0.0.9", 9), ("10.0.0.1", 53), b"whole" * 300)
    cut = 800
    first = segments.ip("10.0.0.9", OURS[0], 17, data[:cut], ident=7, fragment=0x2000)
    last = segments.ip("10.0.0.9", OURS[0], 17, data[cut:], ident=7, fragment=cut // 8)
    stack.input(first, peer=1)
    flood = segments.udp(("10.0.0.8", 9), ("10.0.0.1", 53), bytes(1000))[:800]
    for ident in range(2_000):
        stack.input(
            segments.ip("10.0.0.8", OURS[0], 17, flood, ident=ident, fragment=0x2000), peer=2
        )
    assert stack.usage()["reassemblies"] <= 12
    stack.input(last, peer=1)
    assert [datagram[2] for datagram in stack.datagrams] == [b"whole" * 300]


def test_fragments_never_hold_more_than_their_share() -> None:
    """First fragments only, from everywhere: reassembly has its own bound in the slab."""
    stack = listening(ram_bytes=1 << 24, reassemblies=16, reassembly_blocks=40)
    live = Peer(stack)
    live.handshake()
    first = segments.udp(("10.7.0.1", 9), ("10.0.0.1", 53), bytes(2900))[:1400]
    for i in range(10_000):
        source = f"10.7.{i >> 8}.{i & 255}"
        stack.input(
            segments.ip(source, OURS[0], 17, first, ident=i, fragment=0x2000 | i % 3 * 175), peer=3
        )
        stack.packets()
        assert stack.usage()["reassemblies"] <= 16
    assert stack.statistics()["fragments_in"] == 10_000
    assert stack.usage()["blocks"] <= 41
    live.send(ACK, 1, 1, b"fine")
    assert stack.received[live.handle] == b"fine"
