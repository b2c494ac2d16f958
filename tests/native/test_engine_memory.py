"""Letting go of the program's own pages: memory shrinks, and everything still runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cext.engine.memory import keep_memory, release_program


def file_pages_kb() -> int:
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("RssFile"))


def test_released_pages_are_gone_and_come_back() -> None:
    before = file_pages_kb()
    assert release_program() > 1_000_000
    # An emulator's own memory would be shown, and it unmaps nothing.
    assert "WANTASTIC_EMULATED" in os.environ or file_pages_kb() < before - 1_000
    assert json.loads(json.dumps({"a": [1.5, None]})) == {"a": [1.5, None]}


def test_nothing_is_lost_when_it_is_done_again_and_again() -> None:
    written = bytearray(range(256)) * 64
    for _ in range(3):
        release_program()
    assert written == bytearray(range(256)) * 64


def test_a_process_that_keeps_its_memory_leaves_no_core() -> None:
    """In a child: it cannot be taken back. The answer is what the kernel says afterwards."""
    child = os.fork()
    if child == 0:
        os._exit(0 if keep_memory() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
