"""Linux's TCP against the netstack over a TUN device: both roles, v4 and v6, over bad paths.

The rows without the mark `slow` are those of every run; together with them they carry more
than a gigabyte, every byte of it compared.
"""

from __future__ import annotations

import json
import sys
from typing import Any

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

# As a radio link, a long line and a short queue make them; every packet's fate by the seed.
RADIO = {"delay_ms": 10, "loss": 0.01, "reorder": 0.02, "duplicate": 0.01}
LONG = {"delay_ms": 60, "reorder": 0.01, "late_ms": 20}
NARROW = {"delay_ms": 15, "rate_bytes_s": 3e6, "queue_bytes": 30_000}
POOR = {"delay_ms": 20, "loss": 0.05, "reorder": 0.05, "duplicate": 0.05, "rate_bytes_s": 1e6}

Row = tuple[str, int, int, int, dict[str, Any]]
# Who listens, IP version, streams, bytes each way of each stream, and what is special.
ROWS: list[Row] = [
    ("netstack", 4, 1, 20_000_000, {}),
    ("netstack", 6, 1, 20_000_000, {}),
    ("linux", 4, 1, 20_000_000, {}),
    ("linux", 6, 1, 20_000_000, {}),
    ("netstack", 4, 1, 4_000_000, {"nft": True}),
    ("linux", 6, 1, 4_000_000, {"nft": True}),
    ("netstack", 6, 50, 200_000, {}),
    ("linux", 4, 50, 200_000, {"nft": True}),
    # Linux does not read for a while: zero window, and probes of it.
    ("netstack", 4, 1, 8_000_000, {"pause_s": 1.5}),
    ("linux", 6, 1, 8_000_000, {"pause_s": 1.5}),
    ("netstack", 4, 4, 1_000_000, {"path": RADIO, "seed": 1}),
    ("linux", 6, 4, 1_000_000, {"path": RADIO, "seed": 3}),
    ("netstack", 6, 4, 1_000_000, {"path": LONG, "seed": 5}),
    ("linux", 4, 4, 1_000_000, {"path": LONG, "seed": 7}),
    ("netstack", 4, 2, 2_000_000, {"path": NARROW, "seed": 9}),
    ("linux", 6, 2, 2_000_000, {"path": NARROW, "seed": 11}),
    ("netstack", 6, 3, 200_000, {"path": POOR, "seed": 13}),
    ("linux", 4, 3, 200_000, {"path": POOR, "seed": 15}),
    ("netstack", 4, 2, 500_000, {"urgent": True}),
    ("linux", 6, 2, 500_000, {"urgent": True, "path": RADIO, "seed": 17}),
]
LONG_ROWS: list[Row] = [
    ("netstack", 4, 2, 100_000_000, {}),
    ("linux", 6, 2, 100_000_000, {}),
    ("netstack", 6, 4, 20_000_000, {"nft": True}),
    ("linux", 4, 4, 20_000_000, {"nft": True}),
    ("netstack", 6, 4, 5_000_000, {"path": RADIO, "seed": 21}),
    ("linux", 4, 4, 10_000_000, {"path": LONG, "seed": 23}),
    ("netstack", 4, 4, 4_000_000, {"path": NARROW, "seed": 25}),
    ("linux", 6, 4, 1_000_000, {"path": POOR, "seed": 27}),
]


def join(**options: Any) -> dict[str, Any]:
    """Run the driver in a namespace of its own; return what it found."""
    loss = options.pop("nft", False)
    with Lab("netstack") as lab:
        space = lab.namespace("a")
        if loss:
            space.run("nft", LOSS)
        driver = (sys.executable, "-m", "tests.support.netstack_tun", json.dumps(options))
        out: dict[str, Any] = json.loads(space.run(*driver, timeout=300))
    return out


def check(
    listener: str, version: int, streams: int, size: int, more: dict[str, Any]
) -> dict[str, Any]:
    out = join(listener=listener, version=version, streams=streams, size=size, **more)
    total = more.get("total", streams)
    assert out["right"] == total, out
    assert (out["received"], out["mismatches"]) == (total * size, 0)
    assert (out["finished"], out["failed"], out["broken"]) == (total, 0, 0)
    # Every slot, block and timer went back.
    assert out["left"] == {}
    return out


@pytest.mark.parametrize(
    ("listener", "version", "streams", "size", "more"),
    [*ROWS, *(pytest.param(*row, marks=pytest.mark.slow) for row in LONG_ROWS)],
)
def test_streams_are_byte_exact_both_ways(
    listener: str, version: int, streams: int, size: int, more: dict[str, Any]
) -> None:
    out = check(listener, version, streams, size, more)
    path = more.get("path", {})
    if more.get("nft") or path.get("loss") or path.get("rate_bytes_s"):
        assert out["retransmits"] > 0
    if path.get("loss") or path.get("rate_bytes_s"):
        assert out["lost"] > 0
    if path.get("reorder"):
        assert out["late"] > 0
    if path.get("duplicate"):
        assert out["doubled"] > 0
    if more.get("pause_s"):
        assert out["window_probes"] > 0


def test_the_rows_carry_a_gigabyte() -> None:
    assert sum(2 * streams * size for _, _, streams, size, _ in (*ROWS, *LONG_ROWS)) >= 1e9


# Linux closes when the netstack's FIN is half way, 150 ms from either. As listener the
# netstack sends all at once when it is connected, half a round trip after Linux. When it
# dials, it needs three windows from one round trip on; Linux, connected half a round trip
# later, has sent all long before it closes.
CROSSING_MS = 150
CROSSING: dict[str, tuple[int, dict[str, Any]]] = {
    "netstack": (5_000, {"hold_s": 1.5 * CROSSING_MS / 1000}),
    "linux": (45_000, {"hold_s": 3 * CROSSING_MS / 1000, "initcwnd": 20}),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("listener", CROSSING)
def test_both_close_at_the_same_time(listener: str, version: int) -> None:
    size, times = CROSSING[listener]
    crossed = 0
    # A busy machine is late for some, and perhaps for most of one round.
    for _ in range(20):
        out = check(listener, version, 20, size, {"path": {"delay_ms": CROSSING_MS}, **times})
        crossed += out["crossed"]
        if crossed >= 10:
            return
    pytest.fail(f"only {crossed} of 400 pairs closed at the same time")


@pytest.mark.slow
@pytest.mark.parametrize(("listener", "version"), [("netstack", 4), ("linux", 6)])
def test_ten_thousand_connections_leave_nothing_behind(listener: str, version: int) -> None:
    out = check(listener, version, 32, 2_000, {"total": 10_000})
    # From the 2,000th to the last one: some 300 bytes of each would be seen. Pools are resident up
    # to the most that was in use at once, which may still rise a little.
    assert out["grown_bytes"] < 1 << 21
