"""WireGuard's handshake once more, from the paper, in plain Python: what ours is checked against.

Uses hashlib's BLAKE2s and pycryptodome's AEADs; X25519 is the ladder of RFC 7748. Slow
and not constant time. Where pycryptodome is not built (an emulated CPU) our own AEAD
stands in: there the byte order of everything else is under test.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

try:
    from Crypto.Cipher import ChaCha20_Poly1305
except ImportError:
    from cext.crypto import primitives as ours

P = 2**255 - 19
BASE = (9).to_bytes(32, "little")
CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"


def x25519(secret: bytes, point: bytes) -> bytes:
    """RFC 7748, section 5."""
    k = bytearray(secret)
    k[0] &= 248
    k[31] = (k[31] & 127) | 64
    scalar = int.from_bytes(k, "little")
    u = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = (scalar >> t) & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b = x2 + z2, x2 - z2
        c, d = x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public(secret: bytes) -> bytes:
    return x25519(secret, BASE)


def blake(data: bytes, key: bytes = b"", size: int = 32) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=size).digest()


def kdf(n: int, key: bytes, data: bytes) -> list[bytes]:
    def mac(k: bytes, m: bytes) -> bytes:
        return hmac.new(k, m, hashlib.blake2s).digest()

    secret, block, out = mac(key, data), b"", []
    for i in range(1, n + 1):
        block = mac(secret, block + bytes([i]))
        out.append(block)
    return out


def aead_seal(key: bytes, nonce: bytes, plain: bytes, ad: bytes) -> bytes:
    """RFC 8439 with a nonce of 12 bytes, XChaCha20-Poly1305 with one of 24."""
    if "ours" in globals():
        return (ours.aead_seal if len(nonce) == 12 else ours.xaead_seal)(key, nonce, plain, ad)
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(ad)
    return b"".join(cipher.encrypt_and_digest(plain))


def aead_open(key: bytes, nonce: bytes, sealed: bytes, ad: bytes) -> bytes:
    """ValueError when the tag is wrong."""
    if "ours" in globals():
        plain = (ours.aead_open if len(nonce) == 12 else ours.xaead_open)(key, nonce, sealed, ad)
        if plain is None:
            raise ValueError("the tag is wrong")
        return plain
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(ad)
    return cipher.decrypt_and_verify(sealed[:-16], sealed[-16:])


def seal(key: bytes, counter: int, plain: bytes, ad: bytes = b"") -> bytes:
    return aead_seal(key, bytes(4) + struct.pack("<Q", counter), plain, ad)


def unseal(key: bytes, counter: int, sealed: bytes, ad: bytes = b"") -> bytes:
    return aead_open(key, bytes(4) + struct.pack("<Q", counter), sealed, ad)


def open_cookie(message: bytes, mac1: bytes, responder_public: bytes) -> bytes:
    """The cookie inside a cookie reply."""
    key = blake(b"cookie--" + responder_public)
    return aead_open(key, message[8:32], message[32:64], mac1)


def seal_cookie(receiver: int, cookie: bytes, mac1: bytes, own_public: bytes) -> bytes:
    """A cookie reply."""
    nonce = bytes(range(24))
    sealed = aead_seal(blake(b"cookie--" + own_public), nonce, cookie, mac1)
    return struct.pack("<II", 3, receiver) + nonce + sealed


def add_macs(message: bytes, receiver_public: bytes, cookie: bytes = b"") -> bytes:
    """MAC1 under the receiver's public key, MAC2 under a cookie, zero without one."""
    message += blake(message, blake(b"mac1----" + receiver_public), 16)
    return message + (blake(message, cookie, 16) if cookie else bytes(16))


@dataclass
class Session:
    """Transport keys of one side."""

    send_key: bytes
    receive_key: bytes
    local_index: int
    remote_index: int
    counter: int = 0

    def seal(self, packet: bytes) -> bytes:
        packet += bytes(-len(packet) % 16)
        header = struct.pack("<IIQ", 4, self.remote_index, self.counter)
        sealed = seal(self.send_key, self.counter, packet)
        self.counter += 1
        return header + sealed

    def open(self, datagram: bytes) -> bytes:
        kind, index, counter = struct.unpack("<IIQ", datagram[:16])
        assert (kind, index) == (4, self.local_index)
        return unseal(self.receive_key, counter, datagram[16:])


