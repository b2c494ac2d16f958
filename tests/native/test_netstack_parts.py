"""The netstack's parts alone: sequence numbers, SipHash, cube root, wheel, TCP options."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.netstack import testing_parts
from tests.support import segments

U32 = st.integers(0, 2**32 - 1)

SEQUENCES = [
    (0, 0, (False, True, False, True)),
    (0, 1, (True, True, False, False)),
    (1, 0, (False, False, True, True)),
    (0xFFFFFFFF, 0, (True, True, False, False)),
    (0, 0xFFFFFFFF, (False, False, True, True)),
    (0x7FFFFFFF, 0x80000000, (True, True, False, False)),
    (0xFFFFFFF0, 0x10, (True, True, False, False)),
    (5, 5 + 0x7FFFFFFF, (True, True, False, False)),
]


@pytest.mark.parametrize(("a", "b", "expected"), SEQUENCES)
def test_sequence_numbers(a: int, b: int, expected: tuple[bool, ...]) -> None:
    assert testing_parts.compare(a, b) == expected


@given(U32, st.integers(-(2**31) + 1, 2**31 - 1))
def test_sequence_numbers_compare_by_distance(a: int, distance: int) -> None:
    b = (a + distance) % 2**32
    assert testing_parts.compare(a, b) == (distance > 0, distance >= 0, distance < 0, distance <= 0)


# The first rows of the table in the SipHash paper's reference output (key 00..0f).
SIPHASH = [
    (0, "310e0edd47db6f72"),
    (1, "fd67dc93c539f874"),
    (2, "5a4fa9d909806c0d"),
    (7, "37d1018bf50002ab"),
    (8, "6224939a79f5f593"),
    (15, "e545be4961ca29a1"),
]


@pytest.mark.parametrize(("n", "expected"), SIPHASH)
def test_siphash(n: int, expected: str) -> None:
    value = testing_parts.siphash24(bytes(range(16)), bytes(range(n)))
    assert value.to_bytes(8, "little").hex() == expected


@given(st.integers(0, 2**62))
def test_cube_root(x: int) -> None:
    root = testing_parts.cube(x)
    assert root**3 <= x < (root + 1) ** 3 or root == 2**21 - 1


class NaiveWheel:
    def __init__(self, now: int) -> None:
        self.now = now
        self.due: dict[int, int] = {}

    def expire(self, now: int) -> list[tuple[int, int]]:
        self.now = now
        gone = sorted((at, index) for index, at in self.due.items() if at <= now)
        for _, index in gone:
            del self.due[index]
        return gone


WHEEL_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 15), st.integers(-5, 2**26)),
        st.tuples(st.just("near"), st.integers(0, 15), st.integers(0, 200)),
        st.tuples(st.just("cancel"), st.integers(0, 15), st.just(0)),
        st.tuples(st.just("advance"), st.just(0), st.integers(0, 2**22)),
        st.tuples(st.just("tick"), st.just(0), st.integers(0, 70)),
        st.tuples(st.just("hop"), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(st.integers(0, 2**45), WHEEL_STEPS)
@settings(max_examples=300, deadline=None)
def test_wheel_against_a_list(start: int, steps: list[tuple[str, int, int]]) -> None:
    wheel, naive = testing_parts.Wheel(16, start), NaiveWheel(start)
    for what, index, value in steps:
        if what in {"arm", "near"}:
            due = max(0, naive.now + value)
            wheel.arm(index, due)
            naive.due[index] = max(due, naive.now)
        elif what == "cancel":
            wheel.cancel(index)
            naive.due.pop(index, None)
        else:
            now = naive.now + value
            if what == "hop" and wheel.next() is not None:
                now = max(now, wheel.next())
            got = []
            while (popped := wheel.pop(now)) is not None:
                got.append((naive.due[popped], popped))
            assert got == sorted(got, key=lambda x: x[0])
            assert sorted(got) == naive.expire(now)
        assert wheel.armed() == len(naive.due)
        upcoming = wheel.next()
        if naive.due:
            assert upcoming is not None
            assert upcoming <= min(naive.due.values())
        else:
            assert upcoming is None


def test_wheel_runs_a_day_of_one_timer() -> None:
    wheel = testing_parts.Wheel(1, 123)
    now = 123
    for step in range(86_400):
        wheel.arm(0, now + 1000)
        hops = 0
        while (at := wheel.next()) < now + 1000:
            assert wheel.pop(at) is None
            hops += 1
            assert hops < 6, step
        assert wheel.pop(now + 999) is None
        now += 1000
        assert wheel.pop(now) == 0


@pytest.mark.parametrize("bits", range(6, 46))
def test_wheel_carries_into_every_bit_of_the_clock(bits: int) -> None:
    """A timer armed just before the clock's bit flips, for just after it."""
    for before, after in [(1, 1), (1, 1 << 25), (min(1 << 30, 1 << bits) - 1, 1 << 20)]:
        now, due = (1 << bits) - before, (1 << bits) + after
        wheel = testing_parts.Wheel(1, now)
        wheel.arm(0, due)
        hops = 0
        while (at := wheel.next()) < due:
            assert wheel.pop(at) is None
            hops += 1
            assert hops < 8
        assert wheel.pop(due - 1) is None
        assert wheel.pop(due) == 0


