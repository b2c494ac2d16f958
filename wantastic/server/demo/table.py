"""What the demonstration shows: both programs' own words in one document, and three layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wantastic.server.demo.site import Visitor

CLEAR = "\x1b[H\x1b[J"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Return `1.5 MiB`."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {UNITS[unit]}"


@dataclass(frozen=True, slots=True)
class AgentView:
    """The few fields of an agent's status document that are shown."""

    state: str = "starting"
    reason: str = ""
    address: str = ""
    control: str = ""
    peer: str = "none yet"
    endpoint: str = ""
    handshake_age_s: float | None = None
    took_ms: float = 0.0
    rx_bytes: int = 0
    tx_bytes: int = 0
    conditions: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> AgentView:
        """Read a document; it is empty while no agent answers."""
        if not document:
            return cls()
        agent, control = document.get("agent") or {}, document.get("control") or {}
        peer: Mapping[str, Any] = next(iter(document["peers"]), {})
        last_ns = peer.get("last_handshake_unix_ns")
        return cls(
            state=agent.get("state", "starting"),
            reason=agent.get("reason", ""),
            address=next(iter(document["interface"]["addresses"]), "").partition("/")[0],
            control=control.get("mode") or control.get("phase") or "",
            peer=peer.get("state", "none yet"),
            endpoint=peer.get("endpoint") or "",
            handshake_age_s=(document["now_unix_ns"] - last_ns) / 1e9 if last_ns else None,
            took_ms=(peer.get("handshake_duration_ns") or 0) / 1e6,
            rx_bytes=peer.get("rx_bytes", 0),
            tx_bytes=peer.get("tx_bytes", 0),
            conditions=tuple(
                f"{c['severity']}: {c['reason']}"
                for c in document["conditions"]
                if c["severity"] != "info"
            ),
        )

    @property
    def is_up(self) -> bool:
        """Whether it is registered and its tunnel has shaken hands."""
        return self.state in ("running", "degraded") and self.handshake_age_s is not None


def gather(
    document: Mapping[str, Any], server: Mapping[str, Any], visitor: Visitor, elapsed_s: float
) -> dict[str, Any]:
    """Return everything that is shown."""
    agent = AgentView.of(document)
    return {
        "seconds": round(elapsed_s, 1),
        "agent": {
            "state": agent.state,
            "reason": agent.reason,
            "address": agent.address,
            "control": agent.control,
            "conditions": list(agent.conditions),
        },
        "peer": {
            "state": agent.peer,
            "endpoint": agent.endpoint,
            "handshake_age_s": agent.handshake_age_s and round(agent.handshake_age_s, 1),
            "handshake_ms": round(agent.took_ms, 2),
            "rx_bytes": agent.rx_bytes,
            "tx_bytes": agent.tx_bytes,
        },
        "web": {
            "url": f"http://{visitor.address}/",
            "socks5": f"127.0.0.1:{visitor.proxy_port}",
            "asked": visitor.asked,
            "fetched": visitor.fetched,
            "wrong": visitor.wrong,
            "last_bytes": len(visitor.last_page),
            "last_ms": round(visitor.last_ms, 1),
            "problem": visitor.problem,
        },
        "server": dict(server),
    }


def _age(seconds: float | None) -> str:
    return "no handshake yet" if seconds is None else f"handshake {seconds:.0f} s ago"


def screen(state: Mapping[str, Any]) -> str:
    """Return the screen of a terminal."""
    agent, peer, web, server = state["agent"], state["peer"], state["web"], state["server"]
    took = f", took {peer['handshake_ms']:.1f} ms" if peer["handshake_ms"] else ""
    last = f"last {size(web['last_bytes'])} in {web['last_ms']:.0f} ms"
    rows = [
        "wantasticd: a device, its control server and a tunnel, all on this machine",
        "",
        "THE DEVICE",
        f"  agent        {agent['state']:12} {agent['reason']}",
        f"  address      {agent['address'] or 'none yet':12} "
        f"given by the server, by {agent['control']}",
        f"  peer         {peer['state']:12} {peer['endpoint']}, "
        f"{_age(peer['handshake_age_s'])}{took}",
        f"  transfer     {size(peer['rx_bytes'])} received, {size(peer['tx_bytes'])} sent",
        *(f"  ! {text}" for text in agent["conditions"]),
        "",
        "THE SERVER",
    ]
    rows += [
        f"  {d['device_id']:12} {d['status']:12} {d['ipv4']}, configuration "
        f"{d['applied_version']} of {d['version']} in force"
        for d in server["devices"]
    ]
    rows += [
        f"  gateway      {server['gateway_peers']} peer",
        f"  calls        {server['calls_answered']} answered, {server['calls_refused']} refused",
        "",
        "A WEB SITE BEHIND THE GATEWAY, THROUGH THE DEVICE'S SOCKS5 PROXY",
        f"  pages        {web['fetched']} of {web['asked']} fetched, {last}",
    ]
    rows += [f"  ! {web['problem']}"] if web["problem"] else []
    rows += [
        f"  try it       curl --proxy socks5://{web['socks5']} {web['url']}",
        "",
        f"{state['seconds']:.0f} s; Ctrl-C ends everything",
    ]
    return CLEAR + "".join(row[:79] + "\n" for row in rows)


def line(state: Mapping[str, Any]) -> str:
    """Return one line for a log."""
    agent, peer, web = state["agent"], state["peer"], state["web"]
    return (
        f"{state['seconds']:6.1f} s  agent {agent['state']}  {_age(peer['handshake_age_s'])}"
        f"  received {size(peer['rx_bytes'])}  sent {size(peer['tx_bytes'])}"
        f"  pages {web['fetched']}/{web['asked']}, last in {web['last_ms']:.0f} ms"
        f"  server: {len(state['server']['devices'])} device,"
        f" {state['server']['calls_answered']} calls"
    )
