"""Debian's wg and wg-quick against the real program in wireguard-go's form."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import netns, peers
from tests.support.agent import PROGRAM, host_state, interface_name, wait_for
from tests.support.netns import Namespace
from tests.support.peers import ROOT, Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not netns.available(), reason="needs root, ip and /dev/net/tun"),
]


@pytest.fixture
def space() -> Iterator[Namespace]:
    with netns.Lab("wgt") as lab:
        yield lab.namespace("a")


@pytest.fixture
def node(space: Namespace) -> Iterator[Node]:
    found = peers.start(peers.ours(), space, interface_name(), ("10.5.0.1/24",), port=7777)
    yield found
    found.stop()


def fields(node: Node, what: str) -> list[list[str]]:
    return [line.split("\t") for line in node.wg("show", node.interface, what).splitlines()]


def test_show_and_set(node: Node, tmp_path: Path) -> None:
    public = peers.key_pair()[1]
    psk = tmp_path / "psk"
    psk.write_text(node.space.run("wg", "genpsk"))
    node.add_peer(
        public,
        "10.6.0.0/16,fd06::/64",
        "[2001:db8::1]:99",
        *("persistent-keepalive", "25", "preshared-key", str(psk)),
    )
    node.wg("set", node.interface, "fwmark", "0x1234")
    assert node.wg("show", node.interface, "listen-port").strip() == "7777"
    assert node.wg("show", node.interface, "fwmark").strip() == "0x1234"
    assert node.wg("show", node.interface, "public-key").strip() == node.public_key
    assert fields(node, "endpoints") == [[public, "[2001:db8::1]:99"]]
    assert fields(node, "persistent-keepalive") == [[public, "25"]]
    assert fields(node, "preshared-keys") == [[public, psk.read_text().strip()]]
    (found,) = fields(node, "allowed-ips")
    assert set(found[1].split(" ")) == {"10.6.0.0/16", "fd06::/64"}
    # A range goes to whom it was given last.
    other = peers.key_pair()[1]
    node.add_peer(other, "10.6.0.0/16")
    assert dict(fields(node, "allowed-ips")) == {public: "fd06::/64", other: "10.6.0.0/16"}
    node.wg("set", node.interface, "peer", other, "remove")
    assert [row[0] for row in fields(node, "allowed-ips")] == [public]
    dump = node.wg("show", node.interface, "dump").splitlines()
    assert dump[0].split("\t") == [node.private_key, node.public_key, "7777", "0x1234"]
    assert len(dump) == 2
    assert node.interface in node.wg("show", "interfaces")


def test_setconf_syncconf_showconf(node: Node, tmp_path: Path) -> None:
    kept, gone = peers.key_pair()[1], peers.key_pair()[1]
    file = tmp_path / "wg.conf"
    head = f"[Interface]\nPrivateKey = {node.private_key}\nListenPort = 7778\n"
    peer = "[Peer]\nPublicKey = {}\nAllowedIPs = {}\nEndpoint = 192.0.2.1:5\n"
    file.write_text(head + peer.format(kept, "10.6.0.0/16") + peer.format(gone, "10.7.0.0/16"))
    node.wg("setconf", node.interface, str(file))
    assert {row[0] for row in fields(node, "peers")} == {kept, gone}
    assert node.wg("show", node.interface, "listen-port").strip() == "7778"
    file.write_text(head + peer.format(kept, "10.6.0.0/16, 10.8.0.0/16"))
    node.wg("syncconf", node.interface, str(file))
    assert dict(fields(node, "allowed-ips")) == {kept: "10.6.0.0/16 10.8.0.0/16"}
    shown = node.wg("showconf", node.interface)
    for line in (f"PrivateKey = {node.private_key}", "ListenPort = 7778", f"PublicKey = {kept}"):
        assert line in shown
    # What showconf prints makes the same device again.
    file.write_text(shown)
    node.wg("setconf", node.interface, str(file))
    assert node.wg("showconf", node.interface) == shown


def test_setconf_without_a_private_key_takes_it_away(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "wg.conf"
    file.write_text("[Interface]\nListenPort = 7779\n")
    node.wg("setconf", node.interface, str(file))
    assert node.wg("show", node.interface, "private-key").strip() == "(none)"
    assert node.wg("show", node.interface, "listen-port").strip() == "7779"


def test_hundreds_of_peers(node: Node, tmp_path: Path) -> None:
    keys = [os.urandom(32) for _ in range(500)]
    import base64

    text = f"[Interface]\nPrivateKey = {node.private_key}\nListenPort = 7777\n"
    for number, key in enumerate(keys):
        text += f"[Peer]\nPublicKey = {base64.b64encode(key).decode()}\n"
        text += f"AllowedIPs = 10.{number // 256}.{number % 256}.0/24, fd00:{number:x}::/32\n"
        text += f"Endpoint = 192.0.2.{number % 250 + 1}:{number + 1}\nPersistentKeepalive = 0\n"
    file = tmp_path / "wg.conf"
    file.write_text(text)
    node.wg("setconf", node.interface, str(file))
    shown = fields(node, "dump")
    assert len(shown) == 501
    assert {row[0] for row in shown[1:]} == {base64.b64encode(k).decode() for k in keys}
    assert all(len(row[3].split(",")) == 2 for row in shown[1:])


def test_a_slow_and_split_client(node: Node) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(f"/var/run/wireguard/{node.interface}.sock")
        for piece in (b"g", b"et=1", b"\n", b"\nset=1\nfwm", b"ark=5\n\n"):
            client.sendall(piece)
            time.sleep(0.02)
        answer = b""
        while answer.count(b"errno=") < 2:
            answer += client.recv(100)
        assert answer.endswith(b"errno=0\n\nerrno=0\n\n")
        client.sendall(b"set=1\nlisten_port=99999\n\n")
        assert client.recv(100) == b"errno=-22\n\n"
    assert node.wg("show", node.interface, "fwmark").strip() == "0x5"


def test_the_socket_is_for_its_owner_only(node: Node) -> None:
    path = Path(f"/var/run/wireguard/{node.interface}.sock")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["socket", "link", "TERM", "INT"])
def test_each_way_to_end_an_interface(node: Node, how: str) -> None:
    path = Path(f"/var/run/wireguard/{node.interface}.sock")
    if how == "socket":
        path.unlink()
    elif how == "link":
        node.space.run("ip", "link", "del", node.interface)
    else:
        node.process.send_signal(getattr(signal, f"SIG{how}"))
    assert node.process.wait(6) == 0
    assert not path.exists()
    assert node.interface not in node.space.run("ip", "link")


def test_a_second_one_of_the_same_name_is_refused(node: Node) -> None:
    command = node.space.command(*PROGRAM, "-f", node.interface)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 4
    assert node.interface in done.stderr
    assert node.wg("show", node.interface)


def test_it_goes_into_the_background_by_itself(space: Namespace) -> None:
    """The command returns once the socket serves; stdout is let go of."""
    name = interface_name()
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        space.command(*PROGRAM, name),
        env=environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "interface" in space.run("wg", "show", name)
    space.run("ip", "link", "del", name)
    wait_for(lambda: not Path(f"/var/run/wireguard/{name}.sock").exists())


def test_a_handed_over_tun_descriptor(space: Namespace) -> None:
    """WG_TUN_FD and WG_UAPI_FD, as a parent hands them to wireguard-go."""
    name = interface_name()
    opener = f"""
