"""What bench-netstack measures: userspace TCP stacks between two namespaces.

Each gives a client in the first namespace an address whose connections arrive at
127.0.0.1:SERVER_PORT of the second, and says which processes do the work.

    tunnel     client -> forward, stack, WireGuard -> WireGuard, stack, forward -> server
    namespace  client -> the kernel's TCP, TUN or TAP -> stack -> server

In a tunnel both ends are measured. slirp4netns and pasta are one end: what they receive
as segments and write to a socket is compared with a tunnel's receiving end, and what
they read from a socket and send as segments with its sending end. They encrypt nothing,
so our stack is measured in their place as well: alone, one packet a read or write as they
have it; and with the offloads that our TUN mode asks of the kernel, and they do not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import agent as agents
from tests.support.netns import Namespace
from tests.support.peers import CACHE, ROOT, cpu_s, key_pair, rss_kib

MTU = 1420
SERVER_PORT = 7001
FORWARD_PORT = 7002
TUNNEL_PORT = 7
OUTER = ("192.168.77.1", "192.168.77.2")
INNER = ("10.9.0.1", "10.9.0.2")
START_S = 20


@dataclass
class Program:
    """A process whose CPU time and memory count."""

    pid: int

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def spent_s(self) -> tuple[float, float]:
        """Return the CPU seconds, and what of them was in the kernel, to 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return self.cpu_s(), int(fields[12]) / os.sysconf("SC_CLK_TCK")

    def rss_kib(self) -> int:
        return rss_kib(self.pid)


@dataclass
class Ends:
    """Where clients connect to, and who sends and receives segments on each side.

    One program is both `near` and `far` where there is one end only.
    """

    host: str
    port: int
    near: Program
    far: Program

    @property
    def programs(self) -> tuple[Program, ...]:
        return (self.near,) if self.near is self.far else (self.near, self.far)


@dataclass(frozen=True)
class Stack:
    """A userspace stack: what tells its measurements apart, and how it is started."""

    name: str
    is_tunnel: bool
    started: Callable[[Namespace, Namespace], AbstractContextManager[Ends]]


