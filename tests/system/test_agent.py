"""The real agent with a configuration, against wireguard-go: up, reload, down, 1970."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import netns, peers
from tests.support.agent import Agent, agent, host_state, interface_name, wait_for
from tests.support.configs import DOCUMENT
from tests.support.netns import Namespace
from wantastic.config.keys import encode_key, public_key_of
from wantastic.store.store import Store

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not netns.available(), reason="needs root, ip and /dev/net/tun"),
]

FAKE_CLOCK = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
Spaces = tuple[Namespace, Namespace]


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with netns.pair("wdev") as (_, left, right):
        yield left, right


@pytest.fixture
def hub(spaces: Spaces) -> Iterator[peers.Node]:
    """The server: Debian's wireguard-go at 192.168.77.2, 10.9.0.2 inside."""
    implementation = peers.wireguard_go_debian()
    assert implementation
    node = peers.start(
        implementation, spaces[1], interface_name(), ("10.9.0.2/24", "fd09::2/64", "10.8.0.1/32")
    )
    yield node
    node.stop()


def server(hub: peers.Node, **more: Any) -> dict[str, Any]:
    allowed = {"allowed_ips": ["10.9.0.0/24", "fd09::/64"]}
    return {"endpoint": "192.168.77.2", "public_key": hub.public_key} | allowed | more


def admit(hub: peers.Node, device: Agent) -> str:
    """Make the agent a peer of the server, by the key that it keeps; return that key."""
    identity = Store(device.config["state_dir"]).make_identity()
    key = encode_key(public_key_of(identity))
    hub.add_peer(key, "10.9.0.1/32,fd09::1/128")
    return key


def ping(device: Agent, address: str = "10.9.0.2", seconds: int = 8) -> bool:
    words = ("-c", "1", "-w", str(seconds), "-i", "0.3", address)
    answer = device.space.run("ping", *words, check=False)
    return re.search(r"[1-9]\d* received", answer) is not None


def handshake(device: Agent) -> int:
    return int(device.document()["peers"][0]["last_handshake_unix_ns"] or 0)


