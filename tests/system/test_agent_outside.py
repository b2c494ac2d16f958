"""A default route into a dead tunnel: the control connection and names go beside it.

The control server and the name server stand behind the router's default route, and the
peer that has 0.0.0.0/0 and ::/0 never answers: whatever follows the tunnel's default route
is lost. With an internet of IPv4 only (and no IPv6 in the router), of IPv6 only, and of both.
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
from tests.support.agent import Agent, agent, host_state, wait_for
from tests.support.netns import Namespace

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not netns.available(), reason="needs root, ip and /dev/net/tun"),
]

V4, V6 = 4, 6
CONTROL = {V4: "198.51.100.1", V6: "2001:db8:100::1"}
DNS = {V4: "198.51.100.53", V6: "2001:db8:100::53"}
DEAD = {V4: "198.51.100.9", V6: "2001:db8:100::9"}
LINK = {V4: ("192.168.77.1/24", "192.168.77.2/24"), V6: ("fd77::1/64", "fd77::2/64")}
# Which versions the internet is reached by, and the gRPC library.
WORLDS = [
    ((V4,), "grpcio"),
    ((V4,), "grpclib"),
    ((V6,), "grpcio"),
    ((V6,), "grpclib"),
    ((V4, V6), "grpclib"),
]
DNS_SERVER = """
import json, socket, struct, sys
names = json.loads(sys.argv[2])
version = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
asked = socket.socket(version, socket.SOCK_DGRAM)
asked.bind((sys.argv[1], 53))
while True:
    query, peer = asked.recvfrom(4096)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack_from("!H", query, at + 1)[0]
    version = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
    address = names.get(".".join(labels).lower(), {}).get(str(kind))
    record = b""
    if address:
        data = socket.inet_pton(version, address)
        record = b"\\xc0\\x0c" + struct.pack("!HHIH", kind, 1, 5, len(data)) + data
    head = query[:2] + struct.pack("!5H", 0x8180, 1, 1 if address else 0, 0, 0)
    asked.sendto(head + query[12 : at + 5] + record, peer)
