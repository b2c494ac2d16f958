"""`make image-test BOARD=malta`: boots the router and takes it through what routers go through.

The router has neither TUN nor a WireGuard module; its image holds an enrolment token and no key.
Each scenario prints what it measured and ends with a page from behind the gateway that a client in
the LAN fetched through the router's SOCKS5 proxy. The first that fails ends the test with the end
of the router's console.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from buildroot.imagetest import backend
from buildroot.imagetest.backend import Backend
from buildroot.imagetest.boards import BOARDS, MEMORY_MB, Board
from buildroot.imagetest.firmware import Firmware, build, new_flash
from buildroot.imagetest.machine import ADDRESSES, ROUTER, Failure, Networks, Router
from buildroot.static.cache import BuildError, Cache
from buildroot.static.rooms import ROOT

# An emulated router on a busy machine takes its time.
BOOT_S = 300.0
AGENT_S = 300.0
UNPLUGGED_S = 20.0
EPOCH = "1970-01-02T00:00:00"


def settings(token: str, authority: str) -> dict[str, str]:
    """Return /etc/wantastic of the image: no key and no name of the router's own."""
    proxy = {
        "listen": f"{ROUTER}:{backend.SOCKS_PORT}",
        "user": backend.SOCKS_USER,
        "password": backend.SOCKS_PASSWORD,
    }
    config = {
        "state_dir": "/var/lib/wantastic",
        "auth": {
            "server_url": f"{ADDRESSES['wan']}:{backend.GRPC_PORT}",
            "ca_file": "/etc/wantastic/ca.pem",
            "token_file": "/etc/wantastic/token",
        },
        "interface": {"mode": "userspace"},
        "log": {"target": "syslog"},
        "proxy": {"socks5": proxy},
    }
    return {"config.json": json.dumps(config, indent=4), "token": token, "ca.pem": authority}


class Scenarios:
    """One board with its image, its flash and what it talks to."""

    def __init__(self, board: Board, firmware: Firmware, net: Networks, back: Backend) -> None:
        self.board = board
        self.firmware = firmware
        self.net = net
        self.back = back

    @contextmanager
    def boot(self, flash: Path, clock: str = "utc") -> Iterator[Router]:
        """Switch a router on, wait until its init scripts are through; the power goes at the end.

        A failure shows what the agent says of itself, the router's cards and its log.
        """
        with Router(self.board, self.firmware, flash, self.net, clock) as router:
            router.wait(r"BOOTED ([\d.]+)", BOOT_S)
            try:
                yield router
            except Failure:
                print(router.shell("wantasticd -status", AGENT_S), file=sys.stderr)
                print(router.shell("cat /proc/interrupts /proc/net/dev"), file=sys.stderr)
                print(router.shell("dmesg | tail -n 3; ps; tail -n 12 /tmp/log"), file=sys.stderr)
                raise

    def first_boot(self, flash: Path) -> str:
        """Identity, registration, tunnel without any module; return the public key."""
        with self.boot(flash) as router:
            self.back.wait_for_page(AGENT_S)
            seen = status(router)
            key = str(seen["interface"]["public_key"])
            if [device["public_key"] for device in self.back.devices()] != [key]:
                raise Failure(f"the server knows another key than {key}")
            listed = router.shell("stat -c %a /var/lib/wantastic /var/lib/wantastic/*")
            modes = re.findall(r"(?m)^(\d{3,4})$", listed)
            if not modes or set(modes) - {"700", "600"}:
                raise Failure(f"the state folder is readable by others: {modes}")
            modules = router.shell("cat /proc/modules")
            if re.search(r"(?m)^(wireguard|tun) ", modules):
                raise Failure(f"a tunnel module is loaded:\n{modules}")
            print(f"first boot: registered as {seen['control']['device_id']}, page through SOCKS5")
            print(f"  {describe(router, seen)}")
            self.unplug(router)
        return key

    def unplug(self, router: Router) -> None:
        """Pull the WAN cable for a while."""
        router.plug("wan", False)
        time.sleep(1)
        if self.back.fetch(5):
            raise Failure("a page came through an unplugged cable")
        time.sleep(UNPLUGGED_S)
        router.plug("wan", True)
        back = self.back.wait_for_page(AGENT_S)
        print(f"WAN unplugged for {UNPLUGGED_S:.0f} s: page again {back:.1f} s after")

    def boot_again(self, what: str, key: str, flash: Path, clock: str = "utc") -> None:
        """The same flash: the same identity, and the tunnel by itself."""
        with self.boot(flash, clock) as router:
            self.back.wait_for_page(AGENT_S)
            seen = status(router)
            if seen["interface"]["public_key"] != key:
                raise Failure(f"another identity after {what}: {seen['interface']['public_key']}")
            year = number(router.shell("date +%Y"), r"(?m)^(\d{4})$")
            print(f"{what} (year {year:.0f}): same identity, page")
            print(f"  {describe(router, seen)}")

    def cut_while_writing(self, flash: Path, known: str) -> str:
        """Another router; the power goes as its registration is answered. Return its key."""
        with self.boot(flash):
            found = {device["public_key"] for device in self.back.wait_for_devices(2, AGENT_S)}
        if len(found) != 2:
            raise Failure("two routers made from one image have the same key")
        print("a second router from the same image: another key; power cut while it registered")
        (key,) = found - {known}
        return str(key)

    def run(self, work: Path) -> None:
        """Everything, in the order of a router's life."""
        flash, second = new_flash(work / "flash"), new_flash(work / "second")
        key = self.first_boot(flash)
        self.boot_again("after a power cut", key, flash)
        self.boot_again("without a clock", key, flash, EPOCH)
        self.back.answer(False)
        self.boot_again("control server down", key, flash)
        self.back.answer(True)
        other = self.cut_while_writing(second, key)
        self.boot_again("after that cut", other, second)


