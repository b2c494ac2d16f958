"""`wantasticd demo`, two devices in one process: it works, and it ends cleanly."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time

import pytest

from tests.support.agent import PROGRAM
from tests.support.peers import ROOT

ENVIRON = os.environ | {"PYTHONPATH": str(ROOT)}


def test_traffic_goes_both_ways() -> None:
    done = subprocess.run(
        [*PROGRAM, "demo", "--seconds", "1.5", "--json"],
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    states = [json.loads(line) for line in done.stdout.splitlines()]
    last = states[-1]
    assert last["pongs"] >= last["pings"] - 1 > 0
    assert last["udp_returned"] > 0.9 * last["udp_sent"] > 0
    assert last["pages"] >= 2
    assert last["page_bytes"] == 256 * 1024
    left, right = last["nodes"]
    assert min(left["rx_bytes"], right["tx_bytes"]) > 100_000
    assert 0 < left["handshake_ms"] < 1000


def test_plain_lines_where_there_is_no_terminal() -> None:
    done = subprocess.run(
        [*PROGRAM, "demo", "--seconds=1.2"],
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "ping" in done.stdout
    assert "handshake in" in done.stdout
    assert "SOCKS5 pages" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal_gets_a_table_and_a_signal_ends_it(number: signal.Signals) -> None:
    main, side = pty.openpty()
    process = subprocess.Popen([*PROGRAM, "demo"], env=ENVIRON, stdout=side, stderr=side)
    os.close(side)
    text, deadline = b"", time.monotonic() + 20
    while b"Ctrl-C ends it" not in text and time.monotonic() < deadline:
        text += os.read(main, 65536)
    process.send_signal(number)
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        text += piece
    assert process.wait(10) == 0
    os.close(main)
    shown = text.decode()
    assert "10.77.0.1" in shown
    assert "Traceback" not in shown
    assert all(len(line) <= 81 for line in shown.replace("\x1b[H\x1b[J", "").splitlines())


@pytest.mark.parametrize("flags", [["--seconds"], ["--seconds", "x"], ["--seconds=-1"], ["--x"]])
def test_wrong_flags(flags: list[str]) -> None:
    done = subprocess.run(
        [*PROGRAM, "demo", *flags], env=ENVIRON, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "demo:" in done.stderr
