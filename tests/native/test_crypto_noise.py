"""Whole Noise handshakes out of the primitives, against the vectors of other implementations."""

from __future__ import annotations

from typing import Any

import pytest

from cext.crypto import primitives
from tests.support import vectors

# Noise specification, sections 7.4, 7.5 and appendix 18.1. "|" ends a message, the first
# one is the initiator's; what both know beforehand stands before ":" (i, r: whose static).
PATTERNS = {
    "N": "r:e es",
    "K": "ir:e es ss",
    "X": "r:e es s ss",
    "NN": ":e|e ee",
    "NK": "r:e es|e ee",
    "NX": ":e|e ee s es",
    "KN": "i:e|e ee se",
    "KK": "ir:e es ss|e ee se",
    "KX": "i:e|e ee se s es",
    "XN": ":e|e ee|s se",
    "XK": "r:e es|e ee|s se",
    "XX": ":e|e ee s es|s se",
    "IN": ":e s|e ee se",
    "IK": "r:e es s ss|e ee se",
    "IX": ":e s|e ee se s es",
    "NK1": "r:e|e ee es",
    "NX1": ":e|e ee s|es",
    "X1N": ":e|e ee|s|se",
    "X1K": "r:e es|e ee|s|se",
    "XK1": "r:e|e ee es|s se",
    "X1K1": "r:e|e ee es|s|se",
    "X1X": ":e|e ee s es|s|se",
    "XX1": ":e|e ee s|es s se",
    "X1X1": ":e|e ee s|es s|se",
    "K1N": "i:e|e ee|se",
    "K1K": "ir:e es|e ee|se",
    "KK1": "ir:e|e ee se es",
    "K1K1": "ir:e|e ee es|se",
    "K1X": "i:e|e ee s es|se",
    "KX1": "i:e|e ee se s|es",
    "K1X1": "i:e|e ee s|se es",
    "I1N": ":e s|e ee|se",
    "I1K": "r:e es s|e ee|se",
    "IK1": "r:e s|e ee se es",
    "I1K1": "r:e s|e ee es|se",
    "I1X": ":e s|e ee s es|se",
    "IX1": ":e s|e ee se s|es",
    "I1X1": ":e s|e ee s|se es",
}
FILES = ("cacophony_cacophony", "snow_snow")


def pattern_of(name: str) -> tuple[str, list[list[str]]]:
    """Return what is known beforehand, and the tokens of each message with psk ones put in."""
    base = name.split("psk")[0]
    before, _, rest = PATTERNS[base].partition(":")
    messages = [m.split() for m in rest.split("|")]
    for modifier in name[len(base) :].replace("psk", "").split("+"):
        if modifier == "0":
            messages[0].insert(0, "psk")
        elif modifier:
            messages[int(modifier) - 1].append("psk")
    return before, messages


class Cipher:
    """A key and its nonce; without a key, nothing is encrypted."""

    def __init__(self, key: bytes | None = None) -> None:
        self.key, self.n = key, 0

    def nonce(self) -> bytes:
        self.n += 1
        return bytes(4) + (self.n - 1).to_bytes(8, "little")

    def seal(self, plain: bytes, ad: bytes = b"") -> bytes:
        return primitives.aead_seal(self.key, self.nonce(), plain, ad) if self.key else plain

    def open(self, sealed: bytes, ad: bytes = b"") -> bytes:
        if not self.key:
            return sealed
        plain = primitives.aead_open(self.key, self.nonce(), sealed, ad)
        assert plain is not None
        return plain