def header(options: bytes, payload: bytes = b"", flags: int = segments.SYN) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    return struct.pack("!HHIIBBHHH", 1, 2, 3, 4, offset, flags, 5, 6, 7) + options + payload


OPTIONS = [
    (b"", {}),
    (b"\2\4\5\xb4", {"mss": 1460}),
    (b"\3\3\7\1", {"window_scale": 7}),
    (b"\3\3\x0f\1", {"window_scale": 14}),  # RFC 7323: more than 14 counts as 14
    (b"\1\1\x08\x0a\0\0\0\1\0\0\0\2", {"ts_value": 1, "ts_echo": 2}),
    (b"\x08\x0a\0\0\0\1\0\0\0\2\0\0", {"ts_value": 1, "ts_echo": 2}),
    (b"\x08\x09\0\0\0\1\0\0\0\1\1\1", {"ts_value": 0}),  # wrong length: passed over
    (b"\2\4\5\xb4\2\4\2\x18", {"mss": 536}),
    (b"\0\2\4\5\xb4\0\0\0", {"mss": 0}),  # nothing counts behind the end
    (b"\1\1\1\2", {"mss": 0}),  # cut off
    (b"\xfe\x00\2\4\5\xb4\1\1", {"mss": 0}),  # length 0 ends the walk
    (b"\xfe\4\0\0\2\4\5\xb4", {"mss": 1460}),  # unknown: skipped
    (b"\x1c\4\x80\2", {"user_timeout_s": 120}),
    (b"\x1c\4\0\2", {"user_timeout_s": 2}),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_tcp_options(options: bytes, expected: dict[str, int]) -> None:
    parsed = testing_parts.parse_tcp(header(options, b"xyz"))
    assert parsed is not None
    assert parsed["payload"] == b"xyz"
    assert expected.items() <= parsed.items()


def test_syn_options_outside_a_syn_do_not_count() -> None:
    options = b"\2\4\5\xb4\3\3\7\1\4\2\1\1"
    parsed = testing_parts.parse_tcp(header(options, flags=segments.ACK))
    assert parsed is not None
    assert parsed["options"] == 0


@pytest.mark.parametrize("offset", range(16))
@pytest.mark.parametrize("length", [0, 19, 20, 24, 60])
def test_tcp_header_length_is_checked(offset: int, length: int) -> None:
    data = bytearray(header(b"\1" * 40))[:length]
    if length > 12:
        data[12] = offset << 4
    valid = length >= 20 and 20 <= offset * 4 <= length
    assert (testing_parts.parse_tcp(bytes(data)) is not None) == valid


@given(st.binary(max_size=80))
def test_any_bytes_may_be_parsed(data: bytes) -> None:
    parsed = testing_parts.parse_tcp(data)
    if parsed is not None:
        assert len(parsed["payload"]) <= len(data) - 20
        assert parsed["window_scale"] <= 14
        assert len(parsed["sacks"]) <= 4
