"""Sending into a socket that takes nothing: the C library's calls are replaced."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATAGRAMS = 2 * 32 * 20


def test_a_full_buffer_is_waited_for_once_a_call(tmp_path: Path) -> None:
    program = tmp_path / "full"
    sources = ["tests/native/host_full_buffer.c", "cext/host/udp.c", "cext/host/udp_message.c"]
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "cext")]
    command = ["cc", *flags, "-o", str(program), *(str(ROOT / source) for source in sources)]
    subprocess.run(command, check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in output.splitlines()]
    assert [line[0] for line in lines] == ["all", "mmsg", "none"]
    for _, waits, lost in lines:
        assert int(waits) == 8, "four in each of two calls, for the first datagram"
        assert int(lost) == DATAGRAMS
