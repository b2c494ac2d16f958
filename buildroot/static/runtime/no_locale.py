"""Stands in for locale and its tables: the executable speaks English and UTF-8."""

from __future__ import annotations

LC_CTYPE, LC_NUMERIC, LC_TIME, LC_COLLATE, LC_MONETARY, LC_MESSAGES, LC_ALL = range(7)
Error = ValueError


def getencoding() -> str:
    return "utf-8"


def getpreferredencoding(do_setlocale: bool = True) -> str:
    return "utf-8"


def getlocale(category: int = LC_CTYPE) -> tuple[None, None]:
    return None, None


def setlocale(category: int, locale: object = None) -> str:
    return "C"


def normalize(name: str) -> str:
    return name
