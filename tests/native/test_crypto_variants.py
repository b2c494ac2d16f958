"""Every AEAD variant against OpenSSL, byte for byte; the loops run natively."""

from __future__ import annotations

import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.crypto import primitives, testing

VARIANTS = primitives.available()
OWN = tuple(v for v in VARIANTS if v != "openssl")
LONGEST = 1600


def test_the_variants_of_this_cpu_are_there() -> None:
    assert VARIANTS[0] == primitives.backend()
    assert {"openssl", "portable"} <= set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_length(name: str) -> None:
    """0 to 1600 bytes, in batches on both sides of every lane count."""
    testing.Comparison(name, "openssl", LONGEST).lengths(0, LONGEST, [1, 2, 3, 8, 9, 16, 17])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_batch(name: str) -> None:
    """1 to 64 packets, at lengths around the block and lane borders."""
    comparison = testing.Comparison(name, "openssl", LONGEST)
    for length in (0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 1024, 1025, 1420):
        comparison.lengths(length, length, list(range(1, 65)))


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_every_length_in_every_batch(name: str) -> None:
    testing.Comparison(name, "openssl", LONGEST).lengths(0, LONGEST, list(range(1, 65)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", VARIANTS)
def test_mixed_batches(name: str, seed: int) -> None:
    """Random counts, keys, lengths, alignments, places and damage."""
    testing.Comparison(name, "openssl", LONGEST, seed).mixed(400, LONGEST)
    testing.Comparison(name, "openssl", LONGEST, seed).mixed(200, 130)


@pytest.mark.parametrize("name", VARIANTS)
def test_jumbo_packets(name: str) -> None:
    testing.Comparison(name, "openssl", 70000).mixed(6, 70000)


@pytest.mark.parametrize("name", VARIANTS)
def test_messages_with_associated_data(name: str) -> None:
    testing.Comparison(name, "openssl", 40000).messages(1500, 3000)
    testing.Comparison(name, "openssl", 40000).messages(60, 40000)


@pytest.mark.parametrize("name", OWN)
def test_the_comparison_sees_differences(name: str) -> None:
    """A harness that compared nothing would pass everything: give it unequal sides."""
    with pytest.raises(ValueError, match="nosuch"):
        testing.Comparison("nosuch", "openssl", LONGEST)
    with pytest.raises(AssertionError, match="check 1: 3 packets of 40 bytes"):
        testing.Comparison(name, "broken", LONGEST).lengths(40, 40, [3])


def test_select_refuses_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="not available"):
        primitives.select("nosuch")
    assert primitives.backend() == VARIANTS[0]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: primitives.aead_seal(b"k", bytes(12), b""), "key"),
        (lambda: primitives.aead_seal(bytes(32), bytes(8), b""), "nonce"),
        (lambda: primitives.xaead_open(bytes(32), bytes(12), b""), "nonce"),
        (lambda: primitives.x25519(bytes(31), bytes(32)), "secret"),
        (lambda: primitives.x25519(bytes(32), bytes(33)), "point"),
        (lambda: primitives.blake2s(b"", bytes(33)), "key"),
        (lambda: primitives.blake2s(b"", b"", 0), "size"),
        (lambda: primitives.kdf(4, bytes(32), b""), "n is 4"),
        (lambda: primitives.seal_batch([(bytes(32), 0, b"")] * 129), "129"),
        (lambda: primitives.open_batch([(bytes(32), 0, bytes(15))]), "16"),
    ],
)
def test_wrong_arguments_are_named(call: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()  # type: ignore[operator]


def test_too_short_to_hold_a_tag() -> None:
    for size in range(16):
        assert primitives.aead_open(bytes(32), bytes(12), bytes(size)) is None


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=150), max_size=6), st.binary(max_size=32), st.integers(1, 32))
def test_blake2s_in_pieces(pieces: list[bytes], key: bytes, size: int) -> None:
    expected = hashlib.blake2s(b"".join(pieces), key=key, digest_size=size).digest()
    assert testing.blake2s_pieces(pieces, key, size) == expected
    assert primitives.blake2s(b"".join(pieces), key, size) == expected


@settings(max_examples=100)
@given(st.binary(max_size=100), st.binary(max_size=200))
def test_hmac(key: bytes, data: bytes) -> None:
    assert primitives.hmac_blake2s(key, data) == hmac.new(key, data, hashlib.blake2s).digest()


def test_threads_do_not_share_library_contexts() -> None:
    """Many threads seal with the library at once; each must get its own answer."""

    def work(seed: int) -> None:
        testing.Comparison("openssl", "portable", 300, seed).mixed(60, 300)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))


def test_fuzz_targets_hold_for_arbitrary_bytes() -> None:
    from cext.crypto import fuzz

    for i in range(300):
        data = hashlib.shake_128(bytes([i & 0xFF, i >> 8])).digest(i * 7 % 900)
        for target in ("aead", "blake2s"):
            assert fuzz.run(target, data) == 0
