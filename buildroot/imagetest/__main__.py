"""`make image-test BOARD=malta`: boots the router and takes it through what routers go through.

Each scenario prints one line with what it measured; the first that fails ends the test with the end
of the router's console. The peer in the WAN is wireguard-go.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from buildroot.imagetest.boards import BOARDS, MEMORY_MB, Board
from buildroot.imagetest.firmware import Firmware, build, new_flash
from buildroot.imagetest.machine import Failure, Networks, Router, run
from buildroot.static.cache import Cache
from buildroot.static.rooms import ROOT

# An emulated router on a busy machine takes its time.
BOOT_S = 300.0
AGENT_S = 240.0
PORT = 51820
PEER = "wtpeer0"
TUNNEL = "10.98.0"


def configuration(server_key: str, mode: str) -> str:
    """Return the configuration in the image: no key of the router's own."""
    text = {
        "private_key": "",
        "state_dir": "/var/lib/wantastic",
        "memory_limit": "16M",
        "interface": {"mode": mode, "addresses": [f"{TUNNEL}.2/32"]},
        "server": {
            "endpoint": f"10.77.1.1:{PORT}",
            "public_key": server_key,
            "allowed_ips": [f"{TUNNEL}.0/24"],
            "persistent_keepalive": 5,
        },
    }
    return json.dumps(text, indent=4)


class Peer:
    """wireguard-go in the WAN namespace."""

    def __init__(self, networks: Networks) -> None:
        self.inside = f"ip netns exec {networks.space('wan')}"
        self.key = run("wg genkey").strip()
        self.public_key = run("wg pubkey", input=self.key).strip()
        command = f"{self.inside} wireguard-go -f {PEER}".split()
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(50):
            if PEER in run(f"{self.inside} wg show interfaces"):
                break
            time.sleep(0.1)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(self.key)
            file.flush()
            run(f"{self.inside} wg set {PEER} private-key {file.name} listen-port {PORT}")
        run(f"{self.inside} ip addr add {TUNNEL}.1/24 dev {PEER}")
        run(f"{self.inside} ip link set {PEER} up")

    def expect(self, public_key: str) -> None:
        """Accept one router, and only that."""
        self.forget()
        command = f"wg set {PEER} peer {public_key} allowed-ips {TUNNEL}.2/32"
        run(f"{self.inside} {command}")

    def forget(self) -> None:
        """Accept nobody."""
        for key in run(f"{self.inside} wg show {PEER} peers").split():
            run(f"{self.inside} wg set {PEER} peer {key} remove")

    def wait_for_handshake(self, after_unix_s: float, timeout_s: float) -> float:
        """Return how long the router took to make a session."""
        begin = time.monotonic()
        while time.monotonic() - begin < timeout_s:
            rows = run(f"{self.inside} wg show {PEER} latest-handshakes").split()
            if len(rows) == 2 and int(rows[1]) >= int(after_unix_s):
                return time.monotonic() - begin
            time.sleep(0.2)
        raise Failure(f"no session within {timeout_s} s")

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def status(router: Router) -> dict[str, Any]:
    """Return the agent's status, as soon as it answers."""
    deadline = time.monotonic() + AGENT_S
    while time.monotonic() < deadline:
        text = router.shell("wantasticd -status --json", AGENT_S)
        begin, end = text.find("{"), text.rfind("}")
        if begin >= 0 and end > begin:
            return dict(json.loads(text[begin : end + 1]))
        time.sleep(1)
    raise Failure(f"the agent does not answer:\n{router.text[-3000:]}")


def number(text: str, pattern: str) -> float:
    """Return what a command printed, among prompts and the kernel's messages."""
    found = re.search(pattern, text)
    if not found:
        raise Failure(f"no {pattern!r} in {text!r}")
    return float(found[1])


def start(router: Router) -> float:
    """Wait until the init scripts are through; return the router's own seconds."""
    return float(router.wait(r"BOOTED ([\d.]+)", BOOT_S)[1])


