"""The paths of bench-netstack: our TCP against Linux's where there is delay and loss.

    left   Linux over TUN mode --\
                                  relay: delay, loss, rate --  TUN mode, server   right
    left   userspace mode -------/

Both ways to the server have a bottleneck of their own, so both are measured at the same
time. Linux is CUBIC on both sides; the server is always Linux, so that each way shows
one side of our stack: up the sender, down the receiver.

What one stream reaches in some seconds depends on when its first packet was lost: at
200 ms and 0.1 % that is one packet in a thousand, and slow start ends there. So paths
with loss carry several streams, as many as do not fill the bottleneck, each round has
losses of its own, and medians are compared.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

from tests.bench import netstack_peers as stacks
from tests.bench import report
from tests.bench.report import ROOT, Rounds
from tests.support import peers
from tests.support.netns import Namespace, pair
from tests.support.packet_path import Path

SERVER = "10.9.0.2"
LINUX, USERSPACE = "10.9.0.1", "10.9.0.3"
ENDS = ("linux", "ours")
# 100 Mbit/s with a queue of 100 ms; who is late lets four full packets pass.
RATE_BYTES_S, QUEUE_S, LATE_MS = 12.5e6, 0.1, 0.475
# Beyond a round trip: what a queue and the programs hold must not meet the next path.
SETTLE_S = 0.25
ROUND_SEED = 1000


@dataclass(frozen=True)
class Row:
    """One path and the range of ours/Linux that is the goal for it."""

    name: str
    rtt_ms: float
    seed: int
    at_least: float
    at_most: float = float("inf")
    streams: int = 1
    seconds: float = 2.5
    # Streams up and down at once: where they are far from filling it, neither notices.
    both_ways: bool = False
    loss: float = 0.0
    swapped: float = 0.0

    @property
    def path(self) -> Path:
        return Path(
            delay_ms=self.rtt_ms / 2,
            loss=self.loss,
            reorder=self.swapped,
            late_ms=LATE_MS,
            rate_bytes_s=RATE_BYTES_S,
            queue_bytes=int(RATE_BYTES_S * QUEUE_S),
        )


SECONDS = {20: 2.0, 50: 2.5, 200: 5.0}  # of a stream, by the round trip in ms
STREAMS = {0.001: {20: 4, 50: 4, 200: 8}, 0.01: {20: 6, 50: 12, 200: 16}}
ROWS = (
    *(
        Row(
            f"{rtt_ms} ms, {f'{loss:.1%} lost' if loss else 'clean'}",
            rtt_ms,
            rtt_ms,
            *((0.85, 1.3) if loss else (0.9, float("inf"))),
            STREAMS.get(loss, {}).get(rtt_ms, 1),
            SECONDS[rtt_ms],
            loss == 0.01,
            loss,
        )
        for rtt_ms in (20, 50, 200)
        for loss in (0.0, 0.001, 0.01)
    ),
    Row("50 ms, 1.0% swapped", 50, 7, 0.9, swapped=0.01),
)


@dataclass
class Relay:
    """The impairing relay as a process; both of its ports have the same path."""

    process: subprocess.Popen[str]
    ports: Sequence[int]

    def become(self, path: Path, seed: int) -> None:
        self._ask([[seed, asdict(path)]] * 2)

    def _ask(self, what: object) -> object:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer: object = json.loads(self.process.stdout.readline())
        return answer


@contextmanager
def relay(space: Namespace, far: str) -> Iterator[Relay]:
    process = subprocess.Popen(
        space.command(sys.executable, "-m", "tests.support.packet_path", far, "51820"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        found = Relay(process, ())
        ports = found._ask([[1, asdict(Path())]] * 2)
        assert isinstance(ports, list)
        found.ports = ports
        yield found
    finally:
        process.terminate()
        process.wait(10)


def traffic(space: Namespace, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        space.command(sys.executable, "-m", "tests.support.traffic", *arguments),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def mbit(process: subprocess.Popen[str]) -> float:
    assert process.stdout
    found = json.loads(process.stdout.readline())
    return float(found["bytes"]) * 8 / max(found["seconds"], 1e-3) / 1e6


def measure_once(
    left: Namespace, servers: Sequence[subprocess.Popen[str]], row: Row, kinds: Sequence[str]
) -> dict[str, float]:
    """Return Mbit/s of Linux and of ours, measured at the same time, for each of `kinds`."""
    ends = (("linux", SERVER, stacks.SERVER_PORT), ("ours", "127.0.0.1", stacks.FORWARD_PORT))
    clients = {
        (who, kind): traffic(left, kind, host, str(port), str(row.seconds), str(row.streams))
        for kind in kinds
        for who, host, port in ends
    }
    result = {}
    for (who, kind), client in clients.items():
        # Who receives counts: a server prints what came up, a client what came down.
        counting = servers[who == "ours"] if kind == "up" else client
        result[f"{who}_{kind}"] = sum(mbit(counting) for _ in range(row.streams))
    for client in clients.values():
        client.wait(60)
    return result


@contextmanager
def laboratory() -> Iterator[tuple[Namespace, list[subprocess.Popen[str]], Relay]]:
    """Two clients' ways to one server, and a server program for each."""
    with pair("bnp") as (_, left, right), ExitStack() as held:
        for space in (left, right):
            space.run("sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1")
        path = held.enter_context(relay(left, stacks.OUTER[1]))
        server = peers.start(peers.ours(), right, "bnp0", (f"{SERVER}/24",))
        held.callback(server.stop)
        linux = peers.start(peers.ours(), left, "bnp1", (f"{LINUX}/24",), port=51821)
        held.callback(linux.stop)
        private, public = peers.key_pair()
        server.add_peer(linux, f"{LINUX}/32")
        server.add_peer(public, f"{USERSPACE}/32")
        linux.add_peer(server, f"{SERVER}/32", f"127.0.0.1:{path.ports[0]}")
        config = stacks.agent_config(
            private, USERSPACE, 51822, server.public_key, SERVER, f"127.0.0.1:{path.ports[1]}"
        )
        # Each client has a server of its own, so that their lines stay apart.
        ports = stacks.SERVER_PORT, stacks.SERVER_PORT + 100
        config["forwards"] = [
            {"listen": f"127.0.0.1:{stacks.FORWARD_PORT}", "target": f"{SERVER}:{ports[1]}"}
        ]
        held.enter_context(stacks.started_agent(left, config))
        programs = [traffic(right, "serve", SERVER, str(port)) for port in ports]
        for program in programs:
            held.callback(program.wait, 10)
            held.callback(program.terminate)
            assert program.stdout
            assert program.stdout.readline()
        stacks.wait_listening(left, "127.0.0.1", stacks.FORWARD_PORT)
        yield left, programs, path


