"""Who uses the approval page: a signed cookie, and form tokens that belong to it.

The cookie holds a random session id, the operator (0 before sign-in) and an expiry under
HMAC; nothing is stored. A form is taken only with the token derived from its session, so
another site can neither forge one nor sign a visitor in as somebody else.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from dataclasses import dataclass

from wantastic.server.keyring import Keyring

LIFETIME_S = 3600
_BODY = struct.Struct(">16sQQ")
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One browser session; operator 0 has not signed in."""

    id: bytes
    operator_id: int
    expires_at: int


class Sessions:
    """Makes and checks session cookies and form tokens."""

    def __init__(self, keyring: Keyring, *, secure: bool) -> None:
        self._key = keyring.derive("session")
        self._secure = secure
        # A browser takes a __Host- cookie only over TLS and only from this very host.
        self.cookie_name = "__Host-wantastic" if secure else "wantastic"

    def new(self, operator_id: int, now_s: int) -> Session:
        """Start a session; signing in starts another one."""
        return Session(secrets.token_bytes(16), operator_id, now_s + LIFETIME_S)

    def read(self, cookie: str, now_s: int) -> Session | None:
        """Return the session of a cookie, if it is ours and not over."""
        try:
            data = base64.urlsafe_b64decode(cookie)
        except (ValueError, binascii.Error):
            return None
        body, mac = data[: _BODY.size], data[_BODY.size :]
        if not hmac.compare_digest(mac, self._mac(b"cookie", body)) or len(body) != _BODY.size:
            return None
        session = Session(*_BODY.unpack(body))
        return session if now_s < session.expires_at else None

    def set_cookie(self, session: Session) -> tuple[str, str]:
        """Return the header that gives a session to the browser."""
        body = _BODY.pack(session.id, session.operator_id, session.expires_at)
        value = base64.urlsafe_b64encode(body + self._mac(b"cookie", body)).decode()
        flags = "; Secure" if self._secure else ""
        return (
            "set-cookie",
            f"{self.cookie_name}={value}; Path=/; HttpOnly; SameSite=Lax; "
            f"Max-Age={LIFETIME_S}{flags}",
        )

    def form_token(self, session: Session) -> str:
        """Return what forms of this session have to carry."""
        return base64.urlsafe_b64encode(self._mac(b"form", session.id)).decode()

    def form_token_matches(self, session: Session, token: str) -> bool:
        """Check a form's token."""
        return hmac.compare_digest(self.form_token(session).encode(), token.encode())

    def _mac(self, purpose: bytes, data: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\x00" + data, "sha256")
