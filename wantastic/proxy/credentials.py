"""Who may use a proxy: a user name and a password, compared in constant time."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """One user. The password is kept out of every representation."""

    user: str
    password: str = field(repr=False)

    def match(self, user: bytes, password: bytes) -> bool:
        """Return whether both are right, in time that does not tell which was wrong."""
        same_user = hmac.compare_digest(user, self.user.encode())
        same_password = hmac.compare_digest(password, self.password.encode())
        return same_user and same_password