def wait_listening(space: Namespace, host: str, port: int) -> None:
    """Wait until something listens on a port inside."""
    deadline = time.monotonic() + START_S
    while f"{host}:{port} " not in space.run("ss", "-Hltn"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on {host}:{port}")
        time.sleep(0.02)


# -- ours --


def agent_config(
    private: str, own: str, port: int, other: str, allowed: str, endpoint: str
) -> dict[str, object]:
    """Return the configuration of one end in userspace mode."""
    return {
        "private_key": private,
        "server": {"public_key": other, "allowed_ips": [f"{allowed}/32"], "endpoint": endpoint},
        "interface": {
            "name": agents.interface_name(),
            "addresses": [f"{own}/32"],
            "listen_port": port,
            "mode": "userspace",
            "mtu": MTU,
        },
    }


@contextmanager
def started_agent(space: Namespace, config: Mapping[str, object]) -> Iterator[Program]:
    """Run wantasticd with a configuration until the block ends."""
    with tempfile.TemporaryDirectory(prefix="bench-netstack-") as folder:
        whole = {**config, "state_dir": f"{folder}/state"}
        found = agents.Agent(space, Path(folder), whole)
        try:
            found.start()
            assert found.process is not None
            yield Program(found.process.pid)
        finally:
            if found.process:
                space.stop(found.process)


@contextmanager
def ours(left: Namespace, right: Namespace) -> Iterator[Ends]:
    (a_private, a_public), (b_private, b_public) = key_pair(), key_pair()
    near = agent_config(a_private, INNER[0], 51820, b_public, INNER[1], f"{OUTER[1]}:51820")
    far = agent_config(b_private, INNER[1], 51820, a_public, INNER[0], f"{OUTER[0]}:51820")
    near["forwards"] = [
        {"listen": f"127.0.0.1:{FORWARD_PORT}", "target": f"{INNER[1]}:{TUNNEL_PORT}"}
    ]
    far["forwards"] = [
        {"from": "tunnel", "port": TUNNEL_PORT, "target": f"127.0.0.1:{SERVER_PORT}"}
    ]
    with started_agent(right, far) as b, started_agent(left, near) as a:
        wait_listening(left, "127.0.0.1", FORWARD_PORT)
        yield Ends("127.0.0.1", FORWARD_PORT, a, b)


# -- wireguard-go over gVisor --


def gvisor_program() -> Path | None:
    """Build our program around wireguard-go's netstack, where Go and its modules can be had."""
    source = ROOT / "tests" / "bench" / "gvisor_netstack"
    digest = hashlib.sha256()
    for file in sorted(source.iterdir()):
        digest.update(file.read_bytes())
    target = CACHE / f"gvisor-netstack-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        print("wireguard-go + gVisor left out: no Go toolchain", flush=True)
        return None
    CACHE.mkdir(parents=True, exist_ok=True)
    print("building wireguard-go with gVisor's stack", flush=True)
    done = subprocess.run(
        [go, "build", "-trimpath", "-o", str(target), "."],
        cwd=source,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"wireguard-go + gVisor left out: {done.stderr.strip().splitlines()[-1]}")
        return None
    return target


def hexadecimal(key: str) -> str:
    return base64.b64decode(key).hex()


@contextmanager
def started_gvisor(
    space: Namespace, keys: tuple[str, str], own: int, forwards: Mapping[str, Mapping[str, str]]
) -> Iterator[Program]:
    program = gvisor_program()
    assert program is not None
    other = 1 - own
    config = {
        "address": INNER[own],
        "mtu": MTU,
        "uapi": f"private_key={hexadecimal(keys[0])}\nlisten_port=51820\n"
        f"public_key={hexadecimal(keys[1])}\nendpoint={OUTER[other]}:51820\n"
        f"allowed_ip={INNER[other]}/32\n",
        **forwards,
    }
    process = subprocess.Popen(
        space.command(str(program)), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        yield Program(process.pid)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def gvisor(left: Namespace, right: Namespace) -> Iterator[Ends]:
    (a_private, a_public), (b_private, b_public) = key_pair(), key_pair()
    listen = {f"127.0.0.1:{FORWARD_PORT}": f"{INNER[1]}:{TUNNEL_PORT}"}
    accept = {f"{INNER[1]}:{TUNNEL_PORT}": f"127.0.0.1:{SERVER_PORT}"}
    with (
        started_gvisor(right, (b_private, a_public), 1, {"accept": accept}) as b,
        started_gvisor(left, (a_private, b_public), 0, {"listen": listen}) as a,
    ):
        wait_listening(left, "127.0.0.1", FORWARD_PORT)
        yield Ends("127.0.0.1", FORWARD_PORT, a, b)


# -- one end: a namespace's way out --

DEVICE = "tap0"


@contextmanager
def started(space: Namespace, arguments: Sequence[str]) -> Iterator[Program]:
    process = space.start(*arguments)
    try:
        yield Program(process.pid)
    finally:
        space.stop(process)


def wait_device(space: Namespace, shown: str = "inet ") -> None:
    """Wait until `ip addr` shows the device with its address, or what else is wanted."""
    deadline = time.monotonic() + START_S
    while shown not in space.run("ip", "addr", "show", "dev", DEVICE, check=False):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{DEVICE} did not come up")
        time.sleep(0.02)


@contextmanager
def alone(left: Namespace, right: Namespace, *more: str) -> Iterator[Ends]:
    left.run("ip", "link", "del", "eth0")
    command = (
        *(sys.executable, "-m", "tests.bench.netstack_alone", f"/var/run/netns/{left.name}"),
        *(DEVICE, str(MTU), INNER[1], str(TUNNEL_PORT), str(SERVER_PORT), *more),
    )
    with started(right, command) as one:
        wait_device(left, f"{DEVICE}:")
        left.run("ip", "addr", "add", f"{INNER[0]}/24", "dev", DEVICE)
        left.run("ip", "link", "set", DEVICE, "up")
        yield Ends(INNER[1], TUNNEL_PORT, one, one)


@contextmanager
def alone_offloads(left: Namespace, right: Namespace) -> Iterator[Ends]:
    with alone(left, right, "offloads") as ends:
        yield ends


@contextmanager
def slirp(left: Namespace, right: Namespace) -> Iterator[Ends]:
    command = (
        *("slirp4netns", "--netns-type=path", "--configure", f"--mtu={MTU}"),
        *(f"/var/run/netns/{left.name}", DEVICE),
    )
    left.run("ip", "link", "del", "eth0")
    with started(right, command) as one:
        wait_device(left)
        yield Ends("10.0.2.2", SERVER_PORT, one, one)


@contextmanager
def pasta(left: Namespace, right: Namespace) -> Iterator[Ends]:
    # Its namespace gets the address of this device; connections to the gateway become
    # connections to 127.0.0.1. No port is spliced past the stack.
    left.run("ip", "link", "del", "eth0")
    right.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    right.run("ip", "addr", "add", "192.168.78.2/24", "dev", "up0")
    for name in ("up0", "up1"):
        right.run("ip", "link", "set", name, "up")
    right.run("ip", "route", "add", "default", "via", "192.168.78.1")
    command = (
        *("pasta", "--foreground", "--quiet", "--runas", "0", "--config-net", "-4"),
        *("-m", str(MTU), "-I", DEVICE, "-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("--netns", f"/var/run/netns/{left.name}"),
    )
    with started(right, command) as one:
        wait_device(left)
        yield Ends("192.168.78.1", SERVER_PORT, one, one)


OURS, GVISOR, SLIRP, PASTA = "wantasticd", "wireguard-go + gVisor", "slirp4netns", "pasta"
ALONE, OFFLOADS = "wantasticd's stack, no tunnel", "the same, with offloads"
WITHOUT_TUNNEL = (Stack(ALONE, False, alone), Stack(OFFLOADS, False, alone_offloads))


def available() -> dict[str, Stack]:
    """Return the stacks that can be had here, ours first."""
    found = [Stack(OURS, True, ours), *WITHOUT_TUNNEL]
    if gvisor_program():
        found.append(Stack(GVISOR, True, gvisor))
    if shutil.which("slirp4netns"):
        found.append(Stack(SLIRP, False, slirp))
    if shutil.which("pasta"):
        found.append(Stack(PASTA, False, pasta))
    return {stack.name: stack for stack in found}
