"""A default route into a dead tunnel: the control connection and names go beside it.

The control server and the name server stand behind the router's default route, and the
peer that has 0.0.0.0/0 never answers: whatever follows the tunnel's default route is lost.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import netns
from tests.support import server as support
from tests.support.agent import Agent, agent, wait_for
from tests.support.netns import Namespace

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not netns.available(), reason="needs root, ip and /dev/net/tun"),
]

CONTROL, DNS, DEAD = "198.51.100.1", "198.51.100.53", "198.51.100.9"
NAMES = {"control.test": CONTROL, "gateway.test": DEAD}
DNS_SERVER = """
import json, socket, struct, sys
names = json.loads(sys.argv[2])
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.bind((sys.argv[1], 53))
while True:
    query, peer = asked.recvfrom(4096)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack_from("!H", query, at + 1)[0]
    address = names.get(".".join(labels).lower()) if kind == 1 else None
    record = b""
    if address:
        record = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(address)
    head = query[:2] + struct.pack("!5H", 0x8180, 1, 1 if address else 0, 0, 0)
    asked.sendto(head + query[12 : at + 5] + record, peer)
"""
UNMARKED = f"import socket; socket.create_connection(('{CONTROL}', 8443), 2)"


@dataclass
class Scene:
    """The internet in one namespace, a router behind it in the other."""

    cloud: Namespace
    router: Namespace
    state: Path

    def serve(self) -> None:
        """Run the control server; its gateway does not exist."""
        command = (sys.executable, "-m", "wantastic.server.main", "serve", "--json")
        options = ("--listen", f"{CONTROL}:8443", "--host", "control.test")
        self.server = self.cloud.start(*command, *options, "--state", str(self.state))

    def reaches_control(self) -> bool:
        """Return whether an ordinary program of the router reaches the control server."""
        code = self.router.run(sys.executable, "-c", f"{UNMARKED}; print('reached')", check=False)
        return "reached" in code


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with netns.pair("ctlout") as (_, cloud, router):
        for address in (CONTROL, DNS):
            cloud.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        router.run("ip", "route", "add", "default", "via", "192.168.77.1")
        # `ip netns exec` shows this file as /etc/resolv.conf inside.
        etc = Path("/etc/netns") / router.name
        etc.mkdir(parents=True)
        try:
            (etc / "resolv.conf").write_text(f"nameserver {DNS}\noptions timeout:1 attempts:1\n")
            cloud.start(sys.executable, "-c", DNS_SERVER, DNS, json.dumps(NAMES))
            state = tmp_path / "server"
            support.set_gateway(state)
            found = Scene(cloud, router, state)
            found.serve()
            yield found
        finally:
            shutil.rmtree(etc)
            with contextlib.suppress(OSError):
                etc.parent.rmdir()


def control(device: Agent, name: str) -> object:
    with contextlib.suppress(ValueError):
        return device.document().get("control", {}).get(name)
    return None


@pytest.mark.parametrize("transport", ["grpcio", "grpclib"])
def test_the_control_connection_does_not_need_the_tunnel(
    scene: Scene, tmp_path: Path, transport: str
) -> None:
    dead = {
        "public_key": support.key(),
        "endpoint": "gateway.test",
        "allowed_ips": ["0.0.0.0/0"],
        "persistent_keepalive": 5,
    }
    with agent(scene.router, tmp_path, {}, default_route=True) as device:
        del device.config["server"]
        wait_for(lambda: (scene.state / "ca.pem").exists(), 30)
        (tmp_path / "token").write_text(support.new_token(scene.state))
        device.config |= {
            "peers": [dead],
            "auth": {
                "server_url": "control.test:8443",
                "ca_file": str(scene.state / "ca.pem"),
                "transport": transport,
            },
            "log": {"level": "trace"},
        }
        assert scene.reaches_control()
        device.start("-token-file", str(tmp_path / "token"))
        assert "not from all fwmark" in scene.router.run("ip", "rule")
        assert not scene.reaches_control()

        # Enrolment, configuration and the stream, all by name, all beside the tunnel.
        wait_for(lambda: control(device, "mode") == "stream", 40)
        assert control(device, "address") == f"{CONTROL}:8443"
        # The peer's own name as well: its endpoint is known though it never answers.
        wait_for(lambda: f"{DEAD}:51820" in str(device.document()["peers"]), 20)

        # The server goes and comes back; the connection is made anew, beside the tunnel.
        scene.cloud.stop(scene.server, 15)
        wait_for(lambda: control(device, "mode") != "stream", 20)
        scene.serve()
        wait_for(lambda: control(device, "mode") == "stream", 60)
        assert not scene.reaches_control()

        # The default route comes while the connection stands, and goes again.
        device.config["interface"]["default_route"] = False
        device.reload()
        assert scene.reaches_control()
        wait_for(lambda: control(device, "mode") == "stream", 60)
        device.config["interface"]["default_route"] = True
        device.reload()
        assert not scene.reaches_control()
        before = device.document()["control"]["last_contact_unix_s"]
        wait_for(
            lambda: (
                control(device, "mode") == "stream"
                and device.document()["control"]["last_contact_unix_s"] > before
            ),
            90,
        )

        # A cold start with nothing but what is stored.
        assert device.stop() == 0
        device.start()
        wait_for(lambda: control(device, "mode") == "stream", 40)
        assert not scene.reaches_control()
        assert device.stop() == 0
        assert "Traceback" not in device.log
        assert scene.reaches_control()
