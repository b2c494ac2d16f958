"""`wantasticd demo`: two devices of ours on this machine, traffic in the tunnel, live.

On a terminal the table is drawn in place; elsewhere each second gives a line, as text
or as JSON. Ctrl-C or --seconds ends it; the status is 0 when traffic came through.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wantastic.cli import exits
from wantastic.cli.args import UsageError
from wantastic.cli.status import size

if TYPE_CHECKING:
    from wantastic.cli.demo_web import DemoWeb
    from wantastic.device.loopback import Node, Pair

TICK_S = 0.05
SHOW_S = 1.0
PING_EVERY = 4
FETCH_EVERY = 10
DATAGRAMS_PER_TICK = 20
PAYLOAD_BYTES = 1200
CLEAR = "\x1b[H\x1b[J"


@dataclass(frozen=True, slots=True)
class Options:
    seconds: float | None
    json: bool


def parse(arguments: Sequence[str]) -> Options:
    """Return the options of `wantasticd demo`."""
    seconds, as_json, rest = None, False, list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name in ("--json", "-json") and not equals:
            as_json = True
        elif name in ("--seconds", "-seconds"):
            value = value if equals else rest.pop(0) if rest else ""
            try:
                seconds = float(value)
            except ValueError:
                seconds = -1.0
            if not 0 < seconds < 1e9:
                raise UsageError("demo: --seconds needs a number above 0")
        else:
            raise UsageError(f"demo: {name[:40]} is not a flag of it")
    return Options(seconds, as_json)


def run(arguments: Sequence[str]) -> int:
    """Run the demonstration; return the exit status."""
    options = parse(arguments)
    return asyncio.run(show(options))


async def show(options: Options) -> int:
    """Start the pair, keep traffic going, print until the end."""
    from wantastic.cli.demo_web import DemoWeb
    from wantastic.device.loopback import Pair

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    pair, started = Pair(), time.monotonic()
    web = DemoWeb(pair)
    fetching: asyncio.Task[None] | None = None
    live = sys.stdout.isatty() and not options.json
    try:
        pair.start()
        await web.start()
        shown = started
        ticks = 0
        while not ended.is_set():
            drive(pair, ticks)
            if ticks % FETCH_EVERY == 0 and (fetching is None or fetching.done()):
                fetching = loop.create_task(web.fetch())
            ticks += 1
            now = time.monotonic()
            if options.seconds is not None and now - started >= options.seconds:
                break
            if now - shown >= SHOW_S:
                shown = now
                put(pair, web, now - started, options, live)
            try:
                await asyncio.wait_for(ended.wait(), TICK_S)
            except TimeoutError:
                continue
        await asyncio.sleep(TICK_S)
        put(pair, web, time.monotonic() - started, options, live)
        return finish(pair, web, options)
    finally:
        if fetching:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
        await web.close()
        pair.close()


def drive(pair: Pair, tick: int) -> None:
    """One tick's traffic: echo requests at a walk, UDP both ways at a run."""
    if tick % PING_EVERY == 0:
        pair.ping()
    if pair.traffic.pongs:
        pair.datagrams(DATAGRAMS_PER_TICK, bytes(PAYLOAD_BYTES))


def finish(pair: Pair, web: DemoWeb, options: Options) -> int:
    """Say how it went."""
    if pair.traffic.pongs and web.fetches.fetched and not web.fetches.wrong:
        if not options.json:
            sys.stdout.write("Stopped. Both devices are gone.\n")
        return exits.OK
    what = "no page" if pair.traffic.pongs else "no packet"
    sys.stderr.write(f"wantasticd: {what} came through the tunnel\n")
    return exits.FAILED


def put(pair: Pair, web: DemoWeb, elapsed_s: float, options: Options, live: bool) -> None:
    """Print the present state in the form that fits."""
    state = gather(pair, web, elapsed_s)
    if options.json:
        sys.stdout.write(json.dumps(state) + "\n")
    elif live:
        sys.stdout.write(CLEAR + table(state))
    else:
        sys.stdout.write(line(state) + "\n")
    sys.stdout.flush()


def gather(pair: Pair, web: DemoWeb, elapsed_s: float) -> dict[str, Any]:
    """Return everything that is shown."""
    traffic = pair.traffic
    return {
        "seconds": round(elapsed_s, 1),
        "nodes": [gather_node(pair.left), gather_node(pair.right)],
        "pings": traffic.pings,
        "pongs": traffic.pongs,
        "rtt_ms": round(traffic.last_rtt_ns / 1e6, 3),
        "udp_sent": traffic.datagrams,
        "udp_returned": traffic.echoes,
        "socks5": f"127.0.0.1:{web.proxy_port}",
        "pages_asked": web.fetches.asked,
        "pages": web.fetches.fetched,
        "page_bytes": len(web.page),
        "page_ms": round(web.fetches.last_ms, 1),
    }


def gather_node(node: Node) -> dict[str, Any]:
    peer = node.peer()
    age_s = (time.time_ns() - peer.last_handshake_unix_ns) / 1e9
    return {
        "name": node.name,
        "address": str(node.address),
        "port": node.port,
        "handshake_age_s": round(age_s, 1) if peer.last_handshake_unix_ns else None,
        "handshake_ms": round(peer.handshake_duration_ns / 1e6, 2),
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
        "drops": node.engine.drops(),
    }


def table(state: dict[str, Any]) -> str:
    """Return the screen of a terminal."""
    rows = ["WireGuard tunnel between two devices on this machine (no root, no kernel module)", ""]
    rows.append(f"{'':8}{'address':12}{'UDP port':>9}{'handshake':>14}{'received':>14}{'sent':>14}")
    for node in state["nodes"]:
        age = node["handshake_age_s"]
        rows.append(
            f"{node['name']:8}{node['address']:12}{node['port']:>9}"
            f"{'none yet' if age is None else f'{age:.0f} s ago':>14}"
            f"{size(node['rx_bytes']):>14}{size(node['tx_bytes']):>14}"
        )
    rows += [
        "",
        f"ping through the tunnel: {state['pongs']} of {state['pings']} answered,"
        f" last in {state['rtt_ms']:.2f} ms",
        f"UDP through the tunnel:  {state['udp_returned']} of {state['udp_sent']} datagrams back",
        f"web through the tunnel:  {state['pages']} of {state['pages_asked']} pages of"
        f" {size(state['page_bytes'])}, last in {state['page_ms']:.0f} ms",
        f"try it: curl --socks5 {state['socks5']} -o page http://10.77.0.2/",
    ]
    for node in state["nodes"]:
        for reason, count in sorted(node["drops"].items()):
            rows.append(f"dropped at {node['name']}: {count} {reason}")
    rows += ["", f"{state['seconds']:.0f} s; Ctrl-C ends it", ""]
    return "\n".join(rows)


def line(state: dict[str, Any]) -> str:
    """Return one line for a log."""
    left = state["nodes"][0]
    age = left["handshake_age_s"]
    shake = "no handshake yet" if age is None else f"handshake in {left['handshake_ms']:.2f} ms"
    return (
        f"{state['seconds']:6.1f} s  {shake}  ping {state['pongs']}/{state['pings']}"
        f" {state['rtt_ms']:.2f} ms  UDP {state['udp_returned']}/{state['udp_sent']}"
        f"  SOCKS5 pages {state['pages']}/{state['pages_asked']}"
        f"  received {size(left['rx_bytes'])}  sent {size(left['tx_bytes'])}"
    )
