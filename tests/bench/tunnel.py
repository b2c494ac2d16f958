"""TUN mode against the peers: `make bench-tunnel` (root, network namespaces).

Both ends of a tunnel run the same implementation, in two namespaces joined by veth,
MTU 1420; rounds are interleaved and daemons start anew in each. CPU seconds are what
all threads of the daemon ran (/proc/PID/task/*/schedstat), so they hold on a shared
machine where throughput does not.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench import report
from tests.bench.report import Goal, Measure, PeakRss
from tests.support import peers
from tests.support.netns import Namespace, pair
from tests.support.peers import Implementation, Node

UDP_PACKETS_PER_S = 20_000
SERVER = "10.9.0.2"

MEASURES = (
    Measure("tcp1_gbps", "TCP ×1 Gbit/s", "{:.2f}", lower_is_better=False),
    Measure("tcp4_gbps", "TCP ×4 Gbit/s", "{:.2f}", lower_is_better=False),
    Measure("tx_s_per_gb", "CPU s/GB tx", "{:.2f}"),
    Measure("rx_s_per_gb", "CPU s/GB rx", "{:.2f}"),
    Measure("cpu_s_per_gb", "CPU s/GB both", "{:.2f}"),
    Measure("udp_tx_us", "UDP 64 B µs tx", "{:.2f}"),
    Measure("udp_rx_us", "UDP 64 B µs rx", "{:.2f}"),
    Measure("udp_us", "UDP 64 B µs both", "{:.2f}"),
    Measure("udp_loss_percent", "UDP loss %", "{:.2f}"),
    Measure("ping_ms", "ping ms", "{:.3f}"),
    Measure("handshake_ms", "handshake ms", "{:.2f}"),
    Measure("start_s", "start-up s", "{:.3f}"),
    Measure("rss_idle_mib", "RSS idle MiB", "{:.1f}"),
    Measure("rss_load_mib", "RSS load MiB", "{:.1f}"),
    Measure("rss_growth_mib", "growth MiB", "{:.2f}"),
)
NEWEST, DEBIAN, BORINGTUN = "wireguard-go 2026", "wireguard-go 2022", "boringtun 0.7.1"
GOALS = (
    Goal("cpu_s_per_gb", NEWEST, 1 / 2.8),
    Goal("tcp1_gbps", NEWEST, 1 / 2.2),
    Goal("cpu_s_per_gb", BORINGTUN, 1 / 6),
    Goal("udp_us", NEWEST, 1 / 4),
    Goal("udp_us", BORINGTUN, 1 / 1.8),
    Goal("ping_ms", NEWEST, 0.6),
    Goal("handshake_ms", NEWEST, 0.6),
)


@contextmanager
def iperf_server(space: Namespace) -> Iterator[None]:
    """An iperf3 server on the far inner address, one client at a time."""
    process = space.start("iperf3", "-s", "-B", SERVER)
    time.sleep(0.3)
    try:
        yield
    finally:
        space.stop(process)


def tcp(a: Node, b: Node, streams: int, seconds: float) -> dict[str, float]:
    """Return throughput and both daemons' CPU seconds per GB of payload."""
    before = a.cpu_s(), b.cpu_s()
    out = a.space.run(
        *("iperf3", "-c", SERVER, "-C", "cubic", "-P", str(streams)),
        *("-t", str(seconds), "-J"),
        timeout=seconds + 30,
    )
    received = json.loads(out)["end"]["sum_received"]
    gigabytes = received["bytes"] / 1e9
    tx, rx = a.cpu_s() - before[0], b.cpu_s() - before[1]
    return {
        "gbps": received["bits_per_second"] / 1e9,
        "tx": tx / gigabytes,
        "rx": rx / gigabytes,
    }