class Party:
    """One side of a handshake: the symmetric state and its key pairs."""

    def __init__(self, vector: dict[str, Any], initiator: bool) -> None:
        side = "init" if initiator else "resp"
        self.initiator = initiator
        name = vector["protocol_name"].encode()
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else primitives.blake2s(name)
        self.ck, self.cipher = self.h, Cipher()
        self.psks = [bytes.fromhex(k) for k in vector.get(f"{side}_psks", [])]
        self.has_psk = bool(self.psks)
        self.own = {
            kind: bytes.fromhex(vector[f"{side}_{long}"])
            for kind, long in (("s", "static"), ("e", "ephemeral"))
            if f"{side}_{long}" in vector
        }
        self.peer: dict[str, bytes] = {}
        if f"{side}_remote_static" in vector:
            self.peer["s"] = bytes.fromhex(vector[f"{side}_remote_static"])
        self.mix_hash(bytes.fromhex(vector[f"{side}_prologue"]))
        before, self.messages = pattern_of(vector["protocol_name"].split("_")[1])
        for who in before:
            mine = (who == "i") == initiator
            self.mix_hash(self.public("s") if mine else self.peer["s"])

    def public(self, kind: str) -> bytes:
        return primitives.x25519_public(self.own[kind])

    def mix_hash(self, data: bytes) -> None:
        self.h = primitives.blake2s(self.h + data)

    def mix_key(self, data: bytes) -> None:
        self.ck, key = primitives.kdf(2, self.ck, data)
        self.cipher = Cipher(key)

    def shared(self, token: str) -> bytes:
        # The first letter is the initiator's key, the second the responder's.
        own, peer = token if self.initiator else token[::-1]
        secret = primitives.x25519(self.own[own], self.peer[peer])
        assert secret is not None
        return secret

    def common(self, token: str) -> None:
        if token == "psk":
            self.ck, temporary, key = primitives.kdf(3, self.ck, self.psks.pop(0))
            self.mix_hash(temporary)
            self.cipher = Cipher(key)
        else:
            self.mix_key(self.shared(token))

    def ephemeral(self, public: bytes) -> None:
        self.mix_hash(public)
        if self.has_psk:
            self.mix_key(public)

    def encrypt(self, plain: bytes) -> bytes:
        sealed = self.cipher.seal(plain, self.h)
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        plain = self.cipher.open(sealed, self.h)
        self.mix_hash(sealed)
        return plain

    def write(self, tokens: list[str], payload: bytes) -> bytes:
        out = b""
        for token in tokens:
            if token == "e":
                out += self.public("e")
                self.ephemeral(self.public("e"))
            elif token == "s":
                out += self.encrypt(self.public("s"))
            else:
                self.common(token)
        return out + self.encrypt(payload)

    def read(self, tokens: list[str], message: bytes) -> bytes:
        for token in tokens:
            if token == "e":
                self.peer["e"], message = message[:32], message[32:]
                self.ephemeral(self.peer["e"])
            elif token == "s":
                size = 48 if self.cipher.key else 32
                self.peer["s"] = self.decrypt(message[:size])
                message = message[size:]
            else:
                self.common(token)
        return self.decrypt(message)

    def split(self) -> tuple[Cipher, Cipher]:
        first, second = primitives.kdf(2, self.ck, b"")
        return Cipher(first), Cipher(second)


def play(vector: dict[str, Any]) -> None:
    """Run one vector: both sides, every message byte for byte."""
    alice, bob = Party(vector, True), Party(vector, False)
    one_way = len(alice.messages) == 1
    transport = None
    for i, message in enumerate(vector["messages"]):
        payload, expected = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        sender, receiver = (alice, bob) if one_way or i % 2 == 0 else (bob, alice)
        if i < len(alice.messages):
            assert sender.write(alice.messages[i], payload) == expected
            assert receiver.read(alice.messages[i], expected) == payload
            continue
        if transport is None:
            assert alice.h == bob.h
            assert alice.h.hex() == vector.get("handshake_hash", alice.h.hex())
            transport = alice.split(), bob.split()
        sending, receiving = transport if sender is alice else transport[::-1]
        direction = 0 if sender is alice else 1
        assert sending[direction].seal(payload) == expected
        assert receiving[direction].open(expected) == payload


@pytest.mark.parametrize("file", FILES)
def test_every_pattern(file: str) -> None:
    rows = vectors.load(f"noise/{file}_25519_ChaChaPoly_BLAKE2s.json")["vectors"]
    assert len(rows) > 40
    for vector in rows:
        play(vector)


def test_ikpsk2_is_among_them() -> None:
    rows = vectors.load(f"noise/{FILES[0]}_25519_ChaChaPoly_BLAKE2s.json")["vectors"]
    (vector,) = [v for v in rows if v["protocol_name"].startswith("Noise_IKpsk2_")]
    assert pattern_of("IKpsk2") == ("r", [["e", "es", "s", "ss"], ["e", "ee", "se", "psk"]])
    play(vector)
