"""The UAPI protocol: each line, each error, any split, any bytes; applied to an engine."""

from __future__ import annotations

import errno
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.uapi import fuzz_uapi, requests
from tests.support.configs import ALICE_PRIVATE, ALICE_PUBLIC, BOB_PUBLIC
from tests.support.fake_engine import FakeEngine
from wantastic.config.keys import NO_KEY
from wantastic.device.uapi import Bad, Get, PeerSet, Set, parse_set, render_errno, render_get
from wantastic.device.uapi_server import apply_set

BOB = f"public_key={BOB_PUBLIC.hex()}"

# (lines, the request they make)
GOOD: list[tuple[list[str], Set]] = [
    ([], Set()),
    ([f"private_key={ALICE_PRIVATE.hex()}"], Set(private_key=ALICE_PRIVATE)),
    (["private_key=" + "0" * 64], Set(private_key=NO_KEY)),
    (["listen_port=0", "fwmark=4294967295"], Set(listen_port=0, fwmark=2**32 - 1)),
    (["replace_peers=true"], Set(replace_peers=True)),
    ([BOB], Set(peers=[PeerSet(BOB_PUBLIC)])),
    ([BOB, "remove=true"], Set(peers=[PeerSet(BOB_PUBLIC, remove=True)])),
    ([BOB, "update_only=true"], Set(peers=[PeerSet(BOB_PUBLIC, update_only=True)])),
    ([BOB, "endpoint=1.2.3.4:5"], Set(peers=[PeerSet(BOB_PUBLIC, endpoint=("1.2.3.4", 5))])),
    (
        [BOB, "endpoint=[fe80::1%2]:5"],
        Set(peers=[PeerSet(BOB_PUBLIC, endpoint=("fe80::1%2", 5))]),
    ),
    (
        [BOB, "persistent_keepalive_interval=25", "protocol_version=1"],
        Set(peers=[PeerSet(BOB_PUBLIC, keepalive_s=25)]),
    ),
    (
        [BOB, "replace_allowed_ips=true", "allowed_ip=10.0.0.1/8", "allowed_ip=::/0"],
        Set(
            peers=[
                PeerSet(BOB_PUBLIC, replace_allowed_ips=True, allowed_ips=["10.0.0.0/8", "::/0"])
            ]
        ),
    ),
    (
        [BOB, "allowed_ip=10.0.0.0/8", "allowed_ip=-10.0.0.0/8"],
        Set(peers=[PeerSet(BOB_PUBLIC, removed_allowed_ips=["10.0.0.0/8"])]),
    ),
    ([BOB, BOB], Set(peers=[PeerSet(BOB_PUBLIC), PeerSet(BOB_PUBLIC)])),
]
BAD = [
    (["listen_port=65536"], errno.EINVAL),
    (["listen_port=-1"], errno.EINVAL),
    (["listen_port=٣"], errno.EINVAL),
    (["private_key=00"], errno.EINVAL),
    (["private_key=" + "g" * 64], errno.EINVAL),
    (["private_key=" + "00 " * 21 + "0"], errno.EINVAL),
    ([f"public_key={'00' * 31}  "], errno.EINVAL),
    (["replace_peers=false"], errno.EINVAL),
    (["endpoint=1.2.3.4:5"], errno.EINVAL),
    ([BOB, "listen_port=1"], errno.EINVAL),
    ([BOB, "endpoint=host:5"], errno.EINVAL),
    ([BOB, "endpoint=1.2.3.4"], errno.EINVAL),
    ([BOB, "allowed_ip=10.0.0.0/40"], errno.EINVAL),
    ([BOB, "protocol_version=2"], errno.EINVAL),
    ([BOB, "nonsense=1"], errno.EINVAL),
    (["nonsense"], errno.EPROTO),
]


@pytest.mark.parametrize(("lines", "expected"), GOOD)
def test_what_a_set_request_asks_for(lines: list[str], expected: Set) -> None:
    assert parse_set(lines) == expected
    text = "set=1\n" + "".join(f"{line}\n" for line in lines) + "\n"
    assert requests([text.encode()]) == [expected]


@pytest.mark.parametrize(("lines", "code"), BAD)
def test_a_wrong_line_refuses_the_whole_request(lines: list[str], code: int) -> None:
    found = parse_set(["listen_port=1", *lines])
    assert isinstance(found, Bad)
    assert found.errno == code


