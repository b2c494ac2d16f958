"""The cryptography of cext/crypto as Python sees it: keys, checks and tests, never packets.

Byte strings in, byte strings out. ValueError names an argument of the wrong length.
Importing the module runs the known answers and raises RuntimeError when one fails.
"""

from collections.abc import Sequence

def aead_seal(
    key: bytes, nonce: bytes, plaintext: bytes, associated: bytes = b"", /
) -> bytes: ...  # RFC 8439: nonce 12 bytes; ciphertext + tag
def aead_open(
    key: bytes, nonce: bytes, sealed: bytes, associated: bytes = b"", /
) -> bytes | None: ...  # None when the tag is wrong
def xaead_seal(
    key: bytes, nonce: bytes, plaintext: bytes, associated: bytes = b"", /
) -> bytes: ...  # XChaCha20-Poly1305: nonce 24 bytes
def xaead_open(
    key: bytes, nonce: bytes, sealed: bytes, associated: bytes = b"", /
) -> bytes | None: ...
def seal_batch(
    jobs: Sequence[tuple[bytes, int, bytes]], /
) -> list[bytes]: ...  # (key, counter, plaintext) of a transport packet each
def open_batch(jobs: Sequence[tuple[bytes, int, bytes]], /) -> list[bytes | None]: ...
def x25519(secret: bytes, point: bytes, /) -> bytes | None: ...  # None: low-order point
def x25519_public(secret: bytes, /) -> bytes: ...
def blake2s(data: bytes, key: bytes = b"", size: int = 32, /) -> bytes: ...
def hmac_blake2s(key: bytes, data: bytes, /) -> bytes: ...
def kdf(
    n: int, chaining_key: bytes, data: bytes, /
) -> tuple[bytes, ...]: ...  # n outputs of 32 bytes
def backend() -> str: ...
def available() -> tuple[str, ...]: ...  # variants that this CPU runs, fastest first
def select(name: str, /) -> None: ...  # ValueError when this CPU lacks it
def wrong_answer() -> str | None: ...  # which known answer of OpenSSL's fails
