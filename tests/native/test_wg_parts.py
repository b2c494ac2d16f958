"""The parts of cext/wireguard that need no device: window, limiter, trie, indices, timestamps."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cext.wireguard.testing import (
    AllowedIps,
    Indices,
    RateLimiter,
    ReplayWindow,
    protocol_constants,
    tai64n,
    whiten,
)
from tests.support import vectors

SECOND = 10**9
MS = 10**6

# -- constants --


def test_constants_are_the_kernels() -> None:
    expected = vectors.load("wireguard-kernel/constants.json")
    ours = protocol_constants()
    compared = 0
    for name, value in expected.items():
        if name.endswith("_s") and name[:-2] + "_NS" in ours:
            assert ours[name[:-2] + "_NS"] == value * SECOND, name
        elif name.replace("_per_peer", "").replace("_per_ip", "").replace("_ms", "_MS") in ours:
            short = name.replace("_per_peer", "").replace("_per_ip", "").replace("_ms", "_MS")
            assert ours[short] == value, name
        else:
            continue
        compared += 1
    assert compared >= 16
    assert ours["ZERO_KEYS_NS"] == 540 * SECOND


# -- replay window --

WINDOW = 127 * 64
REJECT = 2**64 - 1 - 2**13

REPLAY_TABLE = [
    # counter, accepted, why
    (0, True, "first"),
    (0, False, "replay"),
    (9, True, "gap"),
    (8, True, "reordered"),
    (WINDOW + 9, True, "edge jumps; 9 is now the oldest that fits"),
    (10, True, "still inside"),
    (8, False, "just outside"),
    (4 * WINDOW, True, "jump over the whole ring"),
    (REJECT, False, "limit"),
    (2**64 - 1, False, "no wrap at the top"),
    (REJECT - 1, True, "last legal"),
    (REJECT - 1, False, "replay of the last"),
    (REJECT - 2, True, "behind the last"),
]


def test_replay_table() -> None:
    window = ReplayWindow()
    for number, (counter, accepted, why) in enumerate(REPLAY_TABLE):
        assert window.accept(counter) == accepted, (number, why)


def test_replay_vectors_of_wireguard_go() -> None:
    data = vectors.load("wireguard-go/replay.json")
    assert data["window"] == WINDOW
    for sequence in data["sequences"]:
        window = ReplayWindow()
        for step in sequence:
            if isinstance(step, dict):
                first, last = step["range"]
                direction = 1 if last >= first else -1
                for counter in range(first, last + direction, direction):
                    assert window.accept(counter) == step["expect"], (step, counter)
            else:
                assert window.accept(step[0]) == step[1], step


def test_an_in_order_stream_is_never_a_replay() -> None:
    window = ReplayWindow()
    assert window.accept_range(0, 2_000_000) == 2_000_000
    assert window.accept_range(2_000_000 - WINDOW - 1, 2_000_000) == 0


@given(st.lists(st.integers(0, 4 * WINDOW) | st.integers(REJECT - 9000, 2**64 - 1), max_size=300))
def test_replay_agrees_with_the_obvious_model(counters: list[int]) -> None:
    window, seen, top = ReplayWindow(), set[int](), -1
    for counter in counters:
        expect = counter < REJECT and counter not in seen and top - counter <= WINDOW
        assert window.accept(counter) == expect
        if expect:
            seen.add(counter)
            top = max(top, counter)


# -- rate limiter --


def test_ratelimiter_vectors_of_wireguard_go() -> None:
    data = vectors.load("wireguard-go/ratelimiter.json")
    limiter = RateLimiter()
    now_ns = 5 * SECOND
    sources = [ip_address(text).packed for text in data["ips"]]
    for step in data["steps"]:
        if step[0] == "wait_ms":
            now_ns += step[1] * MS
            continue
        for verdict in step:
            for source in sources:
                assert limiter.allow(now_ns, source) == (verdict == "allow")


def test_ratelimiter_counts_a_v6_source_by_its_64() -> None:
    limiter = RateLimiter()
    allowed = [limiter.allow(SECOND, ip_address(f"2001:db8::{host:x}").packed) for host in range(6)]
    assert allowed == [True] * 5 + [False]
    assert limiter.allow(SECOND, ip_address("2001:db8:0:1::").packed)


def test_ratelimiter_full_of_sources_refuses_new_ones_until_one_is_idle() -> None:
    limiter = RateLimiter(entries=8)
    for host in range(8):
        assert limiter.allow(SECOND, bytes([10, 0, 0, host]))
    assert not limiter.allow(SECOND, bytes([10, 0, 0, 99]))
    assert limiter.allow(SECOND, bytes([10, 0, 0, 3])), "those inside are served"
    assert limiter.allow(SECOND + 50 * MS, bytes([10, 0, 0, 99]))


@given(st.lists(st.tuples(st.integers(0, 200 * MS), st.integers(0, 3)), max_size=200))
def test_ratelimiter_agrees_with_token_buckets(steps: list[tuple[int, int]]) -> None:
    limiter = RateLimiter()
    now_ns, buckets = SECOND, dict[int, tuple[int, int]]()
    for wait_ns, host in steps:
        now_ns += wait_ns
        last_ns, tokens = buckets.get(host, (now_ns, 250 * MS))
        tokens = min(250 * MS, tokens + now_ns - last_ns)
        expect = tokens >= 50 * MS
        assert limiter.allow(now_ns, bytes([10, 0, 0, host])) == expect
        buckets[host] = (now_ns, tokens - 50 * MS if expect else tokens)


# -- allowed IPs --


def test_allowed_ips_vectors_of_wireguard_go() -> None:
    data = vectors.load("wireguard-go/allowedips_ops.json")
    tables = {4: AllowedIps(), 6: AllowedIps()}
    for number, (family, op, *rest) in enumerate(data["ops"]):
        table = tables[family]
        if op == "assertEmpty":
            assert table.nodes() == 0
            continue
        who = ord(rest[0][0])
        if op == "removeByPeer":
            table.remove_owner(who)
            continue
        text, rest = rest[1], rest[2:]
        packed = ip_address(text).packed
        if op == "insert":
            assert table.insert(who, packed, rest[0]) == 0
        elif op == "remove":
            table.remove(who, packed, rest[0])
        elif op == "assertEQ":
            assert table.lookup(packed) == who, (number, text)
        elif op == "assertNEQ":
            assert table.lookup(packed) != who, (number, text)
        else:
            raise AssertionError(op)


ALLOWED_TABLE = [
    # operation, owner or expected owner, prefix or address
    ("insert", 1, "10.0.0.0/24"),
    ("lookup", 1, "10.0.0.77"),
    ("lookup", None, "10.0.1.0"),
    ("insert", 2, "10.0.0.128/25"),
    ("lookup", 2, "10.0.0.200"),
    ("insert", 3, "0.0.0.0/0"),
    ("lookup", 3, "255.255.255.255"),
    ("insert", 2, "10.0.0.0/24"),  # taken over, not shared
    ("lookup", 2, "10.0.0.77"),
    ("remove!", 1, "10.0.0.0/24"),
    ("remove", 2, "10.0.0.128/25"),
    ("lookup", 2, "10.0.0.200"),
    ("remove!", 2, "10.0.0.0/25"),
    ("insert", 4, "10.0.0.99/32"),
    ("lookup", 4, "10.0.0.99"),
    ("owner", 2, ""),
    ("lookup", 3, "10.0.0.98"),
    ("insert", 5, "::/0"),
    ("lookup", 5, "::ffff:10.0.0.99"),
    ("insert", 6, "fd00::/64"),
    ("insert", 7, "fd00::8000:0:0:0/65"),
    ("lookup", 6, "fd00::1"),
    ("lookup", 7, "fd00::8000:0:0:1"),
    ("insert", 8, "fd00::1/128"),
    ("lookup", 8, "fd00::1"),
    ("lookup", 6, "fd00::2"),
]


def test_allowed_ips_table() -> None:
    table = AllowedIps()
    for number, (op, owner, text) in enumerate(ALLOWED_TABLE):
        where = (number, op, text)
        if op == "lookup":
            assert table.lookup(ip_address(text).packed) == owner, where
            continue
        assert owner is not None
        if op == "owner":
            table.remove_owner(owner)
            continue
        network = ip_network(text)
        packed = network.network_address.packed
        if op == "insert":
            assert table.insert(owner, packed, network.prefixlen) == 0, where
        else:
            found = table.remove(owner, packed, network.prefixlen)
            assert found == (op == "remove"), where


PREFIX = st.tuples(
    st.sampled_from([4, 16]), st.integers(0, 7), st.integers(0, 7), st.integers(0, 128)
)
OPERATION = st.tuples(st.sampled_from("iiiirro"), st.integers(0, 3), PREFIX)


def make_prefix(size: int, high: int, low: int, cidr: int) -> tuple[bytes, int]:
    """Few distinct bits at both ends, so that prefixes nest and collide."""
    packed = bytearray(size)
    packed[0], packed[-1], packed[size // 2] = high << 5, low, high
    return bytes(packed), min(cidr, size * 8)


def masked(packed: bytes, cidr: int) -> tuple[bytes, int]:
    bits = len(packed) * 8
    value = int.from_bytes(packed, "big") >> (bits - cidr) << (bits - cidr)
    return value.to_bytes(len(packed), "big"), cidr


@given(st.lists(OPERATION, max_size=80))
def test_allowed_ips_agree_with_a_dictionary(
    operations: list[tuple[str, int, tuple[int, int, int, int]]],
) -> None:
    table, model = AllowedIps(), dict[tuple[bytes, int], int]()
    for op, owner, parts in operations:
        packed, cidr = make_prefix(*parts)
        key = masked(packed, cidr)
        if op == "i":
            assert table.insert(owner, packed, cidr) == 0
            model[key] = owner
        elif op == "r":
            assert table.remove(owner, packed, cidr) == (model.get(key) == owner)
            if model.get(key) == owner:
                del model[key]
        else:
            table.remove_owner(owner)
            model = {k: v for k, v in model.items() if v != owner}
        found = [n for n in range(len(packed) * 8, -1, -1) if masked(packed, n) in model]
        assert table.lookup(packed) == (model[masked(packed, found[0])] if found else None)
    for owner in range(4):
        assert table.owned(owner) == {k for k, v in model.items() if v == owner}
        table.remove_owner(owner)
    assert table.nodes() == 0


def test_allowed_ips_long_run_leaves_no_nodes_behind() -> None:
    rng, table = random.Random(7), AllowedIps()
    model = dict[tuple[bytes, int], int]()
    for _ in range(60_000):
        packed = bytes([10, rng.randrange(4), rng.randrange(256), rng.randrange(256)])
        cidr, owner = rng.randrange(8, 33), rng.randrange(50)
        key = masked(packed, cidr)
        if rng.random() < 0.55:
            table.insert(owner, packed, cidr)
            model[key] = owner
        else:
            assert table.remove(owner, packed, cidr) == (model.get(key) == owner)
            if model.get(key) == owner:
                del model[key]
        assert table.nodes() < 2 * max(1, len(model)) if rng.random() < 0.01 else True
    for owner in range(50):
        table.remove_owner(owner)
    assert table.nodes() == 0


@pytest.mark.parametrize(("address", "cidr"), [(bytes(4), 33), (bytes(16), 129)])
def test_a_prefix_that_is_none_is_refused(address: bytes, cidr: int) -> None:
    table = AllowedIps()
    assert table.insert(1, address, cidr) == -4
    assert not table.remove(1, address, cidr)
    assert table.nodes() == 0


def test_prefixes_are_limited_and_a_takeover_needs_no_room() -> None:
    table = AllowedIps(limit=2)
    assert table.insert(1, bytes([10, 0, 0, 0]), 8) == 0
    assert table.insert(1, bytes([11, 0, 0, 0]), 8) == 0
    assert table.insert(1, bytes([12, 0, 0, 0]), 8) == -2
    assert table.insert(2, bytes([11, 0, 0, 0]), 8) == 0
    assert table.insert(1, bytes([10, 0, 0, 0]), 7) == -2, "the fork that is there is no room"


# -- index table --


@given(st.lists(st.integers(0, 1000), max_size=300), st.integers(0, 2**32))
def test_indices_agree_with_a_dictionary(steps: list[int], seed: int) -> None:
    table, model = Indices(seed), dict[int, int]()
    for step in steps:
        if step % 3 or not model:
            index = table.insert(step % 4)
            assert index not in model
            assert index != 0
            model[index] = step % 4
        else:
            index = sorted(model)[step % len(model)]
            table.remove(index)
            del model[index]
            assert table.lookup(index) is None
        table.remove(0)
        assert len(table) == len(model)
    assert {index: table.lookup(index) for index in model} == model


# -- timestamps --


def test_tai64n() -> None:
    # The paper's format; 10 s lead of TAI at the epoch, as every implementation has it.
    assert tai64n(0) == bytes.fromhex("400000000000000a00000000")
    assert tai64n(1_700_000_000 * SECOND + 5).hex() == "400000006553f10a00000005"
    assert whiten(1_700_000_000 * SECOND + 0x1FFFFFF) == 1_700_000_000 * SECOND + 0x1000000


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_whitening_keeps_the_order_and_the_second(a: int, b: int) -> None:
    a, b = sorted((a, b))
    assert tai64n(whiten(a)) <= tai64n(whiten(b))
    assert whiten(a) // SECOND == a // SECOND
    assert whiten(a) % SECOND % 2**24 == 0