"""


def zone(versions: tuple[int, ...]) -> dict[str, dict[int, str]]:
    """Return what the name server knows: addresses by name and kind of record."""
    kinds = {V4: 1, V6: 28}
    found = {"control.test": CONTROL, "gateway.test": DEAD}
    return {name: {kinds[v]: places[v] for v in versions} for name, places in found.items()}


@dataclass
class Scene:
    """The internet in one namespace, a router behind it in the other."""

    cloud: Namespace
    router: Namespace
    state: Path
    versions: tuple[int, ...]

    def serve(self) -> None:
        """Run the control server; its gateway does not exist."""
        command = (sys.executable, "-m", "wantastic.server.main", "serve", "--json")
        options = ("--listen", "[::]:8443", "--host", "control.test")
        self.server = self.cloud.start(*command, *options, "--state", str(self.state))

    def reaches_control(self, version: int) -> bool:
        """Return whether an ordinary program of the router reaches the control server."""
        code = f"import socket; socket.create_connection(('{CONTROL[version]}', 8443), 2)"
        done = self.router.run(sys.executable, "-c", f"{code}; print('reached')", check=False)
        return "reached" in done

    def all_reach(self) -> bool:
        return all(self.reaches_control(version) for version in self.versions)

    def none_reaches(self) -> bool:
        return not any(self.reaches_control(version) for version in self.versions)

    def policy(self) -> str:
        """Return the router's rules and the tunnel's table, of both versions."""
        views = [(f"-{v}", *what) for v in self.versions for what in (("rule",), TABLE)]
        return "".join(self.router.run("ip", *view, check=False) for view in views)


TABLE = ("route", "show", "table", "51820")


@pytest.fixture
def scene(tmp_path: Path, versions: tuple[int, ...]) -> Iterator[Scene]:
    with netns.Lab("ctlout") as lab:
        cloud, router = lab.namespace("a"), lab.namespace("b")
        if V6 not in versions:
            # As a kernel without IPv6: nothing of it may be missed.
            router.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            router.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        lab.join(cloud, router, [LINK[version] for version in versions])
        for version in versions:
            for address in (CONTROL[version], DNS[version]):
                length = 32 if version == V4 else 128
                nodad = ("nodad",) if version == V6 else ()
                cloud.run("ip", "address", "add", f"{address}/{length}", "dev", "lo", *nodad)
            gateway = LINK[version][0].partition("/")[0]
            router.run("ip", f"-{version}", "route", "add", "default", "via", gateway)
        # `ip netns exec` shows this file as /etc/resolv.conf inside.
        etc = Path("/etc/netns") / router.name
        etc.mkdir(parents=True)
        try:
            server = DNS[versions[-1]]
            (etc / "resolv.conf").write_text(f"nameserver {server}\noptions timeout:1 attempts:1\n")
            cloud.start(sys.executable, "-c", DNS_SERVER, server, json.dumps(zone(versions)))
            state = tmp_path / "server"
            support.set_gateway(state)
            found = Scene(cloud, router, state, versions)
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


@pytest.mark.parametrize(("versions", "transport"), WORLDS)
def test_the_control_connection_does_not_need_the_tunnel(
    scene: Scene, tmp_path: Path, versions: tuple[int, ...], transport: str
) -> None:
    inside = {V4: "10.9.0.1/24", V6: "fd09::1/64"}
    dead = {
        "public_key": support.key(),
        "endpoint": "gateway.test",
        "allowed_ips": ["0.0.0.0/0", "::/0"],
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
        device.config["interface"]["addresses"] = [inside[version] for version in versions]
        wait_for(scene.all_reach, 20)
        before, policy = host_state(scene.router), scene.policy()
        device.start("-token-file", str(tmp_path / "token"))
        for version in versions:
            rules = scene.router.run("ip", f"-{version}", "rule")
            assert "not from all fwmark 0xca6c lookup 51820" in rules
            assert "lookup main suppress_prefixlength 0" in rules
            table = scene.router.run("ip", f"-{version}", *TABLE)
            assert table.startswith(f"default dev {device.name}")
        assert scene.none_reaches()

        # Enrolment, configuration and the stream, all by name, all beside the tunnel.
        wait_for(lambda: control(device, "mode") == "stream", 40)
        assert control(device, "address") in [
            f"[{CONTROL[v]}]:8443" if v == V6 else f"{CONTROL[v]}:8443" for v in versions
        ]
        # The peer's own name as well: its endpoint is known though it never answers.
        places = [f"[{DEAD[v]}]:51820" if v == V6 else f"{DEAD[v]}:51820" for v in versions]
        wait_for(lambda: any(p in str(device.document()["peers"]) for p in places), 20)

        # The server goes and comes back; the connection is made anew, beside the tunnel.
        scene.cloud.stop(scene.server, 15)
        wait_for(lambda: control(device, "mode") != "stream", 20)
        scene.serve()
        wait_for(lambda: control(device, "mode") == "stream", 60)
        assert scene.none_reaches()

        # The default route comes while the connection stands, and goes again.
        device.config["interface"]["default_route"] = False
        device.reload()
        assert scene.all_reach()
        wait_for(lambda: control(device, "mode") == "stream", 60)
        device.config["interface"]["default_route"] = True
        device.reload()
        assert scene.none_reaches()
        contact = device.document()["control"]["last_contact_unix_s"]
        wait_for(
            lambda: (
                control(device, "mode") == "stream"
                and device.document()["control"]["last_contact_unix_s"] > contact
            ),
            90,
        )

        # A cold start with nothing but what is stored.
        assert device.stop() == 0
        device.start()
        wait_for(lambda: control(device, "mode") == "stream", 40)
        assert scene.none_reaches()
        assert device.stop() == 0
        assert "Traceback" not in device.log
        # Not a rule, a route or a table of either version is left.
        assert (host_state(scene.router), scene.policy()) == (before, policy)
        assert scene.all_reach()
