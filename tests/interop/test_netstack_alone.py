"""The stack without a tunnel that bench-netstack measures: bytes arrive, and it is measured."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from tests.bench import netstack, netstack_peers, report
from tests.bench.netstack_peers import ALONE, OFFLOADS, PASTA, SLIRP, WITHOUT_TUNNEL, Stack
from tests.support.engine_pair import wait_until
from tests.support.netns import available, pair

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not available(), reason="needs root, /dev/net/tun and ip"),
]

SIZE = 20_000_000
# Sends a stream to an echo, reads it back meanwhile, and says what came.
ECHO = """
import hashlib, json, random, socket, sys, threading
host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = random.Random(1).randbytes(size)
with socket.create_connection((host, port), 20) as connection:
    def send():
        connection.sendall(b"E" + data)
        connection.shutdown(socket.SHUT_WR)
    sender = threading.Thread(target=send)
    sender.start()
    got = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    sender.join()
print(json.dumps({"size": len(got), "same": got == data}))
"""


@pytest.mark.parametrize("stack", WITHOUT_TUNNEL, ids=lambda stack: stack.name)
def test_bytes_go_through_and_come_back(stack: Stack) -> None:
    listen = ("serve", "127.0.0.1", str(netstack_peers.SERVER_PORT))
    with pair("alone") as (_, left, right), stack.started(left, right) as ends:
        with netstack.client(right, *listen) as server:
            netstack.line_of(server)
            words = (sys.executable, "-c", ECHO, ends.host, str(ends.port), str(SIZE))
            found = json.loads(left.run(*words))
        seen = left.run("ip", "-s", "-json", "link", "show", "dev", netstack_peers.DEVICE)
    assert found == {"size": SIZE, "same": True}
    # They went through the device, and without offloads in packets of its MTU.
    counted = json.loads(seen)[0]["stats64"]
    for way in ("rx", "tx"):
        assert counted[way]["bytes"] > SIZE
        if stack.name == ALONE:
            assert counted[way]["packets"] > SIZE / netstack_peers.MTU


def test_it_ends_with_its_device() -> None:
    with pair("alone") as (_, left, right), netstack_peers.alone(left, right) as ends:
        left.run("ip", "link", "del", netstack_peers.DEVICE)
        stat = Path(f"/proc/{ends.near.pid}/stat")
        # Nobody has waited for it yet.
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_short_round_has_all_figures() -> None:
    options = argparse.Namespace(connections=20, seconds=0.5)
    rounds: report.Rounds = {}
    for stack in WITHOUT_TUNNEL:
        found = netstack.measure(stack, options)
        assert set(found) == {measure.key for measure in netstack.MEASURES}
        for side in ("rx", "tx"):
            whole = found[f"{side}_s_per_gb"]
            assert whole > 0
            assert found[f"{side}_mb_per_cpu_s"] == pytest.approx(1000 / whole)
            # Counted in ticks, of which a busy machine leaves few.
            assert found[f"{side}_kernel_s_per_gb"] >= 0
        rounds[stack.name] = {key: [value] for key, value in found.items()}
    # A peer with the very same figures is not beaten; the stack with offloads may beat it.
    rounds |= {PASTA: rounds[ALONE], SLIRP: rounds[ALONE]}
    lines = netstack.all_verdicts(rounds)
    first, second = lines.index(f"{ALONE}:"), lines.index(f"{OFFLOADS}:")
    assert sum(line.startswith("NOT reached: ") for line in lines[first:second]) == 4
    assert sum("reached: " in line for line in lines[second:]) == 4
    assert [line for line in lines if line.startswith("information: ")] == [
        netstack.kernel_bounds(rounds)
    ]
