"""The table of names of SOCKS datagrams: rows, a long random run against a naive model."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

# An emulated interpreter cannot load what this compiles.
ctypes = pytest.importorskip("ctypes")

ROOT = Path(__file__).parents[2]
NAMES, HELD, SHARE, HELD_BYTES = 64, 32, 8, 2048
# More than the table needs, between bytes that nobody may touch.
ROOM, GUARD = 1 << 17, b"\xa5" * 4096
ADDRESS = bytes(range(16))


class Known(ctypes.Structure):
    _fields_ = (
        ("until_ns", ctypes.c_uint64),
        ("address", ctypes.c_uint8 * 16),
        ("family", ctypes.c_uint8),
    )


class Held(ctypes.Structure):
    _fields_ = (
        ("association", ctypes.c_uint32),
        ("length", ctypes.c_uint16),
        ("asked", ctypes.c_bool),
        ("data", ctypes.c_uint8 * HELD_BYTES),
    )


class Names:
    """The table in C."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._c = library
        self._memory = ctypes.create_string_buffer(GUARD + bytes(ROOM) + GUARD)
        self._table = ctypes.c_void_p(ctypes.addressof(self._memory) + len(GUARD))

    def intact(self) -> bool:
        raw = self._memory.raw
        return raw.startswith(GUARD) and raw[len(GUARD) + ROOM :].startswith(GUARD)

    def find(self, name: bytes, now_ns: int) -> tuple[int, bytes] | None:
        found = self._c.names_find(self._table, name, len(name), ctypes.c_uint64(now_ns))
        return (found.contents.family, bytes(found.contents.address)) if found else None

    def hold(self, association: int, datagram: bytes) -> bool:
        return bool(self._c.names_hold(self._table, association, datagram, len(datagram)))

    def asked(self) -> bytes | None:
        found = self._c.names_next_asked(self._table)
        return ctypes.string_at(found + 1, ctypes.string_at(found, 1)[0]) if found else None

    def learn(self, name: bytes, address: bytes | None, until_ns: int) -> None:
        until = ctypes.c_uint64(until_ns)
        self._c.names_learn(self._table, name, len(name), 4, address, until)

    def release(self, name: bytes) -> tuple[int, bytes] | None:
        length = ctypes.c_uint16()
        found = self._c.names_release(self._table, name, len(name), ctypes.byref(length))
        if not found:
            return None
        return found.contents.association, bytes(found.contents.data[: length.value])

    def forget(self) -> None:
        self._c.names_forget(self._table)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("names") / "names.so"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    source = str(ROOT / "cext/engine/relay_names.c")
    command = ["cc", *flags, "-I", str(ROOT / "cext"), "-o", str(path), source]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(path))
    loaded.names_find.restype = ctypes.POINTER(Known)
    loaded.names_hold.restype = ctypes.c_bool
    loaded.names_next_asked.restype = ctypes.c_void_p
    loaded.names_release.restype = ctypes.POINTER(Held)
    return loaded


@pytest.fixture
def names(library: ctypes.CDLL) -> Iterator[Names]:
    made = Names(library)
    yield made
    assert made.intact()


def datagram(name: bytes, payload: bytes = b"") -> bytes:
    return b"\0\0\0\x03" + bytes((len(name),)) + name + b"\0\x35" + payload


def test_1_a_name_lasts_until_its_time(names: Names) -> None:
    assert names.find(b"a", 0) is None
    names.learn(b"a", ADDRESS, 100)
    names.learn(b"b", None, 100)
    assert names.find(b"a", 99) == (4, ADDRESS)
    assert names.find(b"b", 99) == (0, bytes(16))
    for other in (b"A", b"aa", b"c"):
        assert names.find(other, 99) is None
    assert names.find(b"a", 100) is None
    names.learn(b"a", ADDRESS[::-1], 200)
    assert names.find(b"a", 150) == (4, ADDRESS[::-1])
    names.forget()
    assert names.find(b"a", 150) is None


def test_2_the_one_that_ends_first_gives_way(names: Names) -> None:
    for number in range(NAMES):
        names.learn(b"n%d" % number, ADDRESS, 1000 + number)
    names.learn(b"more", ADDRESS, 5000)
    assert names.find(b"n0", 0) is None
    assert names.find(b"more", 0)
    assert all(names.find(b"n%d" % number, 0) for number in range(1, NAMES))


def test_3_a_name_is_asked_for_once(names: Names) -> None:
    long = b"x" * 255
    for number in range(3):
        assert names.hold(number, datagram(b"a", b"%d" % number))
    assert names.hold(9, datagram(long))
    assert [names.asked() for _ in range(3)] == [b"a", long, None]
    # A later one to a name that is being asked for is asked for again: harmless.
    assert names.hold(4, datagram(b"a"))
    assert names.asked() == b"a"
    found = [names.release(b"a") for _ in range(5)]
    assert found == [*((n, datagram(b"a", b"%d" % n)) for n in range(3)), (4, datagram(b"a")), None]
    assert names.release(long) == (9, datagram(long))


def test_4_limits(names: Names) -> None:
    assert not names.hold(1, datagram(b"a", bytes(HELD_BYTES)))
    assert names.hold(1, datagram(b"a", bytes(HELD_BYTES - 8)))
    assert all(names.hold(1, datagram(b"b")) for _ in range(SHARE - 1))
    # One client's names that nobody answers for leave room for those of others.
    assert not names.hold(1, datagram(b"c"))
    assert all(names.hold(2 + n // SHARE, datagram(b"b")) for n in range(HELD - SHARE))
    assert not names.hold(9, datagram(b"c"))
    assert names.release(b"b") == (1, datagram(b"b"))
    assert names.hold(9, datagram(b"c"))


@pytest.mark.parametrize("seed", range(20))
def test_5_the_same_as_a_naive_model(names: Names, seed: int) -> None:
    rng = random.Random(seed)
    pool = [rng.randbytes(rng.choice([1, 2, 255])) for _ in range(100)]
    known: dict[bytes, tuple[int, bytes | None]] = {}
    held: list[tuple[int, bytes, bytes]] = []
    now = 1
    for step in range(5000):
        name, now = rng.choice(pool), now + rng.randrange(3)
        action = rng.randrange(5)
        if action == 0:
            found = known.get(name)
            expected = None
            if found and found[0] > now:
                expected = (4, found[1]) if found[1] else (0, bytes(16))
            assert names.find(name, now) == expected, step
        elif action == 1:
            # Every end is another one, so that it is clear which goes.
            until, address = now * 10_000 + step, rng.choice([ADDRESS, None])
            names.learn(name, address, until)
            if name not in known and len(known) == NAMES:
                del known[min(known, key=lambda n: known[n][0])]
            known[name] = until, address
        elif action == 2:
            message = datagram(name, rng.randbytes(rng.randrange(20)))
            room = len(held) < HELD
            assert names.hold(step, message) == room
            if room:
                held.append((step, name, message))
        elif action == 3:
            got = names.release(name)
            mine = [(association, m) for association, n, m in held if n == name]
            assert got in mine if mine else got is None
            held = [h for h in held if (h[0], h[2]) != got]
        else:
            asked = names.asked()
            assert asked is None or asked in {n for _, n, _ in held}
