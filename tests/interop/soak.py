"""Ten minutes of traffic through five sessions: memory stays flat, sessions follow each other.

`make soak`; WANTASTIC_SOAK_S sets another length, a day is a good one before a release.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import pytest

from tests.support import netns, peers

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not netns.available(), reason="needs root, ip and /dev/net/tun"),
]

SECONDS = int(os.environ.get("WANTASTIC_SOAK_S", "600"))
WARM_UP_S = 60
FLAT_KIB = 512
# A machine that compiles beside it may keep a process waiting now and then.
LOST_PERCENT = 0.1
REKEY_AFTER_S = 120


def test_memory_is_flat_under_lasting_traffic() -> None:
    with netns.pair("soak") as (_, left, right):
        a, b = peers.tunnel(peers.ours(), peers.ours(), (left, right))
        left.run("ping", "-q", "-c", "3", "-i", "0.1", "-W", "5", "10.9.0.2")
        right.start("iperf3", "-s", "-B", "10.9.0.2")
        time.sleep(0.5)
        stream = left.start(
            *("iperf3", "-c", "10.9.0.2", "-C", "cubic", "-b", "40M", "-J", "--bidir"),
            *("-t", str(SECONDS)),
            stdout=subprocess.PIPE,
        )
        pings = left.start(
            *("ping", "-q", "-i", "0.1", "-c", str(SECONDS * 10 - 50), "10.9.0.2"),
            stdout=subprocess.PIPE,
        )
        start, rss, handshakes = time.monotonic(), [], set()
        while time.monotonic() - start < SECONDS - 5:
            time.sleep(2)
            if time.monotonic() - start > min(WARM_UP_S, SECONDS / 4):
                rss.append((a.anonymous_kib(), b.anonymous_kib()))
            handshakes.add(a.wg("show", a.interface, "latest-handshakes").split()[1])
        out, _ = stream.communicate(timeout=60)
        ping_out, _ = pings.communicate(timeout=60)
        result = json.loads(out)
        assert "error" not in result, result["error"]
        moved = result["end"]["sum_received"]["bytes"]
        assert moved > 40e6 / 8 * SECONDS * 0.9
        lost = re.search(rb"([\d.]+)% packet loss", ping_out)
        assert lost, ping_out.decode()
        assert float(lost[1]) <= LOST_PERCENT, ping_out.decode()
        assert len(handshakes) >= SECONDS // (REKEY_AFTER_S + 10)
        for side in (0, 1):
            sizes = [pair[side] for pair in rss]
            assert max(sizes) - sizes[0] <= FLAT_KIB, sizes
