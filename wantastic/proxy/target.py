"""Where a proxy client wants to go: a host and a port, checked once for all protocols."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

# RFC 1123 labels, with the underscore that service names use; a final dot is legal.
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


@dataclass(frozen=True, slots=True)
class Target:
    """A destination. `host` is a domain name, or an address in its shortest text form."""

    host: str
    port: int

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address, or None where the host is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host(text: str) -> str:
    """Return a host as Target keeps it; ValueError when it is neither name nor address.

    IPv6 may stand in brackets. Zones are refused: they mean an interface of the client's.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in bare:
        raise ValueError("address has a zone")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if bare != text or len(text) > 253 or not _NAME.fullmatch(text):
        raise ValueError("neither a domain name nor an address")
    if text.rstrip(".").rpartition(".")[2].isdigit():
        raise ValueError("neither a domain name nor an address")
    return text.rstrip(".").lower()


def parse_authority(text: str, default_port: int | None = None) -> Target:
    """Parse `host:port`, `[v6]:port`, or `host` where there is a default port.

    Raises ValueError with what is wrong; never anything else.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or "]" in port_text or (":" in host and not host.startswith("[")):
        host, port_text = text, ""
    if not port_text:
        if default_port is None or text.endswith(":"):
            raise ValueError("no port")
        return Target(parse_host(host), default_port)
    if not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 5:
        raise ValueError("port is not a number")
    port = int(port_text)
    if not 0 < port < 65536:
        raise ValueError("port is not in 1..65535")
    return Target(parse_host(host), port)
