"""Where the test vectors by others lie; they are read in place, never copied."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("WANTASTIC_VECTORS", ROOT.parent / "shared" / "vectors"))


def path(name: str) -> Path:
    """Return the path of one vector file; skip the calling test where it is absent."""
    file = FOLDER / name
    if not file.exists():
        pytest.skip(f"test vectors {name} are not beside this checkout")
    return file


def load(name: str) -> Any:
    """Return one JSON vector file, parsed."""
    return json.loads(path(name).read_text())
