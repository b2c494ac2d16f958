"""The relay against a naive model: streams, half-closes, resets, failing descriptors.

The model of a connection is two byte strings. Whatever happens to packets, batches and
descriptors, what an application reads is a beginning of what the other one wrote; all
of it, once both have ended in order. Nothing is left of a connection behind its end.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.engine.testing_relay import RelayPair

SERVER = ("10.9.0.2", 80)
MOST_TURNS = 20_000


def pattern(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass
class End:
    """An application with what it will send, and what it got."""

    socket: socket.socket
    to_send: bytes
    got: bytearray = field(default_factory=bytearray)
    sent: int = 0
    is_shut: bool = False
    is_ended: bool = False
    is_broken: bool = False

    def write(self, most: int) -> None:
        if self.is_broken or self.is_shut:
            return
        try:
            while most and self.sent < len(self.to_send):
                part = self.to_send[self.sent : self.sent + most]
                n = self.socket.send(part)
                self.sent += n
                most -= n
        except BlockingIOError:
            return
        except OSError:
            self.is_broken = True

    def read(self, most: int) -> None:
        if self.is_broken or self.is_ended:
            return
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return
        except OSError:
            self.is_broken = True
            return
        self.got += data
        self.is_ended = not data

    def shut(self) -> None:
        if self.sent == len(self.to_send) and not self.is_shut and not self.is_broken:
            self.is_shut = True
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.is_broken = True

    def reset(self) -> None:
        with suppress(OSError):  # a socket pair has no linger that matters
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.is_broken = True


class World:
    """Two relays, a server of the host behind the second one, connections by the first."""

    def __init__(self, seed: int, loss: float = 0.0) -> None:
        self.relays = RelayPair()
        self.rng = random.Random(seed)
        self.loss = loss
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.setblocking(False)
        result, _ = self.relays.forward(1, 80, (*self.listener.getsockname(), 0))
        assert result == 0
        self.open: list[socket.socket] = [self.listener]

    def turn(self) -> bool:
        busy = False
        for which in (0, 1):
            lost = 0
            if self.loss:
                lost = sum((self.rng.random() < self.loss) << bit for bit in range(256))
            busy |= self.relays.turn(which, self.rng.randrange(1, 257), lost)
        assert self.relays.check() == 0
        if not busy:
            wait = self.relays.next_ns()
            self.relays.advance(min(wait if wait is not None else 10**9, 10**9))
        else:
            self.relays.advance(10_000)
        return busy

    def connect(
        self,
        sizes: tuple[int, int],
        seed: int,
        early: int,
        data: bytes | None = None,
        request: tuple[int, int | None] | None = None,
    ) -> tuple[End, End]:
        result, flow = self.relays.dial(0, *SERVER)
        assert result == 0
        done: dict[int, int] = {}
        for _ in range(MOST_TURNS):
            self.turn()
            done.update(self.relays.dialled(0))
            if flow in done:
                break
        assert done[flow] == 0
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        data = pattern(seed, sizes[0]) if data is None else data
        assert self.relays.splice(0, flow, theirs.detach(), data[:early], request) == 0
        accepted, _ = self.listener.accept()
        accepted.setblocking(False)
        self.open += [ours, accepted]
        near = End(ours, data, sent=min(early, len(data)))
        return near, End(accepted, pattern(seed + 1, sizes[1]))

    def drain(self) -> None:
        """Until nothing but the listener is left; a reset peer may need its timers."""
        for _ in range(MOST_TURNS):
            if self.relays.flows(0) == 0 and self.relays.flows(1) == 1:
                break
            self.turn()
        assert (self.relays.flows(0), self.relays.flows(1)) == (0, 1)

    def close(self) -> None:
        for opened in self.open:
            opened.close()


SIZE = st.sampled_from([0, 1, 1399, 70_000, 400_000])


@given(
    seed=st.integers(0, 2**32),
    up=SIZE,
    down=SIZE,
    early=st.sampled_from([0, 1, 5000]),
    loss=st.sampled_from([0.0, 0.0, 0.02]),
    chunk=st.sampled_from([1, 1000, 65536]),
    slow=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_streams_end_whole(
    seed: int, up: int, down: int, early: int, loss: float, chunk: int, slow: bool
) -> None:
    if chunk == 1:
        up, down = up // 100, down // 100
    world = World(seed, loss)
    try:
        near, far = world.connect((up, down), seed, early)
        for _ in range(MOST_TURNS):
            for end in (near, far):
                end.write(world.rng.choice([1, chunk, 1 << 20]))
                if not slow or world.rng.random() < 0.1:
                    end.read(world.rng.choice([chunk, 1 << 20]))
                end.shut()
            assert near.to_send.startswith(bytes(far.got))
            assert far.to_send.startswith(bytes(near.got))
            if near.is_ended and far.is_ended:
                break
            world.turn()
        assert not near.is_broken
        assert not far.is_broken
        assert bytes(far.got) == near.to_send
        assert bytes(near.got) == far.to_send
        world.drain()
    finally:
        world.close()


@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["write", "read", "shut", "reset", "close", "turn", "turn"]),
            st.integers(0, 3),
            st.sampled_from([1, 100, 5000, 200_000]),
        ),
        max_size=60,
    ),
    loss=st.sampled_from([0.0, 0.05]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_descriptors_do(seed: int, steps: list[tuple[str, int, int]], loss: float) -> None:
    """Ends vanish at any moment, with bytes unread, while others go on."""
    world = World(seed, loss)
    try:
        ends = [
            end
            for number in range(2)
            for end in world.connect((300_000, 300_000), seed + 2 * number, 0)
        ]
        for what, which, size in steps:
            end, other = ends[which], ends[which ^ 1]
            if what == "turn":
                world.turn()
            elif what == "write":
                end.write(size)
            elif what == "read":
                end.read(size)
            elif what == "shut" and not end.is_broken:
                end.to_send = end.to_send[: end.sent]
                end.shut()
            elif what == "reset":
                end.reset()
            elif what == "close":
                end.socket.close()
                end.is_broken = True
            assert other.to_send.startswith(bytes(end.got))
        # Everybody goes; nothing may stay behind, however it went.
        for end in ends:
            end.reset()
        world.drain()
        for which in (0, 1):
            for _ in range(200):
                world.turn()
            assert world.relays.blocks(which) == 0
    finally:
        world.close()


@pytest.mark.parametrize(
    ("descriptor", "error"), [(-1, errno.EBADF), (10**6, errno.EBADF)], ids=["none", "beyond"]
)
def test_a_bad_descriptor_is_refused_and_the_flow_goes_with_it(descriptor: int, error: int) -> None:
    """Who hands over a descriptor has nothing left to do, so nobody would close the flow."""
    world = World(1)
    try:
        _, flow = world.relays.dial(0, *SERVER)
        for _ in range(50):
            world.turn()
        assert dict(world.relays.dialled(0)) == {flow: 0}
        assert world.relays.splice(0, flow, descriptor, b"early") == -error
        assert world.relays.flows(0) == 0
        assert world.relays.close(0, flow) == -errno.ENOENT
        assert world.relays.splice(0, flow, descriptor) == -errno.ENOENT
        world.drain()
    finally:
        world.close()
