"""How the two AEAD benchmarks print their goals and keep what they measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Key = tuple[str, str, int, int]
"""Who, seal or open, packets in a call, bytes."""
KEYS = ("contender", "operation", "packets", "bytes")


@dataclass(frozen=True)
class Row:
    """One goal: what was asked, what came out."""

    goal: str
    value: float
    wanted: float
    reached: bool


def conclude(
    rows: Sequence[Row], unit: str, measured: Mapping[Key, float], path: str | None
) -> None:
    """Print the goals; write all of it to `path` as JSON, too, if there is one."""
    for row in rows:
        mark = "reached" if row.reached else "MISSED "
        print(f"{mark} {row.value:>6.2f} (goal {row.wanted})  {row.goal}")
    if path:
        series = [
            {**dict(zip(KEYS, key, strict=True)), unit: round(value, 1)}
            for key, value in measured.items()
        ]
        result = {"measured": series, "goals": [asdict(row) for row in rows]}
        Path(path).write_text(json.dumps(result, indent=1) + "\n")
