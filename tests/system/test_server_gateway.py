"""Gateways: real tunnels to the server's own engine, and an interface driven through `wg`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

import grpc
import pytest

from cext.engine.engine import Endpoint, Engine
from cext.engine.userspace import Userspace
from tests.support import server as support
from tests.support.agent import PROGRAM
from tests.support.peers import ROOT
from tests.support.server import Caller, ServerProcess, eventually, key, operate
from tests.support.userspace_pair import read_all, tcp_server
from wantastic.config.keys import decode_key, encode_key, generate_private_key, public_key_of
from wantastic.control import auth_pb2 as pb
from wantastic.device.loopback import (
    ECHO_REPLY,
    ECHO_REQUEST,
    ICMP,
    checksum,
    echo_message,
    ip_packet,
)
from wantastic.server import main
from wantastic.server.addresses import parse_pools
from wantastic.server.hub import Hub

MTU = 1420
INSIDE = "WANTASTIC_TEST_INSIDE_NAMESPACE"


class TunnelDevice:
    """A device: an engine, its identity, and raw packets behind it."""

    def __init__(self, caller: Caller, token: str, name: str) -> None:
        self.caller = caller
        self.name = name
        self.private = generate_private_key(os.urandom)
        self.public = encode_key(public_key_of(self.private))
        self.token = caller.register(token, name, self.public).token
        self.engine = Engine(memory_limit_bytes=16 << 20, mtu=MTU)
        self.engine.start()
        self.inner, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.inner.settimeout(0.5)
        self.engine.attach_inner(theirs.detach(), MTU)
        self.engine.set_private_key(self.private)
        self.engine.up()
        self.configure()

    def configure(self) -> None:
        """Apply what the server says, as an agent would."""
        configuration = self.caller.configuration(self.token).configuration
        v4, v6 = map(ip_interface, configuration.addresses.addresses)
        self.address, self.address_v6 = IPv4Address(v4.ip), IPv6Address(v6.ip)
        peer = configuration.peers.peers[0]
        host, _, port = peer.endpoints[0].rpartition(":")
        self.engine.set_peer(
            decode_key(peer.public_key),
            preshared_key=decode_key(peer.preshared_key),
            endpoint=Endpoint(host, int(port)),
            replace_allowed_ips=True,
            allowed_ips=tuple(peer.allowed_ips),
        )

    def ping(self, target: IPv4Address, timeout_s: float = 5.0) -> bool:
        """Ask until an answer comes."""
        end_s = time.monotonic() + timeout_s
        number = 0
        while time.monotonic() < end_s:
            number += 1
            request = echo_message(ECHO_REQUEST, number, b"gateway")
            self.inner.send(ip_packet(self.address, target, ICMP, request))
            try:
                packet = self.inner.recv(2048)
            except TimeoutError:
                continue
            if packet[9] == ICMP and packet[20] == ECHO_REPLY and packet[12:16] == target.packed:
                return True
        return False

    def answer_one(self) -> bytes:
        """Return the next packet that comes out of the tunnel."""
        self.inner.settimeout(5)
        packet = self.inner.recv(2048)
        self.inner.settimeout(0.5)
        return packet

    def close(self) -> None:
        self.engine.stop()
        self.inner.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("gateway") / "state"
    ranges = ("--ipv4", "10.66.0.0/24", "--ipv6", "fd00:66::/64")
    operate(state, "tenant", "create", "default", *ranges)
    return state


def _send(reply: bytes, connection: socket.socket) -> None:
    connection.sendall(reply)


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[ServerProcess]:
    options = ("--gateway", "device", "--gateway-host", "127.0.0.1", "--gateway-port", "0")
    with ExitStack() as stack:
        # What every other test here does has to work beside forwards.
        for port, reply in FORWARDED.items():
            target = stack.enter_context(tcp_server(partial(_send, reply)))
            options += ("--gateway-forward", f"{port}=127.0.0.1:{target.port}")
        yield stack.enter_context(support.serving(state, "--insecure", *options))


@pytest.fixture
def caller(server: ServerProcess) -> Iterator[Caller]:
    with grpc.insecure_channel(server.target) as channel:
        yield Caller(channel)


GATEWAY = IPv4Address("10.66.0.1")
FORWARDED = {80: b"a site", 8080: b"another site"}


@pytest.mark.parametrize("host", [str(GATEWAY), "fd00:66::1"])
def test_services_behind_the_gateway_are_reached_at_its_tunnel_address(
    caller: Caller, state: Path, host: str
) -> None:
    device = TunnelDevice(caller, support.new_token(state), f"visitor-of-{host}")
    stack = Userspace(device.engine, (str(device.address), str(device.address_v6)))
    results: dict[int, int] = {}

    def dial(port: int) -> int:
        flow = stack.dial_tcp(host, port)

        def ended() -> bool:
            results.update(stack.dialled())
            return flow in results

        assert eventually(ended)
        return flow

    try:
        for port, reply in FORWARDED.items():
            flow = dial(port)
            assert results[flow] == 0
            ours, theirs = socket.socketpair()
            with ours:
                stack.splice(flow, theirs.detach())
                assert read_all(ours) == reply
    finally:
        device.close()


@pytest.mark.parametrize(
    "options",
    [
        ("--gateway-forward", "80=127.0.0.1:8080"),
        ("--gateway", "device", "--gateway-forward", "80"),
        ("--gateway", "device", "--gateway-forward", "0=127.0.0.1:8080"),
        ("--gateway", "device", "--gateway-forward", "80=site.example:8080"),
        ("--gateway", "device", "--gateway-tun", "t0", "--gateway-forward", "80=127.0.0.1:8080"),
        ("--gateway", "device", *("--gateway-forward", "80=127.0.0.1:8080") * 2),
    ],
)
def test_forwards_that_cannot_be(
    tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    host = ("--gateway-host", "127.0.0.1", "--listen", "127.0.0.1:0")
    assert main.main(["serve", "--state", str(tmp_path / "state"), *host, *options]) == 1
    assert "--gateway-forward" in capsys.readouterr().err


def test_devices_reach_the_gateway_and_each_other_until_removed(
    caller: Caller, state: Path
) -> None:
    token = support.new_token(state, "--reusable")
    one, two = (TunnelDevice(caller, token, name) for name in ("one", "two"))
    try:
        assert one.ping(GATEWAY)
        assert two.ping(GATEWAY)
        request = echo_message(ECHO_REQUEST, 1, b"across")
        one.inner.send(ip_packet(one.address, two.address, ICMP, request))
        packet = two.answer_one()
        assert (packet[12:16], packet[16:20]) == (one.address.packed, two.address.packed)
        operate(state, "device", "remove", "one")
        assert eventually(lambda: not one.ping(GATEWAY, 0.6), 5)
        assert two.ping(GATEWAY)
    finally:
        one.close()
        two.close()


def test_a_removed_devices_tunnel_ends_within_two_seconds(caller: Caller, state: Path) -> None:
    device = TunnelDevice(caller, support.new_token(state), "removed")
    try:
        assert device.ping(GATEWAY)
        operate(state, "device", "remove", "removed")
        time.sleep(2)
        assert not device.ping(GATEWAY, 1.2)
    finally:
        device.close()


def test_a_pending_device_has_no_tunnel_until_approved(caller: Caller, state: Path) -> None:
    operate(state, "tenant", "create", "strict", "--approval")
    token = support.new_token(state, "--tenant", "strict")
    private = generate_private_key(os.urandom)
    public = encode_key(public_key_of(private))
    with pytest.raises(grpc.RpcError) as caught:
        caller.register(token, "waiting", public)
    assert support.error_of(caught.value).code == pb.ERROR_DEVICE_PENDING
    assert support.error_of(caught.value).retry_after_ms
    assert [r["device_id"] for r in operate(state, "device", "list", "--pending")] == ["waiting"]
    operate(state, "device", "approve", "waiting")
    assert eventually(lambda: caller.register(token, "waiting", public).success, 3)


def test_a_rotated_key_takes_over_with_its_first_handshake(caller: Caller, state: Path) -> None:
    device = TunnelDevice(caller, support.new_token(state), "rotating")
    try:
        assert device.ping(GATEWAY)
        private = generate_private_key(os.urandom)
        public = encode_key(public_key_of(private))
        caller.register(device.token, "rotating", public, replaces_public_key=device.public)
        # The old key goes on while the new one has not shaken hands.
        assert device.ping(GATEWAY)
        device.engine.set_private_key(private)
        assert device.ping(GATEWAY, 8)
        rows = operate(state, "device", "list")
        assert next(r for r in rows if r["device_id"] == "rotating")["public_key"] == public
    finally:
        device.close()


def test_the_gateways_key_and_peers_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state"
    operate(state, "tenant", "create", "default", "--ipv4", "10.66.0.0/24")
    token = support.new_token(state)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    options = ("--insecure", "--gateway", "device", "--gateway-host", "127.0.0.1")
    options += ("--gateway-port", port)
    device = None
    try:
        with (
            support.serving(state, *options) as server,
            grpc.insecure_channel(server.target) as channel,
        ):
            device = TunnelDevice(Caller(channel), token, "survivor")
            assert device.ping(GATEWAY)
        with support.serving(state, *options, name="again"):
            device.engine.expire_session(device.engine.status().peers[0].public_key)
            assert device.ping(GATEWAY, 10)
    finally:
        if device is not None:
            device.close()


def test_the_hub_keeps_tenants_apart_and_answers_both_families() -> None:
    hub = Hub()
    hub.set_networks(
        [
            parse_pools("10.1.0.0/16", "fd00:1::/64"),
            parse_pools("10.2.0.0/16", "fd00:2::/64"),
        ]
    )
    request = echo_message(ECHO_REQUEST, 1, b"x")

    def send(source: str, target: str) -> bytes | None:
        return hub.forward(ip_packet(IPv4Address(source), IPv4Address(target), ICMP, request))

    assert send("10.1.0.2", "10.1.0.3") is not None
    assert send("10.1.0.2", "10.2.0.3") is None
    assert send("10.1.0.2", "10.2.0.1") is None
    assert send("192.0.2.1", "10.1.0.1") is None
    reply = send("10.1.0.2", "10.1.0.1")
    assert reply is not None
    assert reply[20] == ECHO_REPLY
    source, target = IPv6Address("fd00:1::2").packed, IPv6Address("fd00:1::1").packed
    body = bytes([128, 0, 0, 0, 0, 7, 0, 1]) + b"odd"
    head = bytes([0x60, 0, 0, 0]) + len(body).to_bytes(2, "big") + bytes([58, 64])
    answered = hub.forward(head + source + target + body)
    assert answered is not None
    assert answered[8:40] == target + source
    assert answered[40] == 129
    pseudo = target + source + len(body).to_bytes(4, "big") + bytes([0, 0, 0, 58])
    assert checksum(pseudo + answered[40:]) == 0
    for broken in (b"", b"\x45", b"\x60" + bytes(30), b"\x00" * 40):
        assert hub.forward(broken) is None


@pytest.mark.interop
def test_a_tun_gateway_answers_through_the_kernel(tmp_path: Path) -> None:
    """Runs itself again in a namespace of its own, where a TUN device disturbs nobody."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if INSIDE not in os.environ:
        namespace = f"server-tun-{os.getpid() % 10_000}"
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        try:
            done = subprocess.run(
                [
                    *("ip", "netns", "exec", namespace, sys.executable, "-m", "pytest"),
                    *("-p", "no:cacheprovider", f"{__file__}::{TUN_TEST}"),
                ],
                env={**os.environ, INSIDE: "1"},
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            subprocess.run(["ip", "netns", "delete", namespace], check=True)
        assert done.returncode == 0, done.stdout
        return
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    state = tmp_path / "state"
    operate(state, "tenant", "create", "default", "--ipv4", "10.66.0.0/24")
    token = support.new_token(state)
    options = ("--insecure", "--gateway", "device", "--gateway-host", "127.0.0.1")
    options += ("--gateway-port", "0", "--gateway-tun", "srvtun0")
    with (
        support.serving(state, *options) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        device = TunnelDevice(Caller(channel), token, "through-tun")
        try:
            assert device.ping(GATEWAY, 10)
            command = ["ip", "-br", "address", "show", "srvtun0"]
            assert b"10.66.0.1/24" in subprocess.check_output(command)
            operate(state, "tenant", "create", "second", "--ipv4", "10.67.0.0/24")
            assert eventually(lambda: b"10.67.0.1/24" in subprocess.check_output(command))
        finally:
            device.close()


TUN_TEST = test_a_tun_gateway_answers_through_the_kernel.__name__


USERSPACE = {"wireguard-go": ("wireguard-go", "-f"), "wantasticd": (*PROGRAM, "-f")}


@pytest.fixture(params=USERSPACE)
def interface(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A WireGuard interface as the document makes it, in a namespace: what `wg` drives is
    the kernel's module, wireguard-go or our own, and it is told the same."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    namespace, name = f"server-gw-{os.getpid() % 10_000}", f"srvgw{os.getpid() % 10_000}"
    key_file = tmp_path / "private"
    key_file.write_text(encode_key(generate_private_key(os.urandom)))
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, *USERSPACE[request.param], name],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        command = ["wg", "set", name, "private-key", str(key_file), "listen-port", "51999"]
        assert eventually(
            lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0, 10
        )
        yield name
    finally:
        process.terminate()
        process.wait(10)
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def shown(interface: str, what: str) -> str:
    return subprocess.run(
        ["wg", "show", interface, what], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.interop
def test_an_existing_interface_is_kept_in_step_through_wg(tmp_path: Path, interface: str) -> None:
    state = tmp_path / "state"
    token = support.new_token(state, "--reusable")
    stranger, one, two = key(), key(), key()
    subprocess.run(["wg", "set", interface, "peer", stranger], check=True)
    options = ("--insecure", "--gateway", f"wg:{interface}", "--gateway-host", "gw.example")
    with support.serving(state, *options) as server:
        assert eventually(lambda: stranger not in shown(interface, "peers"))
        with grpc.insecure_channel(server.target) as channel:
            caller = Caller(channel)
            registered = caller.register(token, "one", one)
            assert registered.server_key == shown(interface, "public-key").strip()
            assert registered.endpoint == "gw.example:51999"
            got = caller.configuration(registered.token).configuration
            caller.register(token, "two", two)
            assert eventually(lambda: two in shown(interface, "peers"))
            allowed = dict(
                line.split("\t") for line in shown(interface, "allowed-ips").splitlines()
            )
            assert set(allowed[one].split()) == set(got.addresses.addresses)
            preshared = dict(
                line.split("\t") for line in shown(interface, "preshared-keys").splitlines()
            )
            assert preshared[one] == got.peers.peers[0].preshared_key
            caller.register(registered.token, "one", stranger, replaces_public_key=one)
            assert eventually(lambda: stranger in shown(interface, "peers"))
            lines = shown(interface, "allowed-ips").splitlines()
            assert f"{stranger}\t(none)" in lines
            caller.configuration(registered.token, public_key=stranger)
            assert eventually(lambda: one not in shown(interface, "peers"))

            def addresses() -> set[str]:
                rows = shown(interface, "allowed-ips").splitlines()
                return set(dict(row.split("\t") for row in rows)[stranger].split())

            # One command of wg removes the old peer, the next one moves its addresses.
            assert eventually(lambda: addresses() == set(got.addresses.addresses))
            operate(state, "device", "remove", "two")
            assert eventually(lambda: two not in shown(interface, "peers"), 3)
    # Tunnels go on while the server is away.
    assert stranger in shown(interface, "peers")
