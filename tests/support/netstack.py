"""A hand-made TCP peer for a stack under test: every segment is the test's decision."""

from __future__ import annotations

from cext.netstack import testing
from tests.support import segments
from tests.support.segments import ACK, SYN, Segment

MS = 1_000_000
OURS = ("10.0.0.1", 80)
THEIRS = ("10.0.0.9", 40000)


class Peer:
    """Talks to `stack` from THEIRS to OURS (or the IPv6 forms), sequence numbers from 0."""

    def __init__(
        self,
        stack: testing.Stack,
        *,
        ours: tuple[str, int] = OURS,
        theirs: tuple[str, int] = THEIRS,
        isn: int = 1000,
        ts: bool = False,
        peer: int = 0,
    ) -> None:
        self.stack, self.ours, self.theirs, self.peer = stack, ours, theirs, peer
        self.isn, self.iss, self.handle = isn, 0, 0
        self.ts, self.clock = ts, 5000
        self.ts_recent = 0

    def send(
        self,
        flags: int,
        seq: int,
        ack: int | None = None,
        payload: bytes = b"",
        *,
        window: int = 65535,
        opts: bytes | None = None,
        sacks: tuple[tuple[int, int], ...] = (),
        urgent: int = 0,
    ) -> None:
        """`seq` counts from the SYN as 0, `ack` and `sacks` from the stack's SYN as 0."""
        if opts is None:
            stamp = (self.clock, self.ts_recent) if self.ts else None
            ranges = tuple((a + self.iss, b + self.iss) for a, b in sacks)
            opts = segments.options(ts=stamp, sacks=ranges)
        number = 0 if ack is None else (self.iss + ack) % 2**32
        self.stack.input(
            segments.tcp(
                self.theirs,
                self.ours,
                flags,
                self.isn + seq,
                number,
                payload,
                window=window,
                opts=opts,
                urgent=urgent,
            ),
            peer=self.peer,
        )

    def receive(self) -> list[Segment]:
        """What the stack sends now; sequence numbers counted from 0 as in send()."""
        found = []
        for data in self.stack.packets():
            s = segments.parse_tcp(data)
            if s.flags & SYN:
                self.iss = s.seq
            if s.ts is not None:
                self.ts_recent = s.ts[0]
            found.append(
                Segment(
                    s.source, s.destination, s.flags, (s.seq - self.iss) % 2**32,
                    (s.ack - self.isn) % 2**32 if s.flags & ACK else 0, s.window, s.payload,
                    s.mss, s.wscale, s.sack_ok, s.ts,
                    tuple(((a - self.isn) % 2**32, (b - self.isn) % 2**32) for a, b in s.sacks),
                )
            )  # fmt: skip
        return found

    def one(self) -> Segment:
        got = self.receive()
        assert len(got) == 1, got
        return got[0]

    def sleep(self, ms: float) -> None:
        """Let virtual time pass, calling the stack wherever it wants to be called."""
        end = self.stack_now + int(ms * MS)
        self.clock += int(ms)
        while (at := self.stack.poll_at()) is not None and self.stack_now < at <= end:
            self.stack_now = at
            self.stack.poll(at)
        self.stack_now = end
        self.stack.poll(end)

    stack_now = 10**15

    def wait(self, most_ms: float = 200_000) -> float:
        """Let time pass until the stack sends; milliseconds that passed."""
        start = self.stack_now
        end = start + int(most_ms * MS)
        while not self.stack.has_output():
            at = self.stack.poll_at()
            if at is None or at > end:
                self.stack.poll(end)
                self.stack_now = end
                break
            self.stack_now = max(at, self.stack_now)
            self.stack.poll(self.stack_now)
        passed = (self.stack_now - start) / MS
        self.clock += int(passed)
        return passed

    def handshake(self, *, mss: int | None = 1380, wscale: int | None = None, sack: bool = True,
                  window: int = 65535, rtt_ms: float = 0) -> int:  # fmt: skip
        """Open a connection to the listener; the handle."""
        stamp = (self.clock, 0) if self.ts else None
        opts = segments.options(mss=mss, wscale=wscale, sack_ok=sack, ts=stamp)
        self.send(SYN, 0, opts=opts, window=window)
        answer = self.one()
        assert answer.flags == SYN | ACK
        assert answer.ack == 1
        if rtt_ms:
            self.sleep(rtt_ms)
        self.send(ACK, 1, 1, window=window)
        event = self.stack.events()[-1]
        assert event[1] & testing.EVENT_CONNECTED
        self.handle = event[0]
        assert self.receive() == []
        return self.handle


def listening(**arguments: object) -> testing.Stack:
    """A stack that listens on port 80 of every address."""
    space = arguments.pop("space", 1 << 20)
    backlog = arguments.pop("backlog", 128)
    arguments.setdefault("addresses", ("10.0.0.1", "fd00::1"))
    stack = testing.Stack(**arguments)
    assert stack.listen(80, space=space, backlog=backlog) >= 0
    return stack
