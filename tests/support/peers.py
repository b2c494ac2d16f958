"""WireGuard implementations that tests and benchmarks start: ours and the peers.

All are started in wireguard-go's argv form and configured through `wg`, so that one
program measures them alike. A peer that cannot be had here is left out by name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.netns import Namespace, sh

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "peers"
WIREGUARD_GO = "golang.zx2c4.com/wireguard"
WIREGUARD_GO_VERSION = "v0.0.0-20260522210424-ecfc5a8d5446"
BORINGTUN_VERSION = "0.7.1"


@dataclass(frozen=True)
class Implementation:
    """How to start one implementation in the foreground on an interface name."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    argv_after: tuple[str, ...] = ()

    def command(self, interface: str) -> list[str]:
        return [*self.argv, interface, *self.argv_after]


def ours() -> Implementation:
    """Return this checkout's wantasticd, run by the interpreter that runs the tests."""
    binary = os.environ.get("WANTASTICD")
    argv = (binary,) if binary else (sys.executable, "-m", "wantastic.cli.main")
    return Implementation("wantasticd", (*argv, "-f"), {"PYTHONPATH": str(ROOT)})


def wireguard_go_debian() -> Implementation | None:
    path = shutil.which("wireguard-go")
    return Implementation("wireguard-go 2022", (path, "-f")) if path else None


