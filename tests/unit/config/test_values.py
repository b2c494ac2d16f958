"""Durations and keys against tables, Go's rules and a second implementation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import ALICE_PRIVATE, ALICE_PUBLIC, private_keys
from wantastic.config import keys
from wantastic.config.duration import MAX_NS, parse_duration, render_duration

S = 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("+0", 0),
        ("0s", 0),
        ("24h", 86400 * S),
        ("1h30m", 5400 * S),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("5.s", 5 * S),
        ("-1m", -60 * S),
        ("1h1h", 7200 * S),
        ("100us", 100_000),
        ("100µs", 100_000),
        ("3ms", 3_000_000),
        ("1ns", 1),
        ("0.100000000000000000000h", 360 * S),
        ("9223372036854775807ns", MAX_NS),
    ],
)
def test_go_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "h",
        ".s",
        "1d",
        "1 h",
        "1h ",
        "--1h",
        "1.2.3s",
        "9223372036854775808ns",
        "+",
        "1e3s",
    ],
)
def test_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|292"):
        parse_duration(text)


@given(st.integers(-MAX_NS, MAX_NS))
def test_rendered_durations_parse_back(ns: int) -> None:
    assert parse_duration(render_duration(ns)) == ns


def test_public_key_of_the_rfc() -> None:
    assert keys.public_key_of(ALICE_PRIVATE) == ALICE_PUBLIC


def test_generated_keys_are_clamped_entropy() -> None:
    key = keys.generate_private_key(lambda n: b"\xff" * n)
    assert key == b"\xf8" + b"\xff" * 30 + b"\x7f"


@given(st.binary(min_size=32, max_size=32))
def test_clamping_changes_nothing_that_counts(raw: bytes) -> None:
    assert keys.clamp(keys.clamp(raw)) == keys.clamp(raw)
    assert keys.public_key_of(keys.clamp(raw)) == keys.public_key_of(raw)


@given(private_keys)
def test_text_form_round_trips(key: bytes) -> None:
    assert keys.decode_key(keys.encode_key(key)) == key


def test_every_low_order_point_really_is_one() -> None:
    from Crypto.PublicKey import ECC

    for point in keys._LOW_ORDER:
        with pytest.raises(ValueError, match=r"."):
            ECC.construct(curve="Curve25519", point_x=int.from_bytes(point, "little"))
    assert keys.is_low_order(bytes(31) + b"\x80")
    assert not keys.is_low_order(ALICE_PUBLIC)