import fcntl, os, socket, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"{name}", 0x0001 | 0x1000))
uapi = socket.socket(socket.AF_UNIX)
uapi.bind("/var/run/wireguard/{name}.sock")
uapi.listen()
for fd in (tun, uapi.fileno()):
    os.set_inheritable(fd, True)
os.environ |= {{"WG_TUN_FD": str(tun), "WG_UAPI_FD": str(uapi.fileno())}}
os.execv(sys.argv[1], sys.argv[1:])
"""
    python = subprocess.run(
        ["which", "python3"], capture_output=True, text=True, check=True
    ).stdout.strip()
    Path("/var/run/wireguard").mkdir(exist_ok=True)
    process = space.start(python, "-c", opener, *PROGRAM, "-f", name, env={"PYTHONPATH": str(ROOT)})
    wait_for(lambda: name in space.run("wg", "show", name, check=False))
    space.run("wg", "set", name, "listen-port", "7780")
    space.run("ip", "link", "set", name, "up")
    wait_for(lambda: ":1E64" in space.run("cat", "/proc/net/udp"))
    space.stop(process)
    assert process.returncode == 0
    assert not Path(f"/var/run/wireguard/{name}.sock").exists()


def test_a_device_that_is_moved_to_another_namespace() -> None:
    """As for a container: the sockets stay here, the interface is set up there."""
    with netns.pair("wgm") as (lab, left, right):
        inside = lab.namespace("c")
        a, b = peers.tunnel(peers.ours(), peers.ours(), (left, right))
        try:
            a.space.run("ping", "-c", "1", "-W", "5", "10.9.0.2")
            left.run("ip", "link", "set", a.interface, "netns", inside.name)
            inside.run("ip", "addr", "add", "10.9.0.1/24", "dev", a.interface)
            inside.run("ip", "link", "set", a.interface, "mtu", "1500", "up")
            b.space.run("ip", "link", "set", b.interface, "mtu", "1500")
            ping = ("ping", "-c", "1", "-W", "1", "-M", "do", "10.9.0.2")
            wait_for(lambda: "1 received" in inside.run(*ping, check=False))
            # Seen up there, its MTU is taken over, and it is followed down and up.
            time.sleep(2.5)
            assert "1 received" in inside.run(*ping, "-s", "1472")
            inside.run("ip", "link", "set", a.interface, "down")
            wait_for(lambda: ":CA6C" not in left.run("cat", "/proc/net/udp"))
            inside.run("ip", "link", "set", a.interface, "up")
            wait_for(lambda: ":CA6C" in left.run("cat", "/proc/net/udp"), 1)
            wait_for(lambda: "1 received" in inside.run(*ping, check=False))
        finally:
            a.stop()
            b.stop()


# -- wg-quick --


@pytest.mark.skipif(Path("/sys/module/wireguard").exists(), reason="wg-quick takes the kernel's")
def test_wg_quick_brings_it_up_and_down(tmp_path: Path) -> None:
    with netns.pair("wgq") as (_, left, right):
        hub = peers.start(peers.ours(), right, interface_name(), ("10.9.0.2/24",))
        private, public = peers.key_pair()
        hub.add_peer(public, "10.9.0.1/32")
        name = interface_name()
        config = tmp_path / f"{name}.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"[Interface]\nPrivateKey = {private}\nAddress = 10.9.0.1/32\nMTU = 1400\n"
            f"[Peer]\nPublicKey = {hub.public_key}\nAllowedIPs = 0.0.0.0/0\n"
            "Endpoint = 192.168.77.2:51820\n"
        )
        program = tmp_path / "wantasticd"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {" ".join(PROGRAM)} "$@"\n')
        program.chmod(0o755)
        environ = os.environ | {
            "WG_QUICK_USERSPACE_IMPLEMENTATION": str(program),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        }
        before = host_state(left)

        def quick(action: str) -> None:
            done = subprocess.run(
                left.command("wg-quick", action, str(config)),
                env=environ,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr

        quick("up")
        try:
            assert "mtu 1400" in left.run("ip", "link", "show", name)
            assert "1 received" in left.run("ping", "-c", "1", "-W", "5", "10.9.0.2")
            assert "fwmark: 0xca6c" in left.run("wg", "show", name)
        finally:
            quick("down")
        wait_for(lambda: not Path(f"/var/run/wireguard/{name}.sock").exists())
        # wg-quick itself leaves src_valid_mark as it set it.
        assert host_state(left).rsplit("\n", 2)[0] == before.rsplit("\n", 2)[0]
        hub.stop()
