"""The device's TLS client key, its PKCS#10 request, and what its certificate says.

ECDSA on P-256. pycryptodome makes the key and signs; the request itself (RFC 2986) is some
forty lines of DER here. The `cryptography` package would do it in one call and bring its own
Rust-built OpenSSL of several megabytes into the firmware.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

# OIDs, DER, with tag and length.
_ECDSA_WITH_SHA256: Final = bytes.fromhex("06082a8648ce3d040302")
_COMMON_NAME: Final = bytes.fromhex("0603550403")
_RENEW_AT: Final = 2 / 3
MAX_CHAIN: Final = 8
MAX_CERTIFICATE_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Certificate:
    """The chain that the server issued and the key that belongs to it; DER."""

    key_der: bytes = field(repr=False)
    chain: tuple[bytes, ...] = ()

    @property
    def chain_pem(self) -> bytes:
        return b"".join(pem("CERTIFICATE", der) for der in self.chain)

    @property
    def key_pem(self) -> bytes:
        return pem("PRIVATE KEY", self.key_der)


def pem(label: str, der: bytes) -> bytes:
    """Return the PEM form."""
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n".encode()


def generate_key(entropy: Callable[[int], bytes] | None = None) -> bytes:
    """Return a new P-256 private key, PKCS#8 DER."""
    from Crypto.PublicKey import ECC

    key = ECC.generate(curve="P-256", randfunc=entropy)
    return bytes(key.export_key(format="DER", use_pkcs8=True))


def make_request(key_der: bytes, common_name: str) -> bytes:
    """Return a PKCS#10 request, DER, signed with the key."""
    from Crypto.Hash import SHA256
    from Crypto.PublicKey import ECC
    from Crypto.Signature import DSS

    key = ECC.import_key(key_der)
    public = key.public_key().export_key(format="DER")
    name = _der(0x0C, common_name.encode()[:64])
    subject = _der(0x30, _der(0x31, _der(0x30, _COMMON_NAME + name)))
    info = _der(0x30, _der(0x02, b"\x00") + subject + bytes(public) + _der(0xA0, b""))
    signature = DSS.new(key, "fips-186-3", encoding="der").sign(SHA256.new(info))
    algorithm = _der(0x30, _ECDSA_WITH_SHA256)
    return _der(0x30, info + algorithm + _der(0x03, b"\x00" + bytes(signature)))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _read(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Return (tag, start of content, end of content) of the element at `at`."""
    if at + 2 > end:
        raise ValueError("DER ends early")
    tag, first = data[at], data[at + 1]
    start, size = at + 2, first
    if first & 0x80:
        count = first & 0x7F
        if not 1 <= count <= 4 or start + count > end:
            raise ValueError("DER length is not usable")
        size = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + size > end:
        raise ValueError("DER ends early")
    return tag, start, start + size


def _time(tag: int, text: bytes) -> float:
    """Return the Unix time of a UTCTime or GeneralizedTime in the form that RFC 5280 allows.

    Not by strptime, which imports half a dozen modules that the executable does without.
    """
    digits = {0x17: 12, 0x18: 14}.get(tag)
    if digits is None or len(text) != digits + 1 or text[-1:] != b"Z" or not text[:-1].isdigit():
        raise ValueError("not a time")
    year = int(text[: digits - 10])
    if tag == 0x17:
        year += 1900 if year >= 50 else 2000
    month, day, hour, minute, second = (
        int(text[at : at + 2]) for at in range(digits - 10, digits, 2)
    )
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


def validity(der: bytes) -> tuple[float, float]:
    """Return (not before, not after) of a certificate as Unix times; ValueError."""
    _, at, end = _read(der, 0, len(der))
    _, at, end = _read(der, at, end)
    tag, _, after = _read(der, at, end)
    if tag == 0xA0:  # version
        at = after
    for _ in range(3):  # serial number, signature algorithm, issuer
        _, _, at = _read(der, at, end)
    tag, start, stop = _read(der, at, end)
    if tag != 0x30:
        raise ValueError("not a certificate")
    tag, first, next_at = _read(der, start, stop)
    begins = _time(tag, der[first:next_at])
    tag, first, last = _read(der, next_at, stop)
    return begins, _time(tag, der[first:last])


def check_chain(chain: tuple[bytes, ...]) -> None:
    """ValueError for a chain that is not worth storing."""
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise ValueError(f"a chain of {len(chain)} certificates")
    for der in chain:
        if len(der) > MAX_CERTIFICATE_BYTES:
            raise ValueError("a certificate is larger than 16 KiB")
        validity(der)


def renewal_is_due(chain: tuple[bytes, ...], now_unix_s: float) -> bool:
    """Return whether two thirds of the validity are over (or there is no certificate)."""
    if not chain:
        return True
    begins, ends = validity(chain[0])
    return now_unix_s >= begins + (ends - begins) * _RENEW_AT


def is_over(chain: tuple[bytes, ...], now_unix_s: float) -> bool:
    """Return whether showing the certificate would only be refused."""
    return not chain or now_unix_s >= validity(chain[0])[1]
