"""Typed access to parsed JSON that collects problems instead of stopping at the first.

A Table hands out fields by name and type. What has the wrong type or range becomes
a Problem and reads as its default, so that one run reports everything. A field that
nobody asked for is unknown, and warned about with the nearest name that was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TypeVar

from wantastic.config.errors import ConfigError, Problem

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)
MAX_TEXT = 4096
MAX_LIST = 4096

KINDS: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a fraction",
    list: "a list",
    dict: "a table in braces",
    type(None): "null",
}


class Report:
    """The problems and warnings of one file."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def problem(self, path: str, text: str, remedy: str) -> None:
        self.problems.append(Problem(path, text, remedy))

    def warn(self, path: str, text: str, remedy: str) -> None:
        self.warnings.append(Problem(path, text, remedy))

    def finish(self) -> None:
        """Raise when there was a problem."""
        if self.problems:
            raise ConfigError(self.source, tuple(self.problems))


def shown(value: object) -> str:
    """Return a value as an error message may quote it: short, on one line, ASCII."""
    try:
        text = json.dumps(value, default=str)
    except RecursionError:
        # What could just be read may be too deep to be written from further inside.
        return "something deeply nested"
    return text if len(text) <= 60 else text[:57] + "..."


class Table:
    """One JSON object at a path of the file."""

    def __init__(self, values: Mapping[str, object], path: str, report: Report) -> None:
        self._values = values
        self._path = path
        self._known: list[str] = []
        self.report = report

    def at(self, name: str) -> str:
        """Return the full path of a field."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Return whether the file sets a field (null counts as not set)."""
        return self._values.get(name) is not None

    def is_text(self, name: str) -> bool:
        """Return whether a field of several types is given as a string."""
        return isinstance(self._values.get(name), str)

    def problem(self, name: str, text: str, remedy: str) -> None:
        self.report.problem(self.at(name), text, remedy)

    def warn(self, name: str, text: str, remedy: str) -> None:
        self.report.warn(self.at(name), text, remedy)

    def _get(self, name: str, kind: type[T], remedy: str, *, secret: bool = False) -> T | None:
        self._known.append(name)
        value = self._values.get(name)
        if value is None:
            return None
        if type(value) is not kind:
            quoted = "" if secret else f" {shown(value)}"
            found = KINDS.get(type(value), "something else")
            self.problem(name, f"is {found}{quoted}, not {KINDS[kind]}", remedy)
            return None
        return value

    def text(self, name: str, default: str = "", *, secret: bool = False) -> str:
        """Return a string without control characters."""
        value = self._get(name, str, f"Write {name} in double quotes.", secret=secret)
        if value is None:
            return default
        return default if self._bad_text(name, value) else value

    def _bad_text(self, name: str, value: str) -> bool:
        if len(value) > MAX_TEXT:
            self.problem(name, f"is longer than {MAX_TEXT} characters", "Shorten it.")
            return True
        if not value.isprintable():
            self.problem(name, "contains a control character", "Remove it.")
            return True
        return False

    def boolean(self, name: str, default: bool) -> bool:
        value = self._get(name, bool, "Write true or false, without quotes.")
        return default if value is None else value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        remedy = f"Write a whole number from {low} to {high}, without quotes."
        value = self._get(name, int, remedy)
        if value is None:
            return default
        if not low <= value <= high:
            self.problem(name, f"is {shown(value)}, outside {low} to {high}", remedy)
            return default
        return value

    def choice(self, name: str, default: Choice, choices: tuple[Choice, ...]) -> Choice:
        value = self.text(name, default)
        if value not in choices:
            self.problem(name, f"is {shown(value)}", f"Choose one of: {', '.join(choices)}.")
            return default
        return value

    def items(self, name: str) -> Iterator[tuple[str, object]]:
        """Yield (name with index, value) of a list."""
        values = self._get(name, list, "Write a list in square brackets.") or []
        if len(values) > MAX_LIST:
            self.problem(name, f"has {len(values)} entries", f"At most {MAX_LIST} are possible.")
            return
        for index, value in enumerate(values):
            yield f"{name}[{index}]", value

    def texts(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield (name with index, string) of a list of strings."""
        for at, value in self.items(name):
            if not isinstance(value, str):
                found = KINDS.get(type(value), "something else")
                self.problem(at, f"is {found} {shown(value)}, not text", "Put it in double quotes.")
            elif not self._bad_text(at, value):
                yield at, value

    def table(self, name: str) -> Table:
        """Return a table; an empty one when it is absent."""
        values = self._get(name, dict, 'Write a table like {"field": value}.') or {}
        return Table(values, self.at(name), self.report)

    def tables(self, name: str) -> Iterator[Table]:
        """Yield each table of a list of tables."""
        for at, value in self.items(name):
            if isinstance(value, dict):
                yield Table(value, self.at(at), self.report)
            else:
                found = KINDS.get(type(value), "something else")
                remedy = 'Write a table like {"field": value}.'
                self.problem(at, f"is {found}, not a table", remedy)

    def fields(self) -> Iterator[str]:
        """Yield every field name; for tables whose keys are data, such as domains."""
        self._known.extend(self._values)
        yield from self._values

    def finish(self) -> None:
        """Warn about fields that nobody asked for."""
        for name in self._values:
            if name not in self._known:
                near = nearest(name, self._known)
                remedy = f"Did you mean {shown(near)}?" if near else "Remove it, it has no effect."
                self.report.warn(
                    self.at(name) if name.isprintable() else self.at(shown(name)),
                    "is not a field that this version knows, and is ignored",
                    remedy,
                )


def nearest(name: str, known: list[str]) -> str:
    """Return the known name that `name` most likely meant, or ""."""
    import difflib

    plain = {k.replace("_", ""): k for k in known}
    wanted = name.lower().replace("_", "").replace("-", "")[:64]
    found = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.7)
    return plain[found[0]] if found else ""
