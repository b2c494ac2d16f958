"""`wantasticd -status`: asks the agents on this machine and shows what they say."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wantastic.cli import exits
from wantastic.cli.args import ShowStatus, UsageError
from wantastic.telemetry.socket import ask, socket_folder

WIDTH = 80
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def show_status(command: ShowStatus) -> int:
    """Print the status; return OK, UNHEALTHY or NO_AGENT."""
    sockets = find_sockets(command)
    if command.json and len(sockets) > 1:
        names = ", ".join(path.stem for path in sockets)
        raise UsageError(f"several interfaces run ({names}): choose one with -interface")
    found = [document for path in sockets if (document := fetch(path))]
    if not found:
        where = f" for {sockets[0].stem}" if sockets else ""
        sys.stderr.write(
            f"wantasticd: no agent answers{where}. Start one with -config FILE; "
            "reading its status takes the same user.\n"
        )
        return exits.NO_AGENT
    for number, document in enumerate(found):
        if command.json:
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        else:
            sys.stdout.write("\n" * bool(number) + render(document))
    return exits.OK if all(d.get("healthy") for d in found) else exits.UNHEALTHY


def find_sockets(command: ShowStatus) -> list[Path]:
    """Return the sockets to ask."""
    folder, name = socket_folder(), command.interface
    if command.config_path and not name:
        from wantastic.config.load import load_config

        name = load_config(command.config_path).config.interface.name
    if name:
        return [folder / f"{name}.sock"]
    return sorted(folder.glob("*.sock"))


def fetch(path: Path) -> dict[str, Any] | None:
    """Return an agent's status document, None when nobody answers with one."""
    try:
        document = json.loads(ask(path, "status"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and "status_version" in document else None


# -- text --


def size(count: int) -> str:
    """Return `1.5 MiB`."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def span(seconds: float) -> str:
    """Return `2 h 5 min`: the two largest units."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for length, unit in SPANS:
        count, rest = divmod(rest, length)
        if count or (parts and len(parts) < 2):
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    return " ".join(p for p in parts if not p.startswith("0 ")) or "0 s"


def fold(label: str, words: list[str]) -> Iterator[str]:
    """Yield `label word, word` in lines of at most WIDTH, continued under the words."""
    indent = " " * len(label)
    line = label
    for number, word in enumerate(words):
        piece = word + ("," if number < len(words) - 1 else "")
        if len(line) + len(piece) + 1 > WIDTH and line.strip() and line not in (label, indent):
            yield line.rstrip()
            line = indent
        line += piece + " "
    yield line.rstrip()


def render(document: dict[str, Any]) -> str:
    """Return the status for people."""
    return "".join(f"{line}\n" for line in _lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    interface, now = document["interface"], document["now_unix_ns"]
    up_s = (now - document["started_unix_ns"]) / 1e9
    yield f"{interface['name']}: up {span(up_s)}, wantasticd {document['version']}"
    yield from _interface(interface)
    yield from _agent(document, now / 1e9)
    for condition in document["conditions"]:
        yield from _condition(condition)
    for peer in document["peers"]:
        yield ""
        yield from _peer(peer, now)
    yield ""
    drops = [f"{name} {count}" for name, count in sorted(document["drops"].items())]
    yield from fold("dropped packets: ", drops or ["none"])
    used = [name for name, on in sorted(document["features"].items()) if on]
    used += document["tun_features"]
    yield from fold("kernel features used: ", list(dict.fromkeys(used)) or ["none"])
    yield f"flash writes since the start: {document['flash_writes']}"


def _interface(interface: dict[str, Any]) -> Iterator[str]:
    yield f"  public key: {interface['public_key'] or 'none'}"
    port, wanted = interface["listen_port"], interface["configured_listen_port"]
    note = f" (configured: {wanted})" if wanted not in (0, port) else ""
    yield f"  UDP port: {port or 'closed'}{note}"
    yield from fold("  addresses: ", interface["addresses"] or ["none"])
    yield f"  MTU: {interface['mtu']}"
    if interface["default_route"]:
        yield f"  default route: into the tunnel (mark {interface['fwmark']:#x})"


def _agent(document: dict[str, Any], now_s: float) -> Iterator[str]:
    """Yield what the agent and its control server are up to; nothing where there is neither."""
    agent, control = document.get("agent"), document.get("control")
    if not agent:
        return
    yield from fold(f"  agent: {agent['state']}, ", [agent["reason"]])
    if agent["remedy"]:
        yield from fold("    ", agent["remedy"].split(". "))
    if control:
        # Before the control plane runs, there is no mode.
        parts = [control["server"], control.get("mode") or control["phase"]]
        if control.get("last_contact_unix_s"):
            parts.append(f"last contact {span(now_s - control['last_contact_unix_s'])} ago")
        left = control.get("token_expires_in_s")
        if left is not None:
            parts.append(f"token good for {span(left)}" if left > 0 else "token expired")
        yield from fold("  control server: ", parts)
    if stated := agent["configuration"]:
        parts = [f"version {stated['version']}", f"received {span(stated['age_s'])} ago"]
        parts += ["on trial"] if stated["on_trial"] else []
        yield from fold("  configuration: ", parts)


def _condition(condition: dict[str, Any]) -> Iterator[str]:
    import textwrap

    about = f" ({condition['subject']})" if condition["subject"] else ""
    text = f"{condition['severity']}: {condition['reason']}{about}. {condition['remedy']}"
    yield from textwrap.wrap(text, WIDTH, initial_indent="  ! ", subsequent_indent="    ")


def _peer(peer: dict[str, Any], now: int) -> Iterator[str]:
    yield f"peer {peer['name'] or 'without a name'}: {peer['state']}"
    yield f"  public key: {peer['public_key']}"
    wanted, endpoint = peer["configured_endpoint"], peer["endpoint"]
    note = f" (configured: {wanted})" if wanted and wanted != endpoint else ""
    yield from fold("  endpoint: ", [(endpoint or "not known") + note])
    last = peer["last_handshake_unix_ns"]
    took = peer["handshake_duration_ns"]
    took_text = f", took {took / 1e6:.1f} ms" if took else ""
    yield f"  last handshake: {span((now - last) / 1e9) + ' ago' if last else 'never'}{took_text}"
    yield f"  received {size(peer['rx_bytes'])}, sent {size(peer['tx_bytes'])}"
    if peer["persistent_keepalive"]:
        yield f"  keepalive: every {peer['persistent_keepalive']} s"
    ranges = peer["allowed_ips"]
    routed = [r["network"] for r in ranges if r["routed"]]
    allowed = [r["network"] for r in ranges if not r["routed"]]
    if routed:
        yield from fold("  routed here: ", routed)
    yield from fold("  allowed only: ", allowed or ["none"])