def status(router: Router) -> dict[str, Any]:
    """Return the agent's status, as soon as it answers."""
    deadline = time.monotonic() + AGENT_S
    while time.monotonic() < deadline:
        text = router.shell("wantasticd -status --json", AGENT_S)
        begin, end = text.find("{"), text.rfind("}")
        if begin >= 0 and end > begin:
            return dict(json.loads(text[begin : end + 1]))
        time.sleep(1)
    raise Failure(f"the agent does not answer:\n{router.text[-300:]}")


def number(text: str, pattern: str) -> float:
    """Return what a command printed, among prompts and the kernel's messages."""
    found = re.search(pattern, text)
    if not found:
        raise Failure(f"no {pattern!r} in {text!r}")
    return float(found[1])


def describe(router: Router, seen: dict[str, Any]) -> str:
    """Return times, memory and writes, as one line."""
    process = "/proc/$(cat /var/run/wantasticd.pid)"
    after_name = f"cut -d')' -f2 {process}/stat | awk '{{print $20}}'"
    started = number(router.shell(after_name), r"(?m)^(\d+)$") / 100
    boot = number(router.shell("cat /proc/stat"), r"(?m)^btime (\d+)$")
    handshake = seen["peers"][0]["last_handshake_unix_ns"] / 1e9 - boot
    memory = router.shell(f"cat {process}/status")
    resident, most = (number(memory, rf"{name}:\s+(\d+)") for name in ("VmRSS", "VmHWM"))
    return (
        f"agent started at uptime {started:.0f} s, tunnel {handshake - started:.0f} s after;"
        f" RSS {resident:.0f} KB (most {most:.0f}) of {MEMORY_MB} MB;"
        f" {seen['flash_writes']} flash writes"
    )


def main() -> int:
    """Run every scenario on one board; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", choices=BOARDS, default="malta")
    parser.add_argument("--executable", type=Path, help="default: dist/wantasticd-ARCH-slim")
    options = parser.parse_args()
    board = BOARDS[options.board]
    executable = options.executable or ROOT / "dist" / f"wantasticd-{board.arch}-slim"
    if not executable.exists():
        print(f"{executable} is missing: make binary ARCH={board.arch} TRANSPORT=slim")
        return 2
    if os.geteuid() or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        print("the emulated router's cables are taps: this needs root and /dev/net/tun")
        return 2
    folder = os.environ.get("WANTASTIC_CACHE") or str(ROOT / "build" / "cache")
    cache = Cache(Path(folder).resolve(), 1)
    begin = time.monotonic()
    try:
        with Networks() as net, tempfile.TemporaryDirectory() as work:
            back = None
            try:
                back = Backend(net, Path(work))
                firmware = build(cache, board, executable, settings(back.token, back.ca))
                Scenarios(board, firmware, net, back).run(Path(work))
            finally:
                if back is not None:
                    back.close()
    except (Failure, BuildError) as failure:
        print(failure)
        return 1
    print(f"{board.name}: all scenarios passed in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
