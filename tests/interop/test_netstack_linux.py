"""Linux's TCP against the netstack over a TUN device: both roles, v4 and v6, loss, pauses."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.netns import Lab, available

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not available(), reason="needs root, /dev/net/tun and ip"),
]

LOSS = """
table inet loss {
    chain out { type filter hook output priority 0; oifname "ns0" numgen random mod 100 == 0 drop; }
    chain in { type filter hook input priority 0; iifname "ns0" numgen random mod 100 == 0 drop; }
}
"""

# Who listens, IP version, streams, bytes each way of each stream, Linux's pause, loss of 1 %.
ROWS = [
    ("netstack", 4, 1, 20_000_000, 0.0, False),
    ("netstack", 6, 1, 20_000_000, 0.0, False),
    ("linux", 4, 1, 20_000_000, 0.0, False),
    ("linux", 6, 1, 20_000_000, 0.0, False),
    ("netstack", 4, 1, 4_000_000, 0.0, True),
    ("linux", 6, 1, 4_000_000, 0.0, True),
    ("netstack", 6, 50, 200_000, 0.0, False),
    ("linux", 4, 50, 200_000, 0.0, True),
    ("netstack", 4, 1, 8_000_000, 1.5, False),
    ("linux", 6, 1, 8_000_000, 1.5, False),
]


@pytest.mark.parametrize(("listener", "version", "streams", "size", "pause_s", "loss"), ROWS)
def test_streams_are_byte_exact_both_ways(
    listener: str, version: int, streams: int, size: int, pause_s: float, loss: bool
) -> None:
    with Lab("netstack") as lab:
        space = lab.namespace("a")
        if loss:
            space.run("nft", LOSS)
        numbers = [str(x) for x in (version, streams, size, pause_s)]
        driver = ("-m", "tests.support.netstack_tun", listener)
        out = json.loads(space.run(sys.executable, *driver, *numbers))
    assert out["right"] == streams
    assert (out["received"], out["mismatches"]) == (streams * size, 0)
    assert (out["finished"], out["failed"], out["broken"]) == (streams, 0, 0)
    if loss:
        assert out["retransmits"] > 0
    if pause_s:
        assert out["window_probes"] > 0
