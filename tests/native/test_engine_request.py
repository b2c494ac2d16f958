"""The one HTTP request of a relayed flow against a naive model: the body, and not a byte more.

The model of a chunked body is made by who knows its pieces, so that it needs no parser.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.engine.testing_relay import body_of
from tests.native.test_engine_relay import MOST_TURNS, World, pattern

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"
NEXT = b"GET http://other.example/ HTTP/1.1\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n"


def chunked(rng: random.Random, sizes: list[int]) -> bytes:
    """A body of chunks of so many bytes, with what may stand beside them."""
    out = b""
    for size in sizes:
        digits = b"0" * rng.randrange(3) + (b"%x" if rng.random() < 0.5 else b"%X") % size
        out += digits + rng.choice([b"", b";a", b' ;q="b"', b"\t"]) + b"\r\n"
        out += rng.randbytes(size) + b"\r\n"
    return out + b"0\r\n" + rng.choice([b"", b"A: b\r\n", b"A: b\r\nC:\r\n"]) + b"\r\n"


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    pieces = []
    while data:
        size = rng.choice([1, 2, 7, 1000])
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.sampled_from([1, 2, 15, 16, 17, 255, 4000]), max_size=6),
    behind=st.sampled_from([b"", b"\r\n", NEXT]),
)
@settings(deadline=None)
def test_a_chunked_body_ends_where_its_last_chunk_does(
    seed: int, sizes: list[int], behind: bytes
) -> None:
    rng = random.Random(seed)
    body = chunked(rng, sizes)
    assert body_of(None, cut(rng, body + behind)) == (body, "ended")
    # And not a byte earlier.
    assert body_of(None, cut(rng, body[:-1])) == (body[:-1], "more")


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 2**32))
def test_a_length_is_a_length(length: int, size: int, seed: int) -> None:
    data = pattern(seed, size)
    ended = "ended" if size >= length else "more"
    assert body_of(length, cut(random.Random(seed), data)) == (data[:length], ended)


@pytest.mark.parametrize(
    ("number", "body", "passed"),
    [
        (1, b"\r\n", 0),
        (2, b"g\r\n", 0),
        (3, b"-1\r\n", 0),
        (4, b"0x1\r\n", 1),
        (5, b"1\nA\r\n", 1),
        (6, b"1\r\rA", 2),
        (7, b"1\r\nAB\r\n", 4),
        (8, b"1\r\nA\n", 4),
        (9, b"1;a\nb\r\n", 3),
        (10, b"0\r\nA: b\n\r\n", 7),
        (11, b"0\r\n\rX", 4),
        (12, b"1" + b"0" * 15, 15),
        (13, b"1;" + b"a" * 20_000, 2 + 16 * 1024),
        (14, b"0\r\n" + b"A: b\r\n" * 5_000, 3 + 6 * 4096),
    ],
)
def test_what_is_no_chunked_body_breaks(number: int, body: bytes, passed: int) -> None:
    found, how = body_of(None, [body])
    assert (len(found), how) == (passed, "broken"), number
    assert body_of(None, [bytes([byte]) for byte in body]) == (found, "broken")


@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_pieces_do_not_matter(data: bytes, seed: int) -> None:
    for body in (data, b"5\r\nhello\r\n" + data):
        assert body_of(None, cut(random.Random(seed), body)) == body_of(None, [body])


@pytest.mark.parametrize("early", [0, 3, 100_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_nothing_behind_the_request_reaches_the_target(early: int, is_chunked: bool) -> None:
    rng = random.Random(early)
    body = chunked(rng, [1, 70_000, 16]) if is_chunked else rng.randbytes(90_000)
    data = HEAD + body + NEXT * 5_000
    answer = pattern(7, 300_000)
    world = World(early, 0.01)
    try:
        near, far = world.connect(
            (0, len(answer)),
            6,
            len(HEAD) + early,
            data,
            (len(HEAD), None if is_chunked else len(body)),
        )
        for _ in range(MOST_TURNS):
            near.write(50_000)
            far.read(1 << 20)
            near.read(10_000)
            if len(far.got) == len(HEAD + body):
                far.write(10_000)
                far.shut()
            world.turn()
            if near.is_ended:
                break
        assert bytes(far.got) == HEAD + body
        # The client gets its whole answer, though it said more than anybody heard.
        assert bytes(near.got) == answer
        assert near.sent == len(data)
        near.shut()
        world.drain()
        assert world.relays.bytes_moved(0)[1] <= len(body)
    finally:
        world.close()


def test_a_broken_body_breaks_both_ends() -> None:
    world = World(3)
    try:
        near, far = world.connect((0, 0), 1, len(HEAD), HEAD + b"1\r\nAB", (len(HEAD), None))
        near.write(100)
        for _ in range(MOST_TURNS):
            world.turn()
            near.read(10)
            far.read(100)
            if far.is_broken and (near.is_broken or near.is_ended):
                break
        assert far.is_broken
        world.drain()
    finally:
        world.close()


def test_an_origin_that_stays_open_hears_of_the_second_request() -> None:
    body = b"a=b"
    answer = pattern(3, 5_000)
    world = World(4, 0.01)
    try:
        data = HEAD + body + b"\r\n" + NEXT
        near, far = world.connect((0, len(answer)), 2, len(HEAD), data, (len(HEAD), len(body)))

        def turn(until: Callable[[], bool]) -> None:
            for _ in range(MOST_TURNS):
                near.read(1 << 20)
                far.read(1 << 20)
                world.turn()
                if until():
                    return
            raise AssertionError("that never happened")

        near.write(len(body))
        turn(lambda: far.got == HEAD + body)
        # Some clients end a body with a line too much: no reason to cut off its answer.
        near.write(2)
        for _ in range(200):
            turn(lambda: True)
        assert not far.is_ended
        far.write(len(answer))
        turn(lambda: near.got == answer)
        assert not far.is_ended
        near.write(len(NEXT))
        turn(lambda: far.is_ended)
        assert far.got == HEAD + body
        far.shut()
        turn(lambda: near.is_ended)
        near.shut()
        world.drain()
    finally:
        world.close()
