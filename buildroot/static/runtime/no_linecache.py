"""Stands in for linecache: the executable holds no source whose lines a traceback could show."""

from __future__ import annotations

cache: dict[str, object] = {}


def getline(filename: str, lineno: int, module_globals: object = None) -> str:
    return ""


def getlines(filename: str, module_globals: object = None) -> list[str]:
    return []


def checkcache(filename: str | None = None) -> None:
    return None


def clearcache() -> None:
    return None


def lazycache(filename: str, module_globals: object) -> bool:
    return False
