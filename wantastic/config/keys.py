"""X25519 keys outside the data plane: text form, generation, checks.

pycryptodome does the arithmetic and is imported only where a public key has to be
computed: its import costs more than the rest of the start-up of a small router.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

KEY_BYTES = 32
NO_KEY = bytes(KEY_BYTES)

_P = 2**255 - 19
# The points whose product with any scalar is zero (RFC 7748, section 6.1), and the
# spellings of them that exceed the field prime.
_LOW_ORDER = frozenset(
    n.to_bytes(KEY_BYTES, "little")
    for n in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
        _P,
        _P + 1,
    )
)


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of `wg`'s base64 form; ValueError says what is wrong with it."""
    if len(text) != 44:
        raise ValueError(f"has {len(text)} characters where a key has 44")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(key) != KEY_BYTES or base64.b64encode(key).decode() != text:
        raise ValueError("is not the base64 of 32 bytes")
    return key


def encode_key(key: bytes) -> str:
    """Return `wg`'s base64 form of a key."""
    return base64.b64encode(key).decode()


def clamp(key: bytes) -> bytes:
    """Return the scalar that X25519 really uses for a private key (RFC 7748, section 5)."""
    return bytes([key[0] & 248]) + key[1:31] + bytes([(key[31] & 127) | 64])


def generate_private_key(entropy: Callable[[int], bytes]) -> bytes:
    """Return a new private key out of 32 bytes of the kernel's `entropy`."""
    return clamp(entropy(KEY_BYTES))


def public_key_of(private_key: bytes) -> bytes:
    """Return the public key that belongs to a private key."""
    from Crypto.PublicKey import ECC

    key = ECC.construct(curve="Curve25519", seed=private_key)
    return bytes(key.public_key().export_key(format="raw"))


def is_low_order(public_key: bytes) -> bool:
    """Return whether a handshake with this public key would give an all-zero secret."""
    return public_key[:31] + bytes([public_key[31] & 127]) in _LOW_ORDER
