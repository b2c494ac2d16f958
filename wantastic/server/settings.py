"""How one server process is to run: checked values, made from the command line."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

DEFAULT_STATE = Path("/var/lib/wantastic-server")
KEY_FILE = "root.key"
DATABASE_FILE = "server.db"
ROOT_CERTIFICATE_FILE = "ca.pem"


class SettingsError(Exception):
    """A setting that cannot be; the text names setting, problem and remedy."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Lifetimes and intervals that the operator chooses."""

    token_lifetime_s: int = 86_400
    # How long after its expiry a token may still be refreshed: a router that was off for
    # a holiday comes back without a new enrolment.
    refresh_grace_s: int = 30 * 86_400
    poll_after_s: int = 300
    heartbeat_s: float = 30.0
    long_poll_limit_s: float = 55.0
    pending_retry_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @property
    def text(self) -> str:
        """Return host:port, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, setting: str) -> Address:
    """Read host:port or [host]:port."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not port.isdecimal() or int(port) > 65535 or not host:
        raise SettingsError(
            f"{setting}: {text!r} is not HOST:PORT; write 0.0.0.0:8443 or [::]:8443"
        )
    return Address(host, int(port))


@dataclass(frozen=True, slots=True)
class Forward:
    """A TCP port of the gateway's tunnel addresses, and the service that it stands for."""

    port: int
    target: Address


def parse_forward(text: str, setting: str) -> Forward:
    """Read PORT=ADDRESS:PORT."""
    port, _, target = text.partition("=")
    if port.isdecimal() and 0 < int(port) <= 65535 and target:
        found = parse_address(target, setting)
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(found.host)
            return Forward(int(port), found)
    raise SettingsError(f"{setting}: {text!r} is not PORT=ADDRESS:PORT; write 80=127.0.0.1:8080")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `serve` was told."""

    state: Path
    database: str
    listen: Address
    mtls_listen: Address | None
    http_listen: Address | None
    metrics_listen: Address | None
    hosts: tuple[str, ...]
    public_url: str
    tls_certificate: Path | None
    tls_key: Path | None
    insecure: bool
    gateway: str  # "", "wg:INTERFACE" or "device"
    gateway_host: str
    gateway_port: int
    gateway_tun: str
    gateway_forwards: tuple[Forward, ...]
    terms: Terms
    drain_s: float

    def check(self) -> None:
        """Refuse settings that contradict each other."""
        if self.insecure:
            for name, address in (
                ("--listen", self.listen),
                ("--http-listen", self.http_listen),
            ):
                if address is not None and not address.is_loopback:
                    raise SettingsError(
                        f"{name}: {address.text} is not loopback; "
                        "--insecure serves this machine only, leave it away for TLS"
                    )
            if self.mtls_listen is not None:
                raise SettingsError("--mtls-listen: needs TLS; leave --insecure away")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise SettingsError("--tls-cert and --tls-key: give both or neither")
        if self.gateway and self.gateway != "device" and not self.gateway.startswith("wg:"):
            raise SettingsError(f"--gateway: {self.gateway!r} is neither device nor wg:INTERFACE")
        if self.gateway_forwards and (self.gateway != "device" or self.gateway_tun):
            raise SettingsError(
                "--gateway-forward: is for --gateway device without --gateway-tun; "
                "elsewhere the kernel has the gateway's addresses, and services listen there"
            )
        ports = [forward.port for forward in self.gateway_forwards]
        if len(set(ports)) != len(ports):
            raise SettingsError("--gateway-forward: a port is given twice")
        if self.gateway and not self.gateway_host:
            raise SettingsError("--gateway-host: say under which name devices reach the gateway")
