"""Keeps libraries that define the same names apart in one static program.

Two upbs, three Poly1305s: in shared libraries each would be private. Here every global symbol of
one party gets a prefix, by a header of #defines that is included before anything else and made from
what a first compilation defines. Structure members of the same name change with it, consistently.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from buildroot.static.cache import BuildError


def defined(objects: Sequence[Path]) -> set[str]:
    """Return the global symbols that `objects` define."""
    listing = subprocess.run(
        ["nm", "-g", "--defined-only", *objects], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split() for line in listing.splitlines())
    names = {row[2] for row in rows if len(row) == 3}
    if not names:
        raise BuildError(f"nm found no symbol in {objects[:1]}")
    return names


def prefix_header(names: Collection[str], prefix: str) -> str:
    """Return #defines that prefix every name."""
    return "".join(f"#define {name} {prefix}{name}\n" for name in sorted(names))
