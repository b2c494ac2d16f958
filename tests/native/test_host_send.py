"""The outer sockets where the kernel refuses: the C library's calls are replaced."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATAGRAMS = 2 * 32 * 20


def run(source: str, folder: Path) -> list[list[str]]:
    """Compile a program with the UDP port and return the words of its lines."""
    program = folder / "program"
    sources = [f"tests/native/{source}", "cext/host/udp.c", "cext/host/udp_message.c"]
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "cext")]
    command = ["cc", *flags, "-o", str(program), *(str(ROOT / source) for source in sources)]
    subprocess.run(command, check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [line.split() for line in output.splitlines()]


def test_a_full_buffer_is_waited_for_once_a_call(tmp_path: Path) -> None:
    lines = run("host_full_buffer.c", tmp_path)
    assert [line[0] for line in lines] == ["all", "mmsg", "none"]
    for _, waits, lost in lines:
        assert int(waits) == 8, "four in each of two calls, for the first datagram"
        assert int(lost) == DATAGRAMS


def test_an_option_that_one_socket_refuses_is_taken_back_from_the_other(tmp_path: Path) -> None:
    assert run("host_socket_options.c", tmp_path) == [
        ["0", "7/7/7", "eth0/eth0/eth0"],
        ["-1", "7/7/7", "eth0/eth0/eth0"],
        ["-1", "7/7/7", "eth0/eth0/eth0"],
        ["0", "7/7/7", "//"],
    ]
