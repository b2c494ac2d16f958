"""DNS messages: a question for the addresses of one name, and its answer (RFC 1035)."""

from __future__ import annotations

import ipaddress
import struct

A, AAAA = 1, 28
MAX_TTL_S = 300
MAX_ANSWERS = 64
_HEAD = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")


def make_query(number: int, name: str, kind: int) -> bytes:
    """Return a question for one name, with recursion desired."""
    labels = b"".join(bytes((len(part),)) + part.encode("ascii") for part in name.split("."))
    return _HEAD.pack(number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def skip_name(message: bytes, at: int) -> int:
    """Return the offset behind a name; ValueError where it runs out of the message."""
    for _ in range(128):
        if at >= len(message):
            break
        length = message[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if length == 0:
            return at
    raise ValueError("a name that does not end")


def is_answer(message: bytes, query: bytes) -> bool:
    """Return whether a message answers this very question."""
    return (
        len(message) >= len(query)
        and message[:2] == query[:2]
        and bool(message[2] & 0x80)
        and message[12 : len(query)].lower() == query[12:].lower()
    )


def is_truncated(message: bytes) -> bool:
    """Return whether an answer says that it is not whole."""
    return bool(message[2] & 0x02)


def parse_answer(message: bytes, query: bytes) -> tuple[list[str], int]:
    """Return addresses and their time to live in seconds; ValueError when it is no answer.

    Aliases are followed by the server, which lists them: every address in the answer
    section is an answer to the one question.
    """
    if not is_answer(message, query):
        raise ValueError("no answer to this question")
    _, flags, questions, answers, _, _ = _HEAD.unpack_from(message)
    if flags & 0x0200 or questions != 1 or flags & 15 not in (0, 3):
        raise ValueError("the server did not answer")
    wanted = int.from_bytes(query[-4:-2], "big")
    found, ttl_s, at = [], MAX_TTL_S, len(query)
    for _ in range(min(answers, MAX_ANSWERS)):
        at = skip_name(message, at)
        if at + _RECORD.size > len(message):
            raise ValueError("cut off")
        kind, family, ttl, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        data = message[at : at + length]
        at += length
        if len(data) != length:
            raise ValueError("cut off")
        if kind == wanted and family == 1 and length in (4, 16):
            found.append(str(ipaddress.ip_address(data)))
            ttl_s = min(ttl_s, ttl)
    return found, ttl_s