def udp(a: Node, b: Node, seconds: float) -> dict[str, float]:
    """Return CPU microseconds per 64-byte packet at a fixed rate, and the loss."""
    before = a.cpu_s(), b.cpu_s()
    out = a.space.run(
        *("iperf3", "-c", SERVER, "-u", "-l", "64", "-t", str(seconds), "-J"),
        *("-b", str(UDP_PACKETS_PER_S * 64 * 8)),
        timeout=seconds + 30,
    )
    total = json.loads(out)["end"]["sum"]
    packets = max(1, total["packets"])
    tx, rx = a.cpu_s() - before[0], b.cpu_s() - before[1]
    return {
        "udp_tx_us": tx / packets * 1e6,
        "udp_rx_us": rx / packets * 1e6,
        "udp_us": (tx + rx) / packets * 1e6,
        "udp_loss_percent": total["lost_percent"],
    }


def ping_ms(a: Node, count: int) -> float:
    """Return the mean round trip inside the tunnel."""
    out = a.space.run("ping", "-q", "-c", str(count), "-i", "0.002", SERVER, timeout=60)
    found = re.search(r"= [\d.]+/([\d.]+)/", out)
    if not found:
        raise RuntimeError(f"no round trips: {out}")
    return float(found.group(1))


def handshake_ms(a: Node, b: Node, ping: float, count: int) -> float:
    """Return the median of what a first packet waits longer than a later one."""
    waits = []
    for _ in range(count):
        a.wg("set", a.interface, "peer", b.public_key, "remove")
        time.sleep(0.03)  # the responder takes one initiation per 20 ms from a peer
        a.add_peer(b, "10.9.0.2/32,fd09::2/128", "192.168.77.2:51820")
        out = a.space.run("ping", "-q", "-c", "1", "-W", "3", SERVER)
        found = re.search(r"= ([\d.]+)/", out)
        if found:
            waits.append(float(found.group(1)) - ping)
    return report.median(waits)


def measure(implementation: Implementation, options: argparse.Namespace) -> dict[str, float]:
    """Measure one implementation once, from start to end."""
    with pair("bench") as (_, left, right):
        a, b = peers.tunnel(implementation, implementation, (left, right))
        try:
            left.run("ping", "-q", "-c", "2", "-W", "5", SERVER)
            time.sleep(0.5)
            result = {
                "start_s": a.started_after_s,
                "rss_idle_mib": max(a.rss_kib(), b.rss_kib()) / 1024,
                "ping_ms": ping_ms(a, options.pings),
            }
            with iperf_server(right), PeakRss(a, b) as peak:
                one = tcp(a, b, 1, options.seconds)
                four = tcp(a, b, 4, options.seconds)
                result |= udp(a, b, options.seconds)
            result |= {
                "tcp1_gbps": one["gbps"],
                "tcp4_gbps": four["gbps"],
                "tx_s_per_gb": one["tx"],
                "rx_s_per_gb": one["rx"],
                "cpu_s_per_gb": one["tx"] + one["rx"],
                "rss_load_mib": peak.mib,
                "rss_growth_mib": peak.mib - result["rss_idle_mib"],
                "handshake_ms": handshake_ms(a, b, result["ping_ms"], options.handshakes),
            }
            return result
        finally:
            a.stop()
            b.stop()


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of each iperf3 run")
    parser.add_argument("--pings", type=int, default=500)
    parser.add_argument("--handshakes", type=int, default=9)
    options = parser.parse_args()
    chosen = report.choose(options.only)
    rounds = report.interleave(
        list(chosen),
        options.rounds,
        lambda name: measure(chosen[name], options),
    )
    if options.json:
        print(json.dumps(rounds))
        return 0
    lines = [report.table(rounds, MEASURES), ""]
    if "wantasticd" in rounds:
        lines += report.verdicts(rounds, MEASURES, GOALS, "wantasticd")
        growth = report.median(rounds["wantasticd"]["rss_growth_mib"])
        word = "reached" if growth <= 2 else "NOT reached"
        lines.append(f"{word}: RSS growth under load {growth:.2f} MiB (goal 2)")
    text = "\n".join(lines)
    print(text)
    if options.keep:
        title = f"Tunnel over TUN, medians of {options.rounds} interleaved rounds"
        report.keep("tunnel", title, text, rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
