"""When a reduction of cwnd is taken back, and when not (RFC 3522, 4015, 3708, 8985 7.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.support.netstack import Peer, listening
from tests.support.segments import ACK

MSS = 1368  # timestamps take twelve bytes
RTT_MS = 20
SEGMENTS = 10


def at(segment: int) -> int:
    return 1 + segment * MSS


@dataclass
class Ack:
    """What the peer says: bytes below `to` are there, and the segments of `sacks`.

    `old`: its timestamp echoes the flight's first transmission; `dsack`: a segment that
    came twice; `quiet`: the stack does not get to send before the next one arrives.
    """

    to: int
    sacks: tuple[tuple[int, int], ...] = ()
    old: bool = True
    dsack: int | None = None
    quiet: bool = False


@dataclass
class Sender:
    """A stack that sent ten segments and the peer that answers them."""

    ts: bool = True
    peer: Peer = field(init=False)
    sent: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.peer = Peer(listening(), ts=self.ts)
        self.peer.handshake(mss=1380 if self.ts else MSS, rtt_ms=RTT_MS)
        self.stamp = self.flight(SEGMENTS)
        self.before = self.info()
        self.peer.sleep(RTT_MS)

    def flight(self, segments: int) -> int:
        """Send so many segments; the timestamp on them."""
        self.peer.stack.send(self.peer.handle, b"x" * (segments * MSS))
        assert len(self.peer.receive()) == segments
        return self.peer.ts_recent

    def info(self) -> dict[str, int | str | bool]:
        info = self.peer.stack.info(self.peer.handle)
        assert info is not None
        return info

    def hear(self, ack: Ack) -> None:
        last = self.peer.ts_recent
        if ack.old:
            self.peer.ts_recent = self.stamp
        ranges = ack.sacks if ack.dsack is None else ((ack.dsack, ack.dsack + 1), *ack.sacks)
        self.peer.send(ACK, 1, at(ack.to), sacks=tuple((at(a), at(b)) for a, b in ranges))
        self.peer.ts_recent = last
        if not ack.quiet:
            self.sent += [(s.seq - 1) // MSS for s in self.peer.receive()]
            # A round trip in small steps, so that echoes can be told apart.
            self.peer.sleep(RTT_MS / 2)

    @property
    def undone(self) -> int:
        return self.peer.stack.statistics()["undone"]


ONE_HOLE = Ack(0, ((1, 6),))
TWO_HOLES = Ack(0, ((1, 2), (3, 10)))

# name, with timestamps, what the peer says, retransmitted, undone
TABLE: list[tuple[str, bool, list[Ack], set[int], int]] = [
    ("the echo answers the original", True, [ONE_HOLE, Ack(6)], {0}, 1),
    ("the echo answers the retransmission", True, [ONE_HOLE, Ack(6, old=False)], {0}, 0),
    ("a SACKed retransmission's echo is always old", True,
     [TWO_HOLES, Ack(0, ((1, 10),)), Ack(10, old=False)], {0, 2}, 0),
    ("both holes were filled by originals", True,
     [TWO_HOLES, Ack(2, ((3, 10),)), Ack(8)], {0, 2}, 1),
    ("one of two was needed: the second", True,
     [TWO_HOLES, Ack(2, ((3, 10),)), Ack(10, old=False)], {0, 2}, 0),
    ("one of two was needed: the first", True,
     [TWO_HOLES, Ack(2, ((3, 10),), old=False), Ack(8)], {0, 2}, 0),
    ("an echo speaks for the first block only", True, [TWO_HOLES, Ack(10)], {0, 2}, 0),
    ("DSACKs speak for what the echo did not", True,
     [TWO_HOLES, Ack(10), Ack(10, dsack=0), Ack(10, dsack=2)], {0, 2}, 1),
    ("two witnesses of one leave the other unexplained", True,
     [TWO_HOLES, Ack(2, ((3, 10),)), Ack(2, ((3, 10),), dsack=0), Ack(10, old=False)],
     {0, 2}, 0),
    ("the same DSACK after both echoes undoes nothing twice", True,
     [ONE_HOLE, Ack(6), Ack(10), Ack(10, dsack=0)], {0}, 1),
    ("the DSACK comes while in recovery", False,
     [ONE_HOLE, Ack(6, dsack=0)], {0}, 1),
    ("the DSACK comes when the recovery is over", False,
     [ONE_HOLE, Ack(10), Ack(10, dsack=0)], {0}, 1),
    ("one DSACK for two retransmissions", False,
     [TWO_HOLES, Ack(10), Ack(10, dsack=2)], {0, 2}, 0),
    ("a DSACK for each of two retransmissions", False,
     [TWO_HOLES, Ack(10), Ack(10, dsack=2), Ack(10, dsack=0)], {0, 2}, 1),
    ("a DSACK of what lies before the recovery: the network doubled it", False,
     [Ack(1), Ack(1, ((2, 7),)), Ack(7), Ack(10), Ack(10, dsack=0)], {1}, 0),
    ("no DSACK at all", False, [ONE_HOLE, Ack(6), Ack(10)], {0}, 0),
    ("it came before the retransmission left", True,
     [Ack(0, ((1, 6),), quiet=True), Ack(6)], set(), 1),
    ("the same without timestamps", False,
     [Ack(0, ((1, 6),), quiet=True), Ack(6)], set(), 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ts", "says", "retransmitted", "undone"),
    [row[1:] for row in TABLE], ids=[row[0] for row in TABLE],
)  # fmt: skip
def test_undo(ts: bool, says: list[Ack], retransmitted: set[int], undone: int) -> None:
    sender = Sender(ts)
    for ack in says:
        sender.hear(ack)
    after = sender.info()
    assert set(sender.sent) == retransmitted
    assert sender.undone == undone
    assert sender.peer.stack.check() == 0
    if undone:
        assert after["cwnd"] >= sender.before["cwnd"]
        assert after["ssthresh"] == sender.before["ssthresh"]
    else:
        assert int(after["ssthresh"]) <= (int(sender.before["cwnd"]) + MSS) * 7 // 10
        assert int(after["cwnd"]) <= int(after["ssthresh"]) + 4 * MSS


@pytest.mark.parametrize("witness", ["echo", "dsack", None])
def test_spurious_timeout(witness: str | None) -> None:
    """The path stalls; then what was sent at first is acknowledged after all."""
    sender = Sender(ts=witness == "echo")
    while sender.info()["recovery"] != "loss":
        sender.peer.wait()
        sender.sent += [(s.seq - 1) // MSS for s in sender.peer.receive()]
    assert sender.sent == [9, 0]  # the tail loss probe, then the timeout
    assert int(sender.info()["cwnd"]) <= MSS
    sender.hear(Ack(10))
    if witness == "dsack":
        sender.hear(Ack(10, dsack=9))
        assert sender.undone == 0  # the probe is not what the timeout sent
        sender.hear(Ack(10, dsack=0))
    assert sender.undone == (witness is not None)
    cwnd = int(sender.info()["cwnd"])
    if witness is None:
        assert cwnd < int(sender.before["cwnd"])
    else:
        assert cwnd >= int(sender.before["cwnd"])
        assert sender.info()["ssthresh"] == sender.before["ssthresh"]


# The probe repeats segment 9; what the peer says, whether cwnd is reduced by it
PROBES: list[tuple[str, list[Ack], bool]] = [
    ("the original was late", [Ack(10), Ack(10, dsack=9)], False),
    ("the receiver does not speak DSACK", [Ack(10), Ack(10)], False),
    ("the probe filled the hole", [Ack(9), Ack(10)], True),
    ("reported before the original's ACK", [Ack(10, dsack=9)], False),
]  # fmt: skip


@pytest.mark.parametrize(("says", "reduced"), [p[1:] for p in PROBES], ids=[p[0] for p in PROBES])
@pytest.mark.parametrize("ts", [True, False])
def test_tail_loss_probe(ts: bool, says: list[Ack], reduced: bool) -> None:
    """RFC 8985 section 7.4: only an ACK beyond the probe proves that it repaired a loss."""
    sender = Sender(ts)
    before = int(sender.before["cwnd"])
    while not sender.sent:
        sender.peer.wait()
        sender.sent += [(s.seq - 1) // MSS for s in sender.peer.receive()]
    assert sender.sent == [9]
    for ack in says:
        sender.hear(ack)
        assert int(sender.info()["cwnd"]) >= before
    sender.flight(2)
    sender.hear(Ack(12, old=False))
    info = sender.info()
    if reduced:
        assert int(info["cwnd"]) < int(info["ssthresh"]) + 3 * MSS
        assert int(info["ssthresh"]) < 1 << 20
        sender.hear(Ack(12, dsack=9))  # it was not needed after all
        assert sender.undone == 1
        assert int(sender.info()["cwnd"]) >= before
    else:
        assert int(info["ssthresh"]) > 1 << 20
    assert sender.peer.stack.check() == 0


def test_slow_start_goes_on_with_hystart_after_an_undo() -> None:
    """The first reduction was needless: what remains is the first slow start."""
    sender = Sender()
    for ack in (ONE_HOLE, Ack(6), Ack(10)):
        sender.hear(ack)
    assert sender.undone == 1
    cwnd = int(sender.info()["cwnd"])
    sender.peer.stack.send(sender.peer.handle, b"x" * 100_000)
    sent = len(sender.peer.receive())
    sender.peer.send(ACK, 1, at(10 + sent))
    assert int(sender.info()["cwnd"]) > cwnd
