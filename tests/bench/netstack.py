"""The userspace stack against its peers: `make bench-netstack` (root, network namespaces).

Two parts. Peers: one stream each way, 1,000 idle connections, the same 1,000 carrying
16 KiB both ways at once; rounds are interleaved and programs start anew in each; our stack
is measured in the agent, and without a tunnel in the place of slirp4netns and pasta. Paths:
our stack as sender and as receiver with Linux at the other end, against Linux (CUBIC) at
both ends, over the same tunnel and a seeded relay with delay, loss and a rate. CPU
seconds are what all threads of the measured programs ran (/proc/PID/task/*/schedstat).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.bench import netstack_paths as paths
from tests.bench import netstack_peers as stacks
from tests.bench import report
from tests.bench.netstack_peers import (
    ALONE,
    GVISOR,
    MTU,
    OFFLOADS,
    OURS,
    PASTA,
    SLIRP,
    Ends,
    Program,
    Stack,
)
from tests.bench.report import Goal, Measure, PeakRss
from tests.support.netns import Namespace, available, pair

MEASURES = (
    Measure("rx_mb_per_cpu_s", "MB per CPU s rx", "{:.0f}", lower_is_better=False),
    Measure("tx_mb_per_cpu_s", "MB per CPU s tx", "{:.0f}", lower_is_better=False),
    Measure("rx_s_per_gb", "CPU s/GB rx", "{:.2f}"),
    Measure("tx_s_per_gb", "CPU s/GB tx", "{:.2f}"),
    Measure("rx_kernel_s_per_gb", "in kernel rx", "{:.2f}"),
    Measure("tx_kernel_s_per_gb", "in kernel tx", "{:.2f}"),
    Measure("up_gbps", "Gbit/s up", "{:.2f}", lower_is_better=False),
    Measure("down_gbps", "Gbit/s down", "{:.2f}", lower_is_better=False),
    Measure("rss_start_mib", "RSS start MiB", "{:.1f}"),
    Measure("rss_load_mib", "RSS load MiB", "{:.1f}"),
    Measure("idle_kib", "KiB per idle", "{:.2f}"),
    Measure("active_kib", "KiB per active", "{:.2f}"),
    Measure("open_ms", "ms to open one", "{:.2f}"),
)
STACK_GOALS = (
    Goal("rx_mb_per_cpu_s", SLIRP, 1 / 1.5),
    Goal("tx_mb_per_cpu_s", SLIRP, 1 / 1.5),
    Goal("rx_mb_per_cpu_s", PASTA, 1 / 2.5),
    Goal("tx_mb_per_cpu_s", PASTA, 1 / 2.5),
)
AGENT_GOALS = (
    Goal("rx_s_per_gb", GVISOR, 1 / 4),
    Goal("tx_s_per_gb", GVISOR, 1 / 8),
    Goal("rss_load_mib", GVISOR, 1 / 6),
    *STACK_GOALS,
)
IDLE_GOAL_KIB = 1.024  # 1 MiB for 1,000 of them

NOTE = textwrap.fill(
    f"{SLIRP} and {PASTA} carry packets between a TAP device and sockets, MTU {MTU}, one packet a"
    f' system call, and encrypt nothing. "{ALONE}" does that job with a TUN device: the product\'s'
    f' stack and relay, without WireGuard. "{OFFLOADS}" opens the device as our TUN mode does, with'
    " a vnet header: one system call carries many segments, which the kernel neither cuts nor"
    " joins; their TAP has none. Both are held to the goals against those two, the first to see"
    " what one packet a call leaves to any stack, the second for our own way to a device. The whole"
    " agent opens and seals besides and has the tunnel's socket, not a device: its lines against"
    ' those two are information. "In kernel" is what of the CPU seconds the kernel took: for system'
    " calls, the device, and the TCPs that run within them.",
    width=100,
)


def rss_mib(programs: tuple[Program, ...]) -> float:
    return max(program.rss_kib() for program in programs) / 1024


@contextmanager
def client(space: Namespace, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a traffic client whose lines are read and written; end it with the block."""
    process = subprocess.Popen(
        space.command(sys.executable, "-m", "tests.support.traffic", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=report.ROOT,
    )
    try:
        yield process
    finally:
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        process.terminate()
        process.wait(10)


def line_of(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise RuntimeError("a traffic program ended early")
    return line.strip()


def stream(
    kind: str,
    space: Namespace,
    server: subprocess.Popen[str],
    at: tuple[str, int],
    seconds: float,
) -> dict[str, float]:
    """Run one stream up or down; return bytes and seconds as its receiver counted them."""
    with client(space, kind, at[0], str(at[1]), str(seconds)) as process:
        found: dict[str, float] = json.loads(line_of(server if kind == "up" else process))
        process.wait(30)
    return found


def measure_streams(
    left: Namespace, server: subprocess.Popen[str], ends: Ends, seconds: float
) -> dict[str, float]:
    """CPU per GB of the sending and the receiving side, both ways."""
    result: dict[str, float] = {}
    spent, moved = {"rx": [0.0, 0.0], "tx": [0.0, 0.0]}, {"rx": 0.0, "tx": 0.0}
    stream("up", left, server, (ends.host, ends.port), 0.3)  # handshakes, first faults
    for kind in ("up", "down"):
        # A tunnel has both sides; a single end receives what goes up, sends what comes down.
        near, far = ("tx", "rx") if kind == "up" else ("rx", "tx")
        roles = {near: ends.near, far: ends.far}
        if ends.near is ends.far:
            del roles[near]
        before = {side: program.spent_s() for side, program in roles.items()}
        found = stream(kind, left, server, (ends.host, ends.port), seconds)
        result[f"{kind}_gbps"] = found["bytes"] * 8 / found["seconds"] / 1e9
        for side, program in roles.items():
            for part, now in enumerate(program.spent_s()):
                spent[side][part] += now - before[side][part]
            moved[side] += found["bytes"]
    for side, (whole, kernel) in spent.items():
        result[f"{side}_s_per_gb"] = whole / moved[side] * 1e9
        result[f"{side}_kernel_s_per_gb"] = kernel / moved[side] * 1e9
        result[f"{side}_mb_per_cpu_s"] = moved[side] / whole / 1e6
    return result


def measure_connections(left: Namespace, ends: Ends, count: int) -> dict[str, float]:
    """Resident memory per idle and per active connection, of the end that needs more."""
    before = [program.rss_kib() for program in ends.programs]

    def growth(peaks: list[int]) -> float:
        return max(now - was for now, was in zip(peaks, before, strict=True)) / count

    began = time.monotonic()
    with client(left, "hold", ends.host, str(ends.port), str(count)) as process:
        if line_of(process) != "idle":
            raise RuntimeError("connections could not be opened")
        took_s = time.monotonic() - began
        time.sleep(0.3)
        idle = growth([program.rss_kib() for program in ends.programs])
        peaks = [PeakRss(program) for program in ends.programs]
        for peak in peaks:
            peak.__enter__()
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        line_of(process)
        for peak in peaks:
            peak.__exit__()
    active = growth([int(peak.mib * 1024) for peak in peaks])
    return {"idle_kib": idle, "active_kib": active, "open_ms": took_s / count * 1000}


def calm(space: Namespace) -> None:
    """Keep pacing out of the host sockets: some machines default to BBR."""
    for name in ("cubic", "reno"):
        done = space.run("sysctl", "-w", f"net.ipv4.tcp_congestion_control={name}", check=False)
        if name in done:
            return


def measure(stack: Stack, options: argparse.Namespace) -> dict[str, float]:
    """Measure one stack once, from start to end."""
    with pair("bns") as (_, left, right), ExitStack() as held:
        for space in (left, right):
            calm(space)
        ends = held.enter_context(stack.started(left, right))
        with client(right, "serve", "127.0.0.1", str(stacks.SERVER_PORT)) as server:
            line_of(server)
            result = {"rss_start_mib": rss_mib(ends.programs)}
            # Connections first: a heap that a stream has filled hides what they need.
            result |= measure_connections(left, ends, options.connections)
            with PeakRss(*ends.programs) as peak:
                result |= measure_streams(left, server, ends, options.seconds)
            result["rss_load_mib"] = peak.mib
    return result


def idle_verdict(rounds: report.Rounds) -> str:
    """A goal that is a figure of ours, not a ratio."""
    idle = report.median(rounds[OURS]["idle_kib"])
    word = "reached" if idle <= IDLE_GOAL_KIB else "NOT reached"
    return f"{word}: {idle:.2f} KiB per idle connection (goal {IDLE_GOAL_KIB})"


def kernel_bounds(rounds: report.Rounds) -> str:
    """What a stack would reach that made the same system calls and took no time of its own."""
    bounds = []
    for side in ("rx", "tx"):
        kernel = report.median(rounds[ALONE][f"{side}_kernel_s_per_gb"])
        theirs = report.median(rounds[PASTA][f"{side}_s_per_gb"])
        bounds.append(f"{side} 1/{theirs / kernel if kernel else float('inf'):.2f}")
    return f"information: the kernel's part alone is {', '.join(bounds)} of {PASTA}'s whole"


def all_verdicts(rounds: report.Rounds) -> list[str]:
    """The goals: of the stack without a tunnel, then of the whole agent."""
    lines = []
    for ours in (ALONE, OFFLOADS):
        if ours in rounds:
            lines += [f"{ours}:", "", *report.verdicts(rounds, MEASURES, STACK_GOALS, ours)]
            if ours == ALONE and PASTA in rounds:
                lines.append(kernel_bounds(rounds))
            lines.append("")
    if OURS in rounds:
        lines += [f"{OURS}, the whole agent with WireGuard:", ""]
        lines += [*report.verdicts(rounds, MEASURES, AGENT_GOALS, OURS), idle_verdict(rounds)]
    return lines


def tell(
    name: str,
    title: str,
    lines: list[str],
    rounds: report.Rounds,
    options: argparse.Namespace,
) -> None:
    """Print one part's result, and keep it in a file of its own."""
    text = "\n".join([*lines, *(["", options.remark] if options.remark else [])])
    if not options.json:
        print(text, flush=True)
    if options.keep:
        whole = f"{title}, medians of {options.rounds} interleaved rounds"
        report.keep(name, whole, text, rounds)


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each stream to a peer")
    parser.add_argument("--remark", help="a line to keep with it: what else ran, for example")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--no-paths", action="store_true", help="leave the paths out")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out")
    options = parser.parse_args()
    if not available():
        print("this benchmark needs root, ip and /dev/net/tun", file=sys.stderr)
        return 3
    rounds: report.Rounds = {}
    if not options.no_peers:
        chosen = {
            name: stack
            for name, stack in stacks.available().items()
            if not options.only or any(o in name for o in options.only)
        }
        found = report.interleave(
            list(chosen), options.rounds, lambda name: measure(chosen[name], options)
        )
        lines = [report.table(found, MEASURES), "", NOTE, "", *all_verdicts(found)]
        rounds |= found
        tell("netstack", "The userspace stack", lines, found, options)
    if not options.no_paths:
        found = paths.measure(options.rounds)
        rounds |= found
        title = "The userspace stack's TCP on impaired paths, Mbit/s"
        tell("netstack-paths", title, paths.table(found), found, options)
    if options.json:
        print(json.dumps(rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
