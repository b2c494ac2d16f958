"""Tokens: enrolment tokens that operators hand out, access tokens that devices carry.

An enrolment token is `wte_ID_SECRET`: the ID finds its row, the secret is compared with
the stored hash. An access token is `wta1.` and the base64 of a fixed structure and its
HMAC-SHA256 under a key of the keyring: checking one needs no database, and takes a few
microseconds. Both together are 60 bytes, so there is one spelling of each token.
`generation` is compared with the device's; raising that one revokes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from dataclasses import dataclass
from typing import NamedTuple

from wantastic.server.keyring import Keyring
from wantastic.server.records import RefusalCode, Refused

ENROLMENT_PREFIX = "wte_"
ACCESS_PREFIX = "wta1."
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_ID_CHARACTERS = 12
_BODY = struct.Struct(">QIQQ")  # device pk, generation, issued at, expires at
_MAC_BYTES = 32
_ACCESS_CHARACTERS = len(ACCESS_PREFIX) + (_BODY.size + _MAC_BYTES) // 3 * 4


class Claims(NamedTuple):
    """What an access token says; times are unix seconds."""

    device_pk: int
    generation: int
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class PlainEnrolmentToken:
    """An enrolment token in clear; exists only while it is made or redeemed."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        """The form that a person copies."""
        return f"{ENROLMENT_PREFIX}{self.id}_{self.secret}"

    def __repr__(self) -> str:
        return f"PlainEnrolmentToken(id={self.id!r})"


def new_enrolment_token() -> PlainEnrolmentToken:
    """Make a token of 256 random bits."""
    name = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARACTERS))
    return PlainEnrolmentToken(name, secrets.token_urlsafe(32))


def parse_enrolment_token(text: str) -> PlainEnrolmentToken | None:
    """Split an enrolment token; None when it has not the form of one."""
    if not text.startswith(ENROLMENT_PREFIX) or len(text) > 200:
        return None
    name, separator, secret = text[len(ENROLMENT_PREFIX) :].partition("_")
    if not separator or len(name) != _ID_CHARACTERS or not secret or not text.isascii():
        return None
    return PlainEnrolmentToken(name, secret)


def invalid_token() -> Refused:
    """The answer to every token that is not ours, whatever is wrong with it."""
    return Refused(
        RefusalCode.TOKEN_INVALID,
        "the bearer token is not one of this server",
        remedy="ask the operator of the server for an enrolment token",
    )


class TokenSigner:
    """Makes and checks access tokens."""

    def __init__(self, keyring: Keyring) -> None:
        self._key = keyring.derive("access-token")

    def issue(self, device_pk: int, generation: int, now_s: int, lifetime_s: int) -> str:
        """Return a new access token."""
        body = _BODY.pack(device_pk, generation, now_s, now_s + lifetime_s)
        mac = hmac.digest(self._key, body, "sha256")
        return ACCESS_PREFIX + base64.urlsafe_b64encode(body + mac).decode()

    def verify(self, text: str, now_s: int, grace_s: int = 0) -> Claims:
        """Return the claims of a genuine token that is not expired for more than `grace_s`."""
        if len(text) != _ACCESS_CHARACTERS or not text.startswith(ACCESS_PREFIX):
            raise invalid_token()
        try:
            data = base64.b64decode(text[len(ACCESS_PREFIX) :], altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise invalid_token() from None
        body, mac = data[: _BODY.size], data[_BODY.size :]
        if not hmac.compare_digest(hmac.digest(self._key, body, "sha256"), mac):
            raise invalid_token()
        claims = Claims(*_BODY.unpack(body))
        if now_s >= claims.expires_at + grace_s:
            raise Refused(
                RefusalCode.TOKEN_EXPIRED,
                "the device's token expired",
                remedy="register again with an enrolment token",
            )
        return claims
