"""What is queued goes out in the end, however small the peer's window or cwnd stays."""

from __future__ import annotations

import pytest

from cext.netstack import testing
from tests.support.netstack import THEIRS, Peer, listening
from tests.support.segments import ACK, FIN, SYN, options

MSS = 1380


def with_window(window: int, **arguments: object) -> Peer:
    """A connection whose window was 4000 and shrank when the first byte was acknowledged."""
    peer = Peer(listening(**arguments))
    peer.handshake(window=4000)
    peer.stack.send(peer.handle, b"-")
    assert peer.one().payload == b"-"
    peer.send(ACK, 1, 2, window=window)
    return peer


def test_a_small_window_that_stays_is_filled_after_a_while() -> None:
    """RFC 9293 section 3.8.6.2.1 (4): it may never be larger again."""
    peer = with_window(300, user_timeout_s=5)
    data = bytes(i % 251 for i in range(1000))
    peer.stack.send(peer.handle, data)
    peer.stack.shutdown(peer.handle)
    for at in range(0, 1000, 300):
        if at < 900:
            assert peer.receive() == []
            assert peer.wait() == pytest.approx(200, abs=5)
        part = peer.one()
        assert (part.seq, part.payload) == (2 + at, data[at : at + 300])
        assert bool(part.flags & FIN) == (at == 900)
        peer.send(ACK, 1, 2 + at + len(part.payload) + (at == 900), window=300)
    peer.sleep(20_000)
    assert peer.receive() == []
    assert peer.stack.check() == 0


@pytest.mark.parametrize("room", [384, 385])
def test_a_fin_beyond_the_window_holds_no_data_back(room: int) -> None:
    peer = with_window(room)
    peer.stack.send(peer.handle, b"x" * 384)
    peer.stack.shutdown(peer.handle)
    covered = room == 385
    part = peer.one()
    assert (part.payload, bool(part.flags & FIN)) == (b"x" * 384, covered)
    peer.send(ACK, 1, 386 + covered, window=0)
    assert peer.receive() == []
    assert peer.stack.check() == 0
    if not covered:
        peer.wait()
        assert (peer.one().flags, peer.stack.info(peer.handle)["state"]) == (ACK, "ESTABLISHED")
        peer.send(ACK, 1, 386, window=1)
        last = peer.one()
        assert (last.seq, last.payload, bool(last.flags & FIN)) == (386, b"", True)


def test_the_fin_of_a_full_segment_needs_no_larger_cwnd() -> None:
    """A SYN that was sent again leaves cwnd at one MSS (RFC 5681 section 3.1)."""
    peer = Peer(testing.Stack(), ours=("10.0.0.1", 5555))
    peer.handle = peer.stack.connect(THEIRS, local=peer.ours)
    for _ in range(2):
        peer.wait()
        assert peer.one().flags == SYN
    peer.send(SYN | ACK, 0, 1, opts=options(mss=MSS))
    assert peer.one().flags == ACK
    assert peer.stack.info(peer.handle)["cwnd"] == MSS
    peer.stack.send(peer.handle, b"x" * MSS)
    peer.stack.shutdown(peer.handle)
    last = peer.one()
    assert (len(last.payload), last.flags & FIN) == (MSS, FIN)
    peer.send(ACK, 1, 2 + MSS)
    assert peer.stack.info(peer.handle)["state"] == "FIN_WAIT_2"
