"""What is wrong with a configuration, said so that a reader can mend it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `path` is the field, as in `server.port` or `peers[2].endpoint`."""

    path: str
    text: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.text}. {self.remedy}"


class ConfigError(Exception):
    """The configuration cannot be used; holds every problem that was found."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))
