"""Where an enrolment token comes from: a file, standard input, or the command line."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from wantastic.control.errors import LocalError

MAX_TOKEN_BYTES: Final = 8192
STDIN: Final = "-"


def read_token_file(path: str) -> str:
    """Return the token in a file. LocalError."""
    try:
        # Not to wait for a writer when the path is a FIFO nobody writes to.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise LocalError("token_file", f"The token file {path} is a folder")
            data = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        why = error.strerror or "it cannot be read"
        raise LocalError("token_file", f"The token file {path} is not usable: {why}") from None
    return check_token(data or b"", f"The token file {path}")


def token_argument(value: str, read_stdin: Callable[[int], bytes]) -> str:
    """Return the token that `-token VALUE` means; "-" reads standard input. LocalError."""
    if value == STDIN:
        return check_token(read_stdin(MAX_TOKEN_BYTES + 1), "Standard input")
    return check_token(value.encode("utf-8", "surrogateescape"), "-token")


def check_token(data: bytes, source: str) -> str:
    """Return a token as it may stand in a header; the message never quotes it. LocalError."""
    if len(data) > MAX_TOKEN_BYTES:
        raise LocalError("token_file", f"{source} is longer than 8 KiB, which no token is")
    token = data.strip()
    if not token:
        raise LocalError("token_file", f"{source} is empty", "Give the token that you were sent.")
    if any(not 0x21 <= byte <= 0x7E for byte in token):
        raise LocalError(
            "token_file",
            f"{source} holds more than one word or a character that no token has",
            "Give the token alone: one line without blanks.",
        )
    return token.decode("ascii")