def first_boot(board: Board, firmware: Firmware, flash: Path, net: Networks, peer: Peer) -> str:
    """Identity, tunnel without any module, memory; then the power goes."""
    with Router(board, firmware, flash, net) as router:
        booted = start(router)
        seen = status(router)
        key = str(seen["interface"]["public_key"])
        if len(base64.b64decode(key)) != 32:
            raise Failure(f"no identity: {key!r}")
        listed = router.shell("stat -c %a /var/lib/wantastic /var/lib/wantastic/*")
        mode = re.findall(r"(?m)^(\d{3,4})$", listed)
        if not mode or set(mode) - {"700", "600"}:
            raise Failure(f"the state folder is readable by others: {mode}")
        modules = router.shell("cat /proc/modules")
        if "wireguard" in modules or ("tun " in modules and seen["interface"]["mode"] != "tun"):
            raise Failure(f"a tunnel module is loaded:\n{modules}")
        before = time.time()
        peer.expect(key)
        waited = peer.wait_for_handshake(before, AGENT_S)
        uptime = number(router.shell("cat /proc/uptime"), r"(?m)^([\d.]+) [\d.]+$")
        shown = router.shell("cat /proc/$(cat /var/run/wantasticd.pid)/status")
        memory = number(shown, r"VmRSS:\s+(\d+)")
        writes = status(router)["flash_writes"]
        print(
            f"first boot: up after {booted:.0f} s, key {key[:8]}..., session {waited:.1f} s after"
        )
        print(f"  the peer knew the key (uptime {uptime:.0f} s); RSS {memory:.0f} KB of")
        print(f"  {MEMORY_MB} MB; {writes} flash writes")
        router.cut_power()
    return key


def boot_again(
    what: str,
    key: str,
    board: Board,
    firmware: Firmware,
    flash: Path,
    net: Networks,
    peer: Peer,
    clock: str = "utc",
) -> None:
    """The same flash: the same identity, and the tunnel by itself."""
    begin = time.time()
    with Router(board, firmware, flash, net, clock) as router:
        start(router)
        peer.wait_for_handshake(begin, AGENT_S)
        uptime = number(router.shell("cat /proc/uptime"), r"(?m)^([\d.]+) [\d.]+$")
        year = number(router.shell("date +%Y"), r"(?m)^(\d{4})$")
        found = str(status(router)["interface"]["public_key"])
        if found != key:
            raise Failure(f"another identity after {what}: {found}, not {key}")
        print(f"{what}: same identity, tunnel at uptime <= {uptime:.0f} s (year {year:.0f})")
        router.cut_power()


def other_router(board: Board, firmware: Firmware, flash: Path, net: Networks, key: str) -> None:
    """The same image on another flash: another identity."""
    with Router(board, firmware, flash, net) as router:
        start(router)
        other = str(status(router)["interface"]["public_key"])
        if other == key:
            raise Failure("two routers made from one image have the same key")
        print(f"a second router from the same image: another key, {other[:8]}...")
        router.cut_power()


def main() -> int:
    """Run every scenario on one board; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", choices=BOARDS, default="malta")
    parser.add_argument("--executable", type=Path, help="default: dist/wantasticd-ARCH-slim")
    parser.add_argument("--mode", choices=("tun", "userspace"), default="tun")
    options = parser.parse_args()
    board = BOARDS[options.board]
    executable = options.executable or ROOT / "dist" / f"wantasticd-{board.arch}-slim"
    if not executable.exists():
        print(f"{executable} is missing: make binary ARCH={board.arch} TRANSPORT=slim")
        return 2
    folder = os.environ.get("WANTASTIC_CACHE") or str(ROOT / "build" / "cache")
    cache = Cache(Path(folder).resolve(), 1)
    begin = time.monotonic()
    with Networks() as net, tempfile.TemporaryDirectory() as work:
        peer = Peer(net)
        try:
            config = configuration(peer.public_key, options.mode)
            firmware = build(cache, board, executable, config, options.mode == "tun")
            flash = new_flash(Path(work) / "flash")
            key = first_boot(board, firmware, flash, net, peer)
            boot_again("after a power cut", key, board, firmware, flash, net, peer)
            epoch = "1970-01-02T00:00:00"
            boot_again("without a clock", key, board, firmware, flash, net, peer, epoch)
            other_router(board, firmware, new_flash(Path(work) / "second"), net, key)
        except Failure as failure:
            print(failure)
            return 1
        finally:
            peer.close()
    print(f"{board.name}: all scenarios passed in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
