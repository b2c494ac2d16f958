"""The server's root secret, and everything derived from it or sealed under it.

One file of 32 random bytes, mode 0600, made on first use. All processes that share a
database share this file: access tokens made by one are accepted by the others, and
secrets in the database (the CA's key, the gateway's key) are useless without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
NONCE_BYTES = 12


class KeyringError(Exception):
    """The key file is unusable; the text names file, problem and remedy."""


class Keyring:
    """Derives keys by purpose, and seals what the database keeps."""

    def __init__(self, root: bytes) -> None:
        if len(root) != KEY_BYTES:
            raise KeyringError(f"root key: {len(root)} bytes instead of {KEY_BYTES}")
        self._root = root
        self._seal = ChaCha20Poly1305(self.derive("seal"))

    @classmethod
    def open(cls, path: Path) -> Keyring:
        """Read the key file, or make it where there is none."""
        if not path.exists():
            cls._make(path)
        return cls._read(path)

    @staticmethod
    def _make(path: Path) -> None:
        """Make the file, whole or not at all; another process's counts when it is first."""
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename it does not replace what stands there.
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @classmethod
    def _read(cls, path: Path) -> Keyring:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyringError(f"{path}: readable by others; run: chmod 600 {path}")
        root = path.read_bytes()
        if len(root) != KEY_BYTES:
            raise KeyringError(
                f"{path}: {len(root)} bytes instead of {KEY_BYTES}; restore it from the backup"
            )
        return cls(root)

    def derive(self, purpose: str) -> bytes:
        """Return the 32-byte key of one purpose (HKDF-Expand of RFC 5869, one block)."""
        info = b"wantastic-server " + purpose.encode() + b"\x01"
        return hmac.digest(self._root, info, "sha256")

    def seal(self, name: str, secret: bytes) -> bytes:
        """Encrypt a secret for the database; `name` is bound to it."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, secret, name.encode())

    def unseal(self, name: str, value: bytes) -> bytes:
        """Decrypt what seal() made."""
        try:
            return self._seal.decrypt(value[:NONCE_BYTES], value[NONCE_BYTES:], name.encode())
        except InvalidTag:
            raise KeyringError(
                f"{name}: the database was sealed under another key file; "
                "copy root.key from the machine that made it"
            ) from None


def hash_secret(secret: str) -> bytes:
    """Hash a random secret of at least 128 bits for storage; such need no slow hash."""
    return hashlib.sha256(b"wantastic-secret\x00" + secret.encode()).digest()


def hash_matches(secret: str, stored: bytes) -> bool:
    """Compare a secret with a stored hash in constant time."""
    return hmac.compare_digest(hash_secret(secret), stored)
