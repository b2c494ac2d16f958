"""Known answers of the cryptography, computed in the running program."""

from __future__ import annotations

from cext.crypto import primitives


def proved() -> tuple[str, ...]:
    """Return the AEAD variants whose answers were right when they were loaded, as all must be."""
    return primitives.available()


def wrong_answer() -> str | None:
    """Return which of OpenSSL's answers is wrong, if one is."""
    return primitives.wrong_answer()
