"""A gateway that is an existing WireGuard interface, driven through `wg`.

The interface was made as the document says (ip link add, ip address add, wg set
private-key listen-port). Its peers belong to the server from then on: one that no device
has is removed. Keys go through standard input, never through arguments.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Mapping, Sequence

from wantastic.server.addresses import Pools
from wantastic.server.gateways import GatewayPeer
from wantastic.server.records import GatewayError, GatewayRecord

INTERFACE = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")
REMOVALS_AT_ONCE = 200
TIMEOUT_S = 20.0


class WgCommandGateway:
    """Speaks to one interface."""

    def __init__(self, interface: str, endpoint_host: str, name: str = "default") -> None:
        if not INTERFACE.fullmatch(interface):
            raise GatewayError(f"gateway: {interface!r} is no interface name")
        self._interface = interface
        self._endpoint_host = endpoint_host
        self._name = name

    async def start(self) -> GatewayRecord:
        """Read the interface's key and port."""
        public_key = (await self._wg("show", self._interface, "public-key")).strip()
        port = (await self._wg("show", self._interface, "listen-port")).strip()
        if public_key == "(none)":
            raise GatewayError(
                f"gateway: {self._interface} has no key; run: "
                f"wg set {self._interface} private-key FILE listen-port 51820"
            )
        return GatewayRecord(self._name, public_key, endpoint(self._endpoint_host, int(port)))

    async def set_networks(self, pools: Sequence[Pools]) -> None:
        """Addresses and routes of the interface are its administrator's."""

    async def peers(self) -> frozenset[str]:
        """Return the public keys that the interface has."""
        return frozenset((await self._wg("show", self._interface, "peers")).split())

    async def set_peers(self, peers: Sequence[GatewayPeer]) -> None:
        """Add peers or change them; allowed IPs are replaced, sessions are kept."""
        lines = []
        for peer in peers:
            lines += ["[Peer]", f"PublicKey={peer.public_key}"]
            lines += [f"PresharedKey={peer.preshared_key}"]
            lines += [f"AllowedIPs={','.join(peer.allowed_ips)}"] if peer.allowed_ips else []
        text = "\n".join(lines) + "\n"
        await self._wg("addconf", self._interface, "/dev/stdin", given=text)

    async def remove_peers(self, public_keys: Sequence[str]) -> None:
        """End the tunnels of peers."""
        for start in range(0, len(public_keys), REMOVALS_AT_ONCE):
            arguments: list[str] = []
            for key in public_keys[start : start + REMOVALS_AT_ONCE]:
                arguments += ["peer", key, "remove"]
            await self._wg("set", self._interface, *arguments)

    async def handshakes(self) -> Mapping[str, int]:
        """Return public key -> unix time of the last handshake."""
        lines = (await self._wg("show", self._interface, "latest-handshakes")).splitlines()
        pairs = (line.split("\t") for line in lines if "\t" in line)
        return {key: int(at_s) for key, at_s in pairs if at_s != "0"}

    async def close(self) -> None:
        """The interface is not ours: tunnels go on while the server is away."""

    async def _wg(self, *arguments: str, given: str = "") -> str:
        def work() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["wg", *arguments],
                input=given,
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_S,
            )

        try:
            done = await asyncio.to_thread(work)
        except FileNotFoundError:
            raise GatewayError("gateway: no `wg` in PATH; install wireguard-tools") from None
        except subprocess.TimeoutExpired:
            raise GatewayError(f"gateway: wg {arguments[0]} did not end") from None
        if done.returncode:
            raise GatewayError(f"gateway: wg {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


def endpoint(host: str, port: int) -> str:
    """Join a host and a port; an IPv6 address gets brackets."""
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{bracketed}:{port}"
