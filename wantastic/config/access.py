"""`proxy` and `forwards`: ways into the tunnel and out of it beside a network interface."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from wantastic.config.model import (
    FORWARD_ENDS,
    FORWARD_PROTOCOLS,
    ForwardConfig,
    ForwardEnd,
    ForwardProtocol,
    HostPort,
    ProxyConfig,
    ProxyListenConfig,
)
from wantastic.config.reader import Table
from wantastic.config.sections import read_host_port
from wantastic.config.values import is_numeric, parse_host_port

MAX_FORWARDS = 32
SOCKS_PORT = 1080
HTTP_PORT = 8080
# [udp/][ADDRESS:]PORT:TARGET:PORT, with IPv6 in brackets.
_HOST = r"\[[^\[\]]*\]|[^:\[\]]*"
_FORWARD = re.compile(rf"(?:(tcp|udp)/)?(?:({_HOST}):)?(\d+):((?:{_HOST}):\d+)", re.ASCII)
LOOPBACK_REMEDY = 'Listen on "127.0.0.1", or give user and password.'


def is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback


def read_numeric(table: Table, name: str, default_port: int | None) -> HostPort | None:
    """Return an address and a port; a name becomes a problem."""
    found = read_host_port(table, name, default_port)
    if found and not is_numeric(found.host):
        table.problem(name, "is a name", 'Write an address such as "127.0.0.1:8080".')
        return None
    return found


def read_listener(parent: Table, name: str, default_port: int) -> ProxyListenConfig | None:
    """Return one proxy; None when the file has none."""
    table = parent.table(name)
    listen = read_numeric(table, "listen", default_port)
    user, password = table.text("user"), table.text("password", secret=True)
    table.finish()
    if not parent.has(name):
        return None
    if bool(user) != bool(password):
        table.problem("user", "and password belong together", "Give both or neither.")
    if max(len(user.encode()), len(password.encode())) > 255 or ":" in user:
        table.problem("user", "or password is too long, or user has a colon", "Use up to 255.")
    if listen is None:
        listen = HostPort("127.0.0.1", default_port)
    if not is_loopback(listen.host) and not (user and password):
        text = f"is {listen}, which others can reach, and there is no password"
        table.problem("listen", text, LOOPBACK_REMEDY)
    return ProxyListenConfig(listen, user, password)


def read_proxy(root: Table) -> ProxyConfig:
    table = root.table("proxy")
    result = ProxyConfig(
        socks5=read_listener(table, "socks5", SOCKS_PORT),
        http=read_listener(table, "http", HTTP_PORT),
    )
    table.finish()
    if result.socks5 and result.http and result.socks5.listen == result.http.listen:
        table.problem("http.listen", "is where socks5 listens", "Use another port.")
    return result


def read_forward(table: Table) -> ForwardConfig | None:
    """Return one forward; None when it lacks something."""
    end = table.choice("from", "local", FORWARD_ENDS)
    protocol = table.choice("protocol", "tcp", FORWARD_PROTOCOLS)
    if end == "local":
        listen = read_numeric(table, "listen", None)
        missing = "listen"
    else:
        port = table.integer("port", 0, 1, 65535)
        listen = HostPort("", port) if port else None
        missing = "port"
    target = read_host_port(table, "target", None)
    by_name = end == "local" and protocol == "tcp"
    if target and not by_name and not is_numeric(target.host):
        table.problem("target", "is a name", 'Write an address such as "127.0.0.1:22".')
        target = None
    table.finish()
    for name, value in ((missing, listen), ("target", target)):
        if value is None and not table.has(name):
            remedy = 'A forward has "listen" (or "from": "tunnel" and "port") and "target".'
            table.problem(name, "is missing", remedy)
    if listen is None or target is None:
        return None
    if end == "local" and not is_loopback(listen.host):
        text = f"is {listen}: whoever reaches this address reaches {target}"
        table.warn("listen", text, 'Listen on "127.0.0.1" to keep it to this host.')
    return ForwardConfig(end, protocol, listen, target)


def parse_forward(end: ForwardEnd, text: str) -> ForwardConfig:
    """Return a forward written as `[udp/][ADDRESS:]PORT:TARGET:PORT`.

    The ADDRESS is this host's, 127.0.0.1 when there is none; the port of a "tunnel"
    forward is one of our addresses in the tunnel and has none. ValueError says what is
    wrong.
    """
    found = _FORWARD.fullmatch(text)
    if not found:
        raise ValueError("is not of the form [udp/][ADDRESS:]PORT:TARGET:PORT")
    protocol: ForwardProtocol = "udp" if found[1] == "udp" else "tcp"
    if end == "tunnel" and found[2] is not None:
        raise ValueError("has an address to listen on: it is the tunnel's own")
    listen = parse_host_port(f"{found[2] or '127.0.0.1'}:{found[3]}", None)
    target = parse_host_port(found[4], None)
    if not is_numeric(listen.host):
        raise ValueError("has a name to listen on: give an address")
    if not is_numeric(target.host) and not (end == "local" and protocol == "tcp"):
        raise ValueError("has a name as its target: only TCP into the tunnel may")
    if end == "tunnel":
        listen = HostPort("", listen.port)
    return ForwardConfig(end, protocol, listen, target)


def place_of(forward: ForwardConfig) -> tuple[str, str, HostPort]:
    """Return where a forward listens: no two can be there."""
    return forward.end, forward.protocol, forward.listen


def add_forwards(
    before: tuple[ForwardConfig, ...], more: Iterable[ForwardConfig]
) -> tuple[ForwardConfig, ...]:
    """Return both; one that listens where another did takes its place."""
    return tuple({place_of(forward): forward for forward in (*before, *more)}.values())


def read_forwards(root: Table) -> tuple[ForwardConfig, ...]:
    """Return the forwards; two of them cannot listen in one place."""
    found: list[ForwardConfig] = []
    places: dict[tuple[str, str, HostPort], int] = {}
    for index, table in enumerate(root.tables("forwards")):
        forward = read_forward(table)
        if forward is None:
            continue
        place = place_of(forward)
        if place in places:
            text = f"listens where forwards[{places[place]}] does"
            root.problem(f"forwards[{index}]", text, "Use another port.")
        places.setdefault(place, index)
        found.append(forward)
    if len(found) > MAX_FORWARDS:
        text = f"has {len(found)} entries"
        root.problem("forwards", text, f"At most {MAX_FORWARDS} are possible.")
    return tuple(found)
