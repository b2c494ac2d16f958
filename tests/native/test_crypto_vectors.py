"""Known answers by others: every AEAD variant, X25519, BLAKE2s and the key derivation."""

from __future__ import annotations

import ast
import base64
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from cext.crypto import primitives, testing
from tests.support import vectors

VARIANTS = primitives.available()
OWN = tuple(v for v in VARIANTS if v != "openssl")
Row = dict[str, Any]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test under each variant of this CPU, then go back to the fastest."""
    primitives.select(request.param)
    yield request.param
    primitives.select(VARIANTS[0])


def text_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a `Name = value` file, names in lower case."""
    rows: list[dict[str, str]] = []
    row: dict[str, str] = {}
    for line in [*vectors.path(name).read_text().splitlines(), ""]:
        if line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if equals:
            row[key.strip().lower()] = value.strip()
        elif row:
            rows.append(row)
            row = {}
    return rows


def value(text: str) -> bytes:
    """Hexadecimal digits, or a quoted string."""
    return str(ast.literal_eval(text)).encode() if text.startswith('"') else bytes.fromhex(text)


def check_aead(row: Row, *, extended: bool = False) -> None:
    """Seal and open one row {key, nonce, ad, plain, sealed, ok}; change a bit and open again."""
    seal = primitives.xaead_seal if extended else primitives.aead_seal
    opened = primitives.xaead_open if extended else primitives.aead_open
    key, nonce, ad, plain, sealed = (row[k] for k in ("key", "nonce", "ad", "plain", "sealed"))
    if row["ok"]:
        assert seal(key, nonce, plain, ad) == sealed
        assert opened(key, nonce, sealed, ad) == plain
        changed = bytearray(sealed)
        changed[len(sealed) // 2] ^= 1
        assert opened(key, nonce, bytes(changed), ad) is None
    else:
        assert opened(key, nonce, sealed, ad) is None


@pytest.mark.parametrize("extended", [False, True])
def test_wycheproof_aead(variant: str, extended: bool) -> None:
    name = "xchacha20_poly1305" if extended else "chacha20_poly1305"
    nonce_bytes = 24 if extended else 12
    done = 0
    for group in vectors.load(f"wycheproof/{name}_test.json")["testGroups"]:
        for t in group["tests"]:
            row = {
                "key": bytes.fromhex(t["key"]),
                "nonce": bytes.fromhex(t["iv"]),
                "ad": bytes.fromhex(t["aad"]),
                "plain": bytes.fromhex(t["msg"]),
                "sealed": bytes.fromhex(t["ct"] + t["tag"]),
                "ok": t["result"] == "valid",
            }
            if len(row["nonce"]) != nonce_bytes:
                with pytest.raises(ValueError, match="nonce"):
                    check_aead(row, extended=extended)
            else:
                check_aead(row, extended=extended)
            done += 1
    assert done >= 300


@pytest.mark.parametrize("name", ["boringssl", "openssl"])
def test_libraries_aead(variant: str, name: str) -> None:
    rows = text_rows(f"rfc/chacha20poly1305-{name}.txt")
    assert rows
    for t in rows:
        check_aead(
            {
                "key": value(t["key"]),
                "nonce": value(t.get("nonce") or t["iv"]),
                "ad": value(t.get("ad", t.get("aad", ""))),
                "plain": value(t.get("in", t.get("plaintext", ""))),
                "sealed": value(t.get("ct", t.get("ciphertext", ""))) + value(t["tag"]),
                "ok": "result" not in t,
            }
        )


def test_kernel_aead(variant: str) -> None:
    data = vectors.load("wireguard-kernel/chacha20poly1305.json")
    del data["note"]
    done = 0
    for table, rows in data.items():
        for t in rows:
            nonce = bytes.fromhex(t["nonce"])
            plain, sealed = bytes.fromhex(t["input"]), bytes.fromhex(t["output"])
            if "_dec_" in table:
                plain, sealed = sealed, plain
            row = {
                "key": bytes.fromhex(t["key"]),
                "nonce": bytes(4) + nonce if len(nonce) == 8 else nonce,
                "ad": bytes.fromhex(t["aad"]),
                "plain": plain,
                "sealed": sealed,
                "ok": not t["must_fail"],
            }
            check_aead(row, extended=len(nonce) == 24)
            if len(nonce) == 8 and not row["ad"]:
                check_batch_of_one(row, struct.unpack("<Q", nonce)[0])
            done += 1
    assert done > 100


def check_batch_of_one(row: Row, counter: int) -> None:
    if row["ok"]:
        assert primitives.seal_batch([(row["key"], counter, row["plain"])]) == [row["sealed"]]
        assert primitives.open_batch([(row["key"], counter, row["sealed"])]) == [row["plain"]]


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_chacha20(name: str, runs: bool) -> None:
    data = vectors.load("wireguard-kernel/chacha20.json")
    for t in data["chacha20"]:
        nonce = int(t["nonce_u64"], 16)
        key, plain = bytes.fromhex(t["key"]), bytes.fromhex(t["input"])
        words = (0, nonce & 0xFFFFFFFF, nonce >> 32)
        # The kernel's 64-bit block counter is 0 here, and so is nonce word 0.
        assert testing.chacha20(name, key, words, 0, plain, runs) == bytes.fromhex(t["output"])
    for t in data["hchacha20"]:
        subkey = testing.hchacha(bytes.fromhex(t["key"]), bytes.fromhex(t["nonce"]))
        assert subkey == bytes.fromhex(t["output"])
    rows = text_rows("rfc/chacha20-rfc7539.txt")
    assert len(rows) >= 3
    for r in rows:
        words = struct.unpack("<3I", bytes.fromhex(r["nonce"]))
        counter = int(r["initial_block_counter"])
        out = testing.chacha20(
            name, bytes.fromhex(r["key"]), words, counter, bytes.fromhex(r["plaintext"]), runs
        )
        assert out == bytes.fromhex(r["ciphertext"])


@pytest.mark.parametrize("name", OWN)
def test_poly1305(name: str) -> None:
    rows = [
        (t["key"], t["input"], t["tag"]) for t in vectors.load("wireguard-kernel/poly1305.json")
    ]
    rows += [(t["key"], t["msg"], t["tag"]) for t in text_rows("rfc/poly1305-rfc7539.txt")]
    assert len(rows) >= 45
    for key, message, tag in rows:
        got = testing.poly1305_tag(name, bytes.fromhex(key), bytes.fromhex(message))
        assert got == bytes.fromhex(tag)


def test_wycheproof_x25519() -> None:
    done = 0
    for group in vectors.load("wycheproof/x25519_test.json")["testGroups"]:
        for t in group["tests"]:
            shared = bytes.fromhex(t["shared"])
            expected = shared if any(shared) else None
            got = primitives.x25519(bytes.fromhex(t["private"]), bytes.fromhex(t["public"]))
            assert got == expected, t["tcId"]
            done += 1
    assert done >= 500


def test_kernel_x25519() -> None:
    for t in vectors.load("wireguard-kernel/curve25519.json"):
        got = primitives.x25519(bytes.fromhex(t["private"]), bytes.fromhex(t["public"]))
        assert got == (bytes.fromhex(t["result"]) if t["valid"] else None)


def test_low_order_points_give_nothing() -> None:
    points = vectors.load("wireguard-kernel/low_order_points.json")["base64"]
    assert points
    for point in points:
        assert primitives.x25519(bytes(range(32)), base64.b64decode(point)) is None


def test_rfc7748() -> None:
    for t in text_rows("rfc/x25519-rfc7748.txt"):
        got = primitives.x25519(bytes.fromhex(t["input_scalar"]), bytes.fromhex(t["input_u"]))
        assert got == bytes.fromhex(t["output_u"])
    base = (9).to_bytes(32, "little")
    scalar = point = base
    for _ in range(1000):
        shared = primitives.x25519(scalar, point)
        assert shared is not None
        scalar, point = shared, scalar
    expected = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"
    assert scalar.hex() == expected
    assert primitives.x25519(scalar, base) == primitives.x25519_public(scalar)


def test_blake2s() -> None:
    rows = vectors.load("blake2/blake2s-kat.json")
    assert len(rows) == 512
    for t in rows:
        got = primitives.blake2s(bytes.fromhex(t["in"]), bytes.fromhex(t["key"]))
        assert got == bytes.fromhex(t["out"])
    for r in text_rows("rfc/blake2s.txt"):
        message = bytes.fromhex(r["msg"])[: int(r["len"]) // 8]
        assert primitives.blake2s(message) == bytes.fromhex(r["md"])


def test_key_derivation() -> None:
    for t in vectors.load("wireguard-go/kdf.json"):
        key, data = bytes.fromhex(t["key"]), bytes.fromhex(t["input"])
        extracted = primitives.hmac_blake2s(key, data)
        expected = tuple(bytes.fromhex(t[k]) for k in ("t0", "t1", "t2") if t.get(k))
        steps = [primitives.hmac_blake2s(extracted, b"\x01")]
        for i in (2, 3):
            steps.append(primitives.hmac_blake2s(extracted, steps[-1] + bytes([i])))
        assert tuple(steps[: len(expected)]) == expected
        # A chaining key has 32 bytes; shorter ones are padded with zeros by HMAC itself.
        padded = key.ljust(32, b"\0")
        for n in range(1, len(expected) + 1):
            assert primitives.kdf(n, padded, data) == expected[:n]