def test_a_refused_line_shows_no_key() -> None:
    found = parse_set([f"private_key={ALICE_PRIVATE.hex()}x"])
    assert found == Bad(errno.EINVAL, "private_key")


@pytest.mark.parametrize(
    "line",
    [ALICE_PRIVATE.hex(), b64encode(ALICE_PRIVATE).decode(), f"{ALICE_PRIVATE.hex()[:20]}=1"],
)
def test_a_key_that_is_out_of_place_is_not_told(line: str) -> None:
    for found in (parse_set([line]), requests([f"{line}\n\n".encode()])[-1]):
        assert isinstance(found, Bad)
        assert found.line == "no name of a setting"


def test_several_requests_on_one_stream() -> None:
    data = b"get=1\n\nset=1\nfwmark=3\n\nset=1\nx=1\n\n\n\nget=1\n\n"
    assert requests([data]) == [Get(), Set(fwmark=3), Bad(errno.EINVAL, "x"), Get()]


@pytest.mark.parametrize("data", [b"foo=1\n\n", b"x" * 1000, b"get=1\n" + b"y" * 600 + b"\n"])
def test_what_is_no_request_ends_the_stream(data: bytes) -> None:
    last = requests([data])[-1]
    assert isinstance(last, Bad)
    assert last.fatal


def test_an_answer_is_negative_errno() -> None:
    assert render_errno(0) == b"errno=0\n\n"
    assert render_errno(errno.EINVAL) == b"errno=-22\n\n"


words = st.sampled_from(
    [b"get=1\n", b"set=1\n", b"\n", b"fwmark=1\n", BOB.encode() + b"\n", b"allowed_ip=::/0\n"]
)


@settings(max_examples=200)
@given(st.lists(words | st.binary(max_size=20), max_size=20).map(b"".join))
def test_any_bytes_mean_the_same_however_split(data: bytes) -> None:
    fuzz_uapi(data)


@given(st.data())
def test_hundreds_of_peers_come_back(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 400))
    engine = FakeEngine()
    engine.start()
    request = Set(
        private_key=ALICE_PRIVATE,
        listen_port=7,
        peers=[
            PeerSet(
                bytes([n % 256, n // 256]) * 16,
                preshared_key=bytes([n % 256]) * 32,
                endpoint=("fe80::1%3" if n % 2 else "1.2.3.4", n + 1),
                keepalive_s=n,
                allowed_ips=[f"10.{n // 256}.{n % 256}.0/24"],
            )
            for n in range(1, count + 1)
        ],
    )
    assert apply_set(engine, request) == 0
    answer = render_get(engine.status(), 7)
    assert answer.endswith(b"\nerrno=0\n\n")
    lines = answer.decode().split("\n")[:-3]
    keep = ("private_key", "listen_port", "public_key", "preshared_key", "endpoint", "allowed_ip")
    kept = [x for x in lines if x.startswith((*keep, "persistent"))]
    assert parse_set(kept) == request


def test_setconf_without_a_key_takes_the_key_from_the_running_device() -> None:
    engine = FakeEngine()
    engine.start()
    apply_set(engine, Set(private_key=ALICE_PRIVATE))
    assert apply_set(engine, Set(private_key=NO_KEY, replace_peers=True)) == 0
    assert engine.status().private_key is None
    assert b"private_key" not in render_get(engine.status(), 0)


def test_our_own_key_as_a_peer_is_passed_over() -> None:
    engine = FakeEngine()
    engine.start()
    peers = [PeerSet(ALICE_PUBLIC), PeerSet(BOB_PUBLIC)]
    assert apply_set(engine, Set(private_key=ALICE_PRIVATE, peers=peers)) == 0
    assert list(engine.peers) == [BOB_PUBLIC]


def test_no_memory_for_another_peer_is_told() -> None:
    engine = FakeEngine(room_for_peers=1)
    engine.start()
    peers = [PeerSet(BOB_PUBLIC), PeerSet(ALICE_PUBLIC)]
    assert apply_set(engine, Set(peers=peers)) == errno.ENOMEM
    assert list(engine.peers) == [BOB_PUBLIC]


def test_a_taken_port_is_told() -> None:
    engine = FakeEngine(busy_ports={9})
    engine.start()
    engine.up()
    assert apply_set(engine, Set(listen_port=9)) == errno.EADDRINUSE
    assert engine.status().listen_port == 40001