@dataclass
class Peer:
    """One side of handshakes with one other side."""

    private: bytes
    remote_public: bytes
    psk: bytes = bytes(32)
    random: Callable[[int], bytes] = field(default=lambda n: bytes(range(1, n + 1)))

    def __post_init__(self) -> None:
        self.public = public(self.private)

    def begin(self, responder_public: bytes) -> None:
        self.ck = blake(CONSTRUCTION)
        self.h = blake(blake(self.ck + IDENTIFIER) + responder_public)

    def mix_hash(self, data: bytes) -> None:
        self.h = blake(self.h + data)

    def initiation(self, sender: int, timestamp: bytes, cookie: bytes = b"") -> bytes:
        self.begin(self.remote_public)
        self.index = sender
        self.e = self.random(32)
        e_public = public(self.e)
        (self.ck,) = kdf(1, self.ck, e_public)
        self.mix_hash(e_public)
        self.ck, key = kdf(2, self.ck, x25519(self.e, self.remote_public))
        static = seal(key, 0, self.public, self.h)
        self.mix_hash(static)
        self.ck, key = kdf(2, self.ck, x25519(self.private, self.remote_public))
        stamp = seal(key, 0, timestamp, self.h)
        self.mix_hash(stamp)
        message = struct.pack("<II", 1, sender) + e_public + static + stamp
        return add_macs(message, self.remote_public, cookie)

    def consume_response(self, message: bytes) -> Session:
        kind, sender, receiver = struct.unpack("<III", message[:12])
        assert (kind, receiver, len(message)) == (2, self.index, 92)
        e_public = message[12:44]
        assert message[60:76] == blake(message[:60], blake(b"mac1----" + self.public), 16)
        (self.ck,) = kdf(1, self.ck, e_public)
        self.mix_hash(e_public)
        (self.ck,) = kdf(1, self.ck, x25519(self.e, e_public))
        (self.ck,) = kdf(1, self.ck, x25519(self.private, e_public))
        self.ck, tau, key = kdf(3, self.ck, self.psk)
        self.mix_hash(tau)
        assert unseal(key, 0, message[44:60], self.h) == b""
        send_key, receive_key = kdf(2, self.ck, b"")
        return Session(send_key, receive_key, self.index, sender)

    def consume_initiation(self, message: bytes) -> bytes:
        """The timestamp."""
        kind, self.remote_index = struct.unpack("<II", message[:8])
        assert (kind, len(message)) == (1, 148)
        assert message[116:132] == blake(message[:116], blake(b"mac1----" + self.public), 16)
        self.begin(self.public)
        self.remote_e = message[8:40]
        (self.ck,) = kdf(1, self.ck, self.remote_e)
        self.mix_hash(self.remote_e)
        self.ck, key = kdf(2, self.ck, x25519(self.private, self.remote_e))
        assert unseal(key, 0, message[40:88], self.h) == self.remote_public
        self.mix_hash(message[40:88])
        self.ck, key = kdf(2, self.ck, x25519(self.private, self.remote_public))
        timestamp = unseal(key, 0, message[88:116], self.h)
        self.mix_hash(message[88:116])
        return timestamp

    def response(self, sender: int, cookie: bytes = b"") -> tuple[bytes, Session]:
        e = self.random(32)
        e_public = public(e)
        (self.ck,) = kdf(1, self.ck, e_public)
        self.mix_hash(e_public)
        (self.ck,) = kdf(1, self.ck, x25519(e, self.remote_e))
        (self.ck,) = kdf(1, self.ck, x25519(e, self.remote_public))
        self.ck, tau, key = kdf(3, self.ck, self.psk)
        self.mix_hash(tau)
        nothing = seal(key, 0, b"", self.h)
        self.mix_hash(nothing)
        receive_key, send_key = kdf(2, self.ck, b"")
        message = struct.pack("<III", 2, sender, self.remote_index) + e_public + nothing
        session = Session(send_key, receive_key, sender, self.remote_index)
        return add_macs(message, self.remote_public, cookie), session