def wireguard_go_newest() -> Implementation | None:
    """Build the pinned newest wireguard-go where a Go toolchain is at hand."""
    target = CACHE / f"wireguard-go-{WIREGUARD_GO_VERSION}"
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if not target.exists():
        if go is None:
            return None
        _announce(f"building wireguard-go {WIREGUARD_GO_VERSION}")
        scratch = CACHE / "go"
        scratch.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [go, "install", f"{WIREGUARD_GO}@{WIREGUARD_GO_VERSION}"],
            env={**os.environ, "GOBIN": str(scratch), "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            _announce(f"left out: {done.stderr.strip().splitlines()[-1]}")
            return None
        (scratch / "wireguard").rename(target)
    return Implementation("wireguard-go 2026", (str(target), "-f"))


def boringtun() -> Implementation | None:
    """Build the pinned boringtun-cli where a Rust toolchain is at hand."""
    target = CACHE / f"boringtun-{BORINGTUN_VERSION}"
    cargo = shutil.which("cargo")
    if not (target / "bin/boringtun-cli").exists():
        if cargo is None:
            return None
        _announce(f"building boringtun {BORINGTUN_VERSION}")
        done = subprocess.run(
            [
                *(cargo, "install", "--quiet", "--version", BORINGTUN_VERSION),
                *("--root", str(target), "boringtun-cli"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            _announce(f"left out: {done.stderr.strip().splitlines()[-1]}")
            return None
    return Implementation(
        "boringtun 0.7.1",
        (str(target / "bin/boringtun-cli"), "-f", "--disable-drop-privileges"),
        {"WG_THREADS": str(os.cpu_count() or 1)},
    )


FACTORIES: Mapping[str, Callable[[], Implementation | None]] = {
    "wantasticd": ours,
    "wireguard-go 2026": wireguard_go_newest,
    "wireguard-go 2022": wireguard_go_debian,
    "boringtun 0.7.1": boringtun,
}


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def key_pair() -> tuple[str, str]:
    """Return a private and its public key as `wg` prints them."""
    private = sh("wg", "genkey").strip()
    public = subprocess.run(
        ["wg", "pubkey"], input=private, capture_output=True, text=True, check=True
    ).stdout.strip()
    return private, public


def cpu_s(pid: int) -> float:
    """Return the seconds that all threads of a process have run on a CPU."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_kib(pid: int) -> int:
    """Return a process's resident size, 0 once it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found.group(1)) if found else 0


@dataclass
class Node:
    """One running implementation on one interface in one namespace."""

    implementation: Implementation
    space: Namespace
    interface: str
    private_key: str
    public_key: str
    process: subprocess.Popen[bytes]
    started_after_s: float

    @property
    def pid(self) -> int:
        return self.process.pid

    def wg(self, *args: str, check: bool = True) -> str:
        return self.space.run("wg", *args, check=check)

    def add_peer(
        self, other: Node | str, allowed_ips: str, endpoint: str = "", *extra: str
    ) -> None:
        public = other if isinstance(other, str) else other.public_key
        where = ("endpoint", endpoint) if endpoint else ()
        self.wg("set", self.interface, "peer", public, "allowed-ips", allowed_ips, *where, *extra)

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def rss_kib(self) -> int:
        return rss_kib(self.pid)

    def anonymous_kib(self) -> int:
        """Return the resident memory that is no file's: pages of the program come and go."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition("RssAnon:")[2].split()[0])

    def transfer(self) -> tuple[int, int]:
        """Return (received, sent) bytes summed over peers."""
        rows = [line.split() for line in self.wg("show", self.interface, "transfer").splitlines()]
        return sum(int(r[1]) for r in rows), sum(int(r[2]) for r in rows)

    def stop(self) -> None:
        self.space.stop(self.process)


def start(
    implementation: Implementation,
    space: Namespace,
    interface: str,
    addresses: tuple[str, ...],
    port: int = 51820,
    mtu: int = 1420,
    stderr: int | None = subprocess.DEVNULL,
) -> Node:
    """Start one end, wait until `wg` talks to it, give it a key, addresses, a port."""
    private, public = key_pair()
    before = time.monotonic()
    process = space.start(*implementation.command(interface), env=implementation.env, stderr=stderr)
    deadline = before + 15
    socket_path = Path(f"/var/run/wireguard/{interface}.sock")
    while True:
        if socket_path.exists() and space.run("wg", "show", interface, check=False):
            break
        if process.poll() is not None or time.monotonic() > deadline:
            space.stop(process)
            raise RuntimeError(f"{implementation.name} did not start on {interface}")
        time.sleep(0.005)
    ready = time.monotonic() - before
    node = Node(implementation, space, interface, private, public, process, ready)
    key_file = Path(f"/run/{space.name}-{interface}.key")
    key_file.touch(mode=0o600)
    key_file.write_text(private)
    try:
        node.wg("set", interface, "private-key", str(key_file), "listen-port", str(port))
    finally:
        key_file.unlink()
    for address in addresses:
        space.run("ip", "addr", "add", address, "dev", interface)
    space.run("ip", "link", "set", interface, "mtu", str(mtu), "up")
    return node


def tunnel(
    left: Implementation,
    right: Implementation,
    spaces: tuple[Namespace, Namespace],
    outer: tuple[str, str] = ("192.168.77.1", "192.168.77.2"),
    psk: bool = False,
    mtu: int = 1420,
) -> tuple[Node, Node]:
    """Start both ends and make them peers: inner 10.9.0.1/2 and fd09::1/2."""
    names = (f"w{os.getpid() % 100000}a", f"w{os.getpid() % 100000}b")
    a = start(left, spaces[0], names[0], ("10.9.0.1/24", "fd09::1/64"), mtu=mtu)
    try:
        b = start(right, spaces[1], names[1], ("10.9.0.2/24", "fd09::2/64"), mtu=mtu)
    except BaseException:
        a.stop()
        raise
    extra: tuple[str, ...] = ()
    if psk:
        file = Path(f"/run/{spaces[0].name}.psk")
        file.touch(mode=0o600)
        file.write_text(sh("wg", "genpsk"))
        extra = ("preshared-key", str(file))
    try:
        a.add_peer(b, "10.9.0.2/32,fd09::2/128", _endpoint(outer[1]), *extra)
        b.add_peer(a, "10.9.0.1/32,fd09::1/128", _endpoint(outer[0]), *extra)
    finally:
        if psk:
            file.unlink()
    return a, b


def _endpoint(host: str, port: int = 51820) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