def measure(rounds: int, rows: Sequence[Row] = ROWS) -> Rounds:
    """Return Mbit/s for each path, sender up and receiver down, of Linux and of ours."""
    result: Rounds = {row.name: {} for row in rows}
    with laboratory() as (left, servers, path):
        for number, row in itertools.product(range(rounds), rows):
            # Not the losses of the round before.
            path.become(row.path, row.seed + ROUND_SEED * number)
            found: dict[str, float] = {}
            for kinds in (("up", "down"),) if row.both_ways else (("up",), ("down",)):
                found |= measure_once(left, servers, row, kinds)
                time.sleep(SETTLE_S + 2 * row.rtt_ms / 1000)
            for key, value in found.items():
                result[row.name].setdefault(key, []).append(value)
            shown = "  ".join(f"{key}={value:.1f}" for key, value in found.items())
            print(
                f"round {number + 1}/{rounds}  {row.name:20} {shown}", file=sys.stderr, flush=True
            )
    return result


def table(found: Rounds, rows: Sequence[Row] = ROWS) -> list[str]:
    """Return a Markdown table of medians and a line for each goal."""
    lines = [
        "| path, 100 Mbit/s | streams | Linux up | ours sends | ratio"
        " | Linux down | ours receives | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for row in rows:
        cells = [row.name, str(row.streams)]
        for kind, role in (("up", "sender"), ("down", "receiver")):
            linux, own = (report.median(found[row.name][f"{who}_{kind}"]) for who in ENDS)
            ratio = own / linux if linux else float("nan")
            cells += [f"{linux:.1f}", f"{own:.1f}", f"{ratio:.2f}"]
            is_reached = row.at_least <= ratio
            word = "reached" if is_reached else "NOT reached"
            if ratio > row.at_most:
                word = "above the range"
            goal = f"{row.at_least}" + (f" to {row.at_most}" if row.loss else " at least")
            verdicts.append(f"{word}: {row.name}, {role}: {ratio:.2f} of Linux CUBIC ({goal})")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", *verdicts]