def test_the_whole_life(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    before = host_state(spaces[0])
    with agent(spaces[0], tmp_path, server(hub)) as device:
        admit(hub, device)
        device.start()
        assert ping(device)
        assert ping(device, "fd09::2")

        # What -status tells.
        found = device.document()
        assert found["healthy"]
        assert found["interface"]["listen_port"] == 51820
        (peer,) = found["peers"]
        assert peer["state"] == "connected"
        assert peer["endpoint"] == "192.168.77.2:51820"
        assert peer["rx_bytes"] > 0
        assert {r["network"]: r["routed"] for r in peer["allowed_ips"]} == {
            "10.9.0.0/24": True,
            "fd09::/64": True,
        }
        text = device.status()
        assert text.returncode == 0
        assert "peer server: connected" in text.stdout
        assert all(len(line) <= 80 for line in text.stdout.splitlines())
        socket = tmp_path / "run" / f"{device.name}.sock"
        assert socket.stat().st_mode & 0o777 == 0o600

        # The same file again drops nothing; another one does what differs only.
        session = handshake(device)
        device.reload()
        assert "changes=0" in device.log
        device.config["interface"] |= {"mtu": 1380, "addresses": ["10.9.0.1/24", "fd09::1/64"]}
        device.config["peers"] = [
            {"public_key": peers.key_pair()[1], "allowed_ips": ["10.44.0.0/16"]}
        ]
        device.reload()
        assert "mtu 1380" in device.space.run("ip", "link", "show", device.name)
        assert "10.44.0.0/16" in device.space.run("ip", "route")
        assert ping(device)
        # The clock that it is counted from may be slewed: the same moment, nearly.
        assert abs(handshake(device) - session) < 50_000_000
        device.config["peers"] = []
        device.reload()
        assert "10.44.0.0/16" not in device.space.run("ip", "route")
        assert len(device.document()["peers"]) == 1

        # A wrong file changes nothing and is a condition.
        device.config["interface"]["mtu"] = 5
        device.reload()
        assert ping(device)
        unhealthy = device.status("--json")
        assert unhealthy.returncode == 6
        codes = [c["code"] for c in json.loads(unhealthy.stdout)["conditions"]]
        assert codes == ["reload_failed"]
        device.config["interface"]["mtu"] = 1380
        device.reload()
        assert device.document()["healthy"]

        assert device.stop() == 0
        assert not socket.exists()
        assert not Path(f"/var/run/wireguard/{device.name}.sock").exists()
        assert host_state(spaces[0]) == before
        assert device.status().returncode == 5


def test_the_identity_is_kept(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    with agent(spaces[0], tmp_path, server(hub)) as device:
        device.start()
        key = admit(hub, device)
        assert key == device.document()["interface"]["public_key"]
        assert ping(device)
        assert device.stop(signal.SIGINT) == 0
        device.start()
        assert device.document()["interface"]["public_key"] == key
        assert ping(device)
        identity = tmp_path / "state" / "identity"
        assert identity.stat().st_mode & 0o777 == 0o600
        assert identity.parent.stat().st_mode & 0o777 == 0o700
        # A killed agent leaves sockets; the next one is not stopped by them.
        assert device.process
        device.process.kill()
        device.process.wait()
        device.start()
        assert ping(device)


def test_the_default_route_and_its_end(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    before = host_state(spaces[0])
    everything = server(hub, allowed_ips=["0.0.0.0/0", "::/0"])
    with agent(spaces[0], tmp_path, everything, default_route=True) as device:
        admit(hub, device)
        device.start()
        # 10.8.0.1 is reached by the default route only; the server itself beside the tunnel.
        assert ping(device, "10.8.0.1")
        assert ping(device, "192.168.77.2")
        assert "51820" in device.space.run("ip", "rule")
        device.config["interface"]["default_route"] = False
        device.reload()
        assert "51820" not in device.space.run("ip", "rule")
        assert not ping(device, "10.8.0.1", seconds=1)
        device.config["interface"]["default_route"] = True
        device.reload()
        assert ping(device, "10.8.0.1")
        assert device.stop() == 0
        assert host_state(spaces[0]) == before
        # Killed: the rules stay, and the next run takes them over and away.
        device.start()
        assert device.process
        device.process.kill()
        device.process.wait()
        device.start()
        assert device.space.run("ip", "rule").count("suppress_prefixlength") == 1
        assert ping(device, "10.8.0.1")
        assert device.stop() == 0
        assert "51820" not in device.space.run("ip", "rule")
        assert "suppress" not in device.space.run("ip", "rule")


def test_another_address_costs_no_route(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    """Linux takes routes, and other addresses, along with an IPv4 address that goes."""
    everything = server(hub, allowed_ips=["0.0.0.0/0", "::/0", "10.20.0.0/16"])
    with agent(spaces[0], tmp_path, everything, default_route=True) as device:
        device.start()

        def routes() -> tuple[list[str], list[str]]:
            shown = device.space.run("ip", "-4", "route", "show", "table", "51820")
            main = device.space.run("ip", "-4", "route", "show", "dev", device.name)
            return [line.split()[0] for line in shown.splitlines()], re.findall(r"10\.20\S+", main)

        def addresses() -> list[str]:
            shown = device.space.run("ip", "-4", "address", "show", "dev", device.name)
            return sorted(re.findall(r"inet (\S+)", shown))

        before = routes()
        assert before == (["default"], ["10.20.0.0/16"])
        several = ["10.9.0.1/24", "10.9.0.5/24", "10.9.0.6/24"]
        for wanted in (several, several[1:], ["10.7.0.1/32"], ["fd09::1/64"], several[:1]):
            device.config["interface"]["addresses"] = wanted
            device.reload()
            wait_for(lambda: addresses() == [a for a in wanted if ":" not in a])  # noqa: B023
            assert routes() == before, wanted
        assert device.document()["conditions"] == []


@pytest.mark.skipif(FAKE_CLOCK is None, reason="needs libfaketime")
def test_a_boot_at_1970_handshakes_by_the_saved_floor(
    spaces: Spaces, hub: peers.Node, tmp_path: Path
) -> None:
    with agent(spaces[0], tmp_path, server(hub)) as device:
        admit(hub, device)
        device.start()
        assert ping(device)
        device.stop()
        device.environ = {
            "LD_PRELOAD": str(FAKE_CLOCK),
            "FAKETIME": "@1970-01-01 00:00:10",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        device.start()
        assert "clock_wrong" in device.log
        assert ping(device)
        device.stop()
        # Without the floor the server takes our initiations for replays.
        for file in (tmp_path / "state").glob("state*"):
            file.unlink()
        device.start()
        assert not ping(device, seconds=3)


def test_the_taken_port(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    hold = "import socket,time; s=socket.socket(2,2); s.bind(('',51820)); time.sleep(60)"
    holder = spaces[0].start(sys.executable, "-c", hold)
    wait_for(lambda: ":CA6C" in spaces[0].run("cat", "/proc/net/udp"))
    with agent(spaces[0], tmp_path, server(hub)) as device:
        admit(hub, device)
        device.start()
        found = device.document()
        assert found["interface"]["listen_port"] not in (0, 51820)
        assert [c["code"] for c in found["conditions"]] == ["listen_port_taken"]
        assert ping(device)
        device.stop()
        device.config["interface"]["strict_port"] = True
        device.start(wait=False)
        assert device.process
        assert device.process.wait(10) == 4
        assert "strict_port" in device.log
    spaces[0].stop(holder)


def test_setconf_without_a_key_is_mended_by_a_reload(
    spaces: Spaces, hub: peers.Node, tmp_path: Path
) -> None:
    with agent(spaces[0], tmp_path, server(hub)) as device:
        key = admit(hub, device)
        device.start()
        empty = tmp_path / "empty.conf"
        empty.write_text("[Interface]\n")
        device.space.run("wg", "setconf", device.name, str(empty))
        assert device.space.run("wg", "show", device.name, "private-key").strip() == "(none)"
        assert [c["code"] for c in device.document()["conditions"]] == ["no_private_key"]
        assert not device.document()["peers"]
        device.reload()
        assert device.document()["interface"]["public_key"] == key
        assert device.document()["healthy"]
        assert ping(device)


def test_the_interface_deleted_by_hand_ends_the_agent(
    spaces: Spaces, hub: peers.Node, tmp_path: Path
) -> None:
    with agent(spaces[0], tmp_path, server(hub)) as device:
        device.start()
        device.space.run("ip", "link", "del", device.name)
        assert device.process
        assert device.process.wait(5) == 0


def test_a_removed_socket_is_made_again(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    with agent(spaces[0], tmp_path, server(hub)) as device:
        device.start()
        Path(f"/var/run/wireguard/{device.name}.sock").unlink()
        wait_for(lambda: device.space.run("wg", "show", device.name, check=False))
        assert not device.ended()


def test_a_name_that_moves_is_followed(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    """The first address of the name is dead; the tunnel comes by the second."""
    etc = Path("/etc/netns") / spaces[0].name
    etc.mkdir(parents=True)
    try:
        (etc / "hosts").write_text("192.168.77.99 hub.test\n192.168.77.2 hub.test\n")
        with agent(spaces[0], tmp_path, server(hub, endpoint="hub.test")) as device:
            admit(hub, device)
            device.start()
            wait_for(lambda: handshake(device), 30)
            assert ping(device)
            wait_for(lambda: b"192.168.77.2" in (tmp_path / "state" / "state").read_bytes())
    finally:
        shutil.rmtree(etc)


def test_another_address_of_our_own_is_followed(
    spaces: Spaces, hub: peers.Node, tmp_path: Path
) -> None:
    """The WAN hands out another address: the tunnel is back without anybody's traffic."""
    with agent(spaces[0], tmp_path, server(hub), bind_interface="eth0") as device:
        key = admit(hub, device)
        device.start()
        assert ping(device)
        spaces[0].run("ip", "addr", "add", "192.168.77.3/24", "dev", "eth0")
        spaces[0].run("ip", "addr", "del", "192.168.77.1/24", "dev", "eth0")
        spaces[0].run("ip", "addr", "add", "192.168.77.3/24", "dev", "eth0", check=False)
        wait_for(lambda: f"{key}\t192.168.77.3:" in hub.wg("show", hub.interface, "endpoints"))
        assert ping(device)


def test_a_resolver_that_hangs_does_not_hold_up_the_end(
    spaces: Spaces, hub: peers.Node, tmp_path: Path
) -> None:
    etc = Path("/etc/netns") / spaces[0].name
    etc.mkdir(parents=True)
    try:
        (etc / "resolv.conf").write_text("nameserver 192.168.77.2\noptions timeout:30\n")
        spaces[1].run(
            "nft",
            "add table inet t; add chain inet t c "
            "{ type filter hook input priority 0; }; add rule inet t c udp dport 53 drop",
        )
        with agent(spaces[0], tmp_path, server(hub, endpoint="hub.test")) as device:
            device.start()
            time.sleep(0.5)
            before = time.monotonic()
            assert device.stop() == 0
            assert time.monotonic() - before < 3
    finally:
        shutil.rmtree(etc)


def test_the_document_s_file_as_printed(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    """Every field as the document has it; only the keys are real, and the name is known here."""
    etc = Path("/etc/netns") / spaces[0].name
    etc.mkdir(parents=True)
    private, public = peers.key_pair()
    text = DOCUMENT.replace("client-private-key", private).replace("client-public-key", public)
    config = json.loads(text.replace("server-public-key", hub.public_key))
    hub.add_peer(public, "10.0.0.2/32")
    hub.space.run("ip", "route", "add", "10.0.0.2/32", "dev", hub.interface)
    try:
        (etc / "hosts").write_text("192.168.77.2 wg.wantastic.app\n")
        with agent(spaces[0], tmp_path, {}) as device:
            device.config = config | {"state_dir": str(tmp_path / "state")}
            device.config["interface"]["name"] = interface_name()
            device.start()
            found = device.document()
            assert found["interface"]["public_key"] == public
            # Nothing is listed, so nothing is routed: the host keeps its own way out.
            assert not any(r["routed"] for r in found["peers"][0]["allowed_ips"])
            assert device.name not in device.space.run("ip", "route")
            device.space.run("ip", "route", "add", "10.9.0.0/24", "dev", device.name)
            assert ping(device)
    finally:
        shutil.rmtree(etc)


def test_a_full_disk_and_few_descriptors(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    netns.sh("mount", "-t", "tmpfs", "-o", "size=32k,mode=0700", "tmpfs", str(state))
    try:
        with agent(spaces[0], tmp_path, server(hub)) as device:
            admit(hub, device)
            with pytest.raises(OSError, match="No space"):
                (state / "filler").write_bytes(bytes(1 << 20))
            device.limits = ("prlimit", "--nofile=64:64")
            device.start()
            assert ping(device)
            wait_for(lambda: "state_unsaved" in str(device.document()["conditions"]))
            (state / "filler").unlink()
            device.reload()
            assert ping(device)
            assert device.stop() == 0
            # A new device that cannot keep its identity does not start.
            for file in state.iterdir():
                file.unlink()
            with pytest.raises(OSError, match="No space"):
                (state / "filler").write_bytes(bytes(1 << 20))
            device.start(wait=False)
            assert device.process
            assert device.process.wait(10) == 8
            assert "Free some space" in device.log
    finally:
        netns.sh("umount", str(state))


# -- how it ends when it cannot begin --


def run(folder: Path, *flags: str, config: dict[str, Any] | str | None = None) -> tuple[int, str]:
    device = Agent(None, folder, {})  # type: ignore[arg-type]
    path = folder / "c.json"
    if config is not None:
        path.touch(mode=0o600)
        path.write_text(config if isinstance(config, str) else json.dumps(config))
    done = device.program(*(f.replace("CONFIG", str(path)) for f in flags))
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "config", "status", "words"),
    [
        (("-config", "CONFIG"), "{", 3, ["c.json", "line 1"]),
        (("-config", "CONFIG", "-check"), {"threads": 0}, 3, ["threads", "1 to 16"]),
        (("-config", "CONFIG", "-check"), {}, 0, ["ok"]),
        (("-config", "/nonexistent"), None, 3, ["cannot be read"]),
        (("-config", "CONFIG"), {"state_dir": "/proc/none"}, 8, ["state_dir"]),
        (("-bogus",), None, 2, ["-bogus", "Usage"]),
        ((), None, 2, ["nothing to do"]),
        (("-status", "-interface", "none"), None, 5, ["no agent answers"]),
    ],
)
def test_exit_statuses(
    tmp_path: Path, flags: tuple[str, ...], config: Any, status: int, words: list[str]
) -> None:
    if isinstance(config, dict) and config.get("state_dir") is None and "-check" not in flags:
        config["state_dir"] = str(tmp_path / "state")
    found, text = run(tmp_path, *flags, config=config)
    assert found == status, text
    for word in words:
        assert word in text


def test_no_secret_is_logged_at_any_level(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    psk = subprocess.run(["wg", "genpsk"], capture_output=True, text=True, check=True).stdout
    with agent(spaces[0], tmp_path, server(hub, preshared_key=psk.strip())) as device:
        private, public = peers.key_pair()
        device.config |= {"private_key": private, "public_key": public}
        device.config["auth"] = {"token": "very-secret-token"}
        key_file = tmp_path / "psk"
        key_file.write_text(psk)
        hub.add_peer(public, "10.9.0.1/32", "", "preshared-key", str(key_file))
        device.start("-v", "-v")
        assert ping(device)
        device.reload()
        shown = device.status().stdout + device.status("--json").stdout
        device.stop()
    for secret in (private, psk.strip(), "very-secret-token"):
        assert secret not in device.log
        assert secret not in shown
    assert public not in device.log


def test_the_first_proxy_comes_by_a_reload(spaces: Spaces, hub: peers.Node, tmp_path: Path) -> None:
    with agent(spaces[0], tmp_path, server(hub)) as device:
        admit(hub, device)
        device.start()
        assert ping(device)
        session = handshake(device)
        assert device.document()["interface"]["mode"] == "tun"
        page = spaces[1].start(sys.executable, "-m", "http.server", "-b", "10.9.0.2", "8000")
        device.config["proxy"] = {"socks5": {}}
        device.reload()
        fetch = ("curl", "-sS", "-m", "5", "--socks5", "127.0.0.1:1080", "http://10.9.0.2:8000/")
        wait_for(lambda: "Directory listing" in device.space.run(*fetch, check=False))
        found = device.document()
        assert (found["interface"]["mode"], found["conditions"]) == ("both", [])
        # The host's own way stays, and so does the session.
        assert ping(device)
        assert abs(handshake(device) - session) < 10**6
        spaces[1].stop(page)
        assert device.stop() == 0
