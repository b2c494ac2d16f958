"""Handshake floods against us and the peers: `make bench-flood` (root, namespaces).

A gateway, a client with a running tunnel that pings every 10 ms, and a flooder, each in
a namespace of its own. First initiations with a bad MAC1 from one source, then with a
valid MAC1 from spoofed sources; during the second a new client makes its first handshake.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

from tests.bench import report
from tests.bench.report import Measure
from tests.support import peers
from tests.support.netns import Lab, Namespace
from tests.support.peers import Implementation, Node

GATEWAY, FLOODER_SIDE = "192.168.77.2", "192.168.78.2"
BAD_MAC1_PER_S, VALID_MAC1_PER_S = 20_000, 10_000
COOKIE_REPLY_UDP_BYTES, RESPONSE_UDP_BYTES = 8 + 64, 8 + 92

MEASURES = (
    Measure("bad_loss_percent", "ping loss %, bad MAC1", "{:.2f}"),
    Measure("bad_cpu_us", "µs per bad packet", "{:.2f}"),
    Measure("valid_loss_percent", "ping loss %, valid MAC1", "{:.2f}"),
    Measure("valid_cpu_us", "µs per valid packet", "{:.2f}"),
    Measure("cookie_percent", "cookies %", "{:.2f}", lower_is_better=False),
    Measure("new_handshake_s", "new handshake s", "{:.2f}"),
    Measure("rss_growth_mib", "RSS growth MiB", "{:.2f}"),
)
LIMITS = (
    ("bad_loss_percent", "at most", 0.5),
    ("valid_loss_percent", "at most", 1.0),
    ("cookie_percent", "at least", 99.0),
    ("new_handshake_s", "at most", 6.0),
    ("rss_growth_mib", "at most", 8.0),
)


def loss_percent(out: str) -> float:
    found = re.search(r"([\d.]+)% packet loss", out)
    if not found:
        raise RuntimeError(f"ping said: {out}")
    return float(found.group(1))


def count_replies(flooder: Namespace) -> None:
    """Count cookie replies and responses that reach the flooder, by length."""
    rules = f"""
        table ip count {{
            counter cookies {{}}
            counter responses {{}}
            chain in {{
                type filter hook prerouting priority 0;
                udp length {COOKIE_REPLY_UDP_BYTES} counter name cookies drop
                udp length {RESPONSE_UDP_BYTES} counter name responses drop
            }}
        }}"""
    flooder.run("nft", rules)


def replies(flooder: Namespace, name: str) -> int:
    found = re.search(r"packets (\d+)", flooder.run("nft", "list", "counter", "ip", "count", name))
    return int(found.group(1)) if found else 0


def flood(
    flooder: Namespace, client: Namespace, gateway: Node, kind: str, rate: int, seconds: float
) -> tuple[int, float, float]:
    """Flood while the client pings; return (sent, ping loss %, gateway CPU seconds)."""
    tool = (sys.executable, "-m", "tests.support.flooder")
    before = gateway.cpu_s()
    running = flooder.start(
        *(*tool, kind, GATEWAY, "51820", gateway.public_key, str(rate), str(seconds)),
        stdout=subprocess.PIPE,
    )
    time.sleep(0.5)
    count = int((seconds - 1) * 100)
    out = client.run(
        *("ping", "-q", "-i", "0.01", "-c", str(count), "-W", "1", "10.9.0.2"), check=False
    )
    assert running.stdout is not None
    sent = int(running.stdout.readline() or 0)
    running.wait()
    return sent, loss_percent(out), gateway.cpu_s() - before


def measure(implementation: Implementation, seconds: float) -> dict[str, float]:
    """Run both floods against one implementation, started anew."""
    with Lab("flood") as lab:
        client, gateway, flooder = (lab.namespace(n) for n in "cgf")
        lab.join(client, gateway, [("192.168.77.1/24", f"{GATEWAY}/24")], ("eth0", "eth0"))
        lab.join(flooder, gateway, [("192.168.78.1/24", f"{FLOODER_SIDE}/24")], ("eth0", "eth1"))
        gateway.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
        gateway.run("sysctl", "-qw", "net.ipv4.conf.eth1.rp_filter=0")
        gateway.run("ip", "route", "add", "100.64.0.0/10", "via", "192.168.78.1")
        flooder.run("ip", "route", "add", f"{GATEWAY}/32", "via", FLOODER_SIDE)
        count_replies(flooder)
        a, b = peers.tunnel(implementation, implementation, (client, gateway))
        late = peers.start(implementation, client, f"{a.interface}n", ("10.9.0.3/32",), port=51821)
        try:
            client.run("ping", "-q", "-c", "3", "-i", "0.1", "-W", "5", "10.9.0.2")
            idle = b.rss_kib()
            bad_sent, bad_loss, bad_cpu = flood(
                flooder, client, b, "bad-mac1", BAD_MAC1_PER_S, seconds
            )
            highest = b.rss_kib()
            b.wg("set", b.interface, "peer", late.public_key, "allowed-ips", "10.9.0.3/32")
            newcomer = subprocess.Popen(
                [sys.executable, "-c", NEWCOMER, client.name, late.interface, b.public_key],
                stdout=subprocess.PIPE,
                text=True,
            )
            valid_sent, valid_loss, valid_cpu = flood(
                flooder, client, b, "valid-mac1", VALID_MAC1_PER_S, max(seconds, 9)
            )
            waited, _ = newcomer.communicate(timeout=40)
            highest = max(highest, b.rss_kib())
            return {
                "bad_loss_percent": bad_loss,
                "bad_cpu_us": bad_cpu / max(1, bad_sent) * 1e6,
                "valid_loss_percent": valid_loss,
                "valid_cpu_us": valid_cpu / max(1, valid_sent) * 1e6,
                "cookie_percent": replies(flooder, "cookies") / max(1, valid_sent) * 100,
                "new_handshake_s": float(waited or "nan"),
                "rss_growth_mib": (highest - idle) / 1024,
            }
        finally:
            for node in (late, a, b):
                node.stop()


# Waits for the flood to stand, then lets a new peer shake hands; prints the seconds it took.
NEWCOMER = """
import subprocess, sys, time
space, interface, key = sys.argv[1:]
inside = ["ip", "netns", "exec", space]
time.sleep(2)
start = time.monotonic()
subprocess.run([*inside, "wg", "set", interface, "peer", key, "allowed-ips", "10.9.0.9/32",
                "endpoint", "192.168.77.2:51820", "persistent-keepalive", "1"], check=True)
while time.monotonic() - start < 30:
    shown = subprocess.run([*inside, "wg", "show", interface, "latest-handshakes"],
                           capture_output=True, text=True).stdout.split()
    if shown and int(shown[1]):
        print(time.monotonic() - start)
        break
    time.sleep(0.02)
"""


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=6, help="of each flood")
    options = parser.parse_args()
    chosen = report.choose(options.only)
    rounds = report.interleave(
        list(chosen),
        options.rounds,
        lambda name: measure(chosen[name], options.seconds),
    )
    if options.json:
        print(json.dumps(rounds))
        return 0
    lines = [report.table(rounds, MEASURES), ""]
    for key, relation, limit in LIMITS if "wantasticd" in rounds else ():
        value = report.median(rounds["wantasticd"][key])
        good = value <= limit if relation == "at most" else value >= limit
        heading = next(m.heading for m in MEASURES if m.key == key)
        word = "reached" if good else "NOT reached"
        lines.append(f"{word}: {heading} {value:.2f} (goal: {relation} {limit})")
    text = "\n".join(lines)
    print(text)
    if options.keep:
        report.keep("flood", f"Handshake floods, medians of {options.rounds} rounds", text, rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
