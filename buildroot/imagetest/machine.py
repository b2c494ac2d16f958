"""The emulated router and the two networks it is plugged into.

The namespaces hold one tap each; the emulator gets the taps' descriptors and stays outside, so that
nothing in it can reach this machine's own network. The console is the serial port: commands are
written to its shell, and what they print is read up to a mark.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import select
import socket
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from buildroot.imagetest.boards import MEMORY_MB, Board
from buildroot.imagetest.firmware import Firmware

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
# Ours in each network; the router's ends with .2.
ADDRESSES = {"wan": "10.77.1.1", "lan": "10.77.2.1"}
ROUTER = "10.77.2.2"
"""The router's address in the LAN."""
PREFIX = "wtimage"


class Failure(Exception):
    """The router did not do what it should; the message holds the end of its console."""


def run(command: str, **options: object) -> str:
    """Run a command of this machine; return what it prints."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise Failure(f"{command}: {done.stderr.strip()}")
    return str(done.stdout)


class Networks:
    """Two namespaces with a tap each."""

    def __enter__(self) -> Self:
        self.taps: dict[str, int] = {}
        self.remove()
        for name, address in ADDRESSES.items():
            space = self.space(name)
            run(f"ip netns add {space}")
            self.taps[name] = self._tap(space, f"tap{name}")
            run(f"ip -n {space} addr add {address}/24 dev tap{name}")
            run(f"ip -n {space} link set tap{name} up")
            run(f"ip -n {space} link set lo up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for descriptor in self.taps.values():
            os.close(descriptor)
        self.remove()

    @staticmethod
    def space(name: str) -> str:
        """Return the namespace of a network."""
        return f"{PREFIX}-{name}"

    def remove(self) -> None:
        """Delete the namespaces, those of an earlier run too."""
        for name in ADDRESSES:
            subprocess.run(
                ["ip", "netns", "del", self.space(name)], capture_output=True, check=False
            )

    @staticmethod
    def _tap(space: str, name: str) -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        other = os.open(f"/run/netns/{space}", os.O_RDONLY)
        try:
            if libc.setns(other, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            tap = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
        finally:
            libc.setns(own, CLONE_NEWNET)
            os.close(own)
            os.close(other)
        os.set_inheritable(tap, True)
        return tap


class Router:
    """One run of the machine, from power on to power off."""

    def __init__(
        self,
        board: Board,
        firmware: Firmware,
        flash: Path,
        networks: Networks,
        clock: str = "utc",
    ) -> None:
        command = [*board.emulator, "-m", str(MEMORY_MB), "-kernel", str(firmware.kernel)]
        command += ["-initrd", str(firmware.first_stage), "-nographic", "-no-reboot"]
        command += ["-append", f"console={board.console} panic=-1 quiet", "-nic", "none"]
        command += ["-monitor", "none", "-serial", "stdio", "-rtc", f"base={clock}"]
        self._control = flash.with_suffix(".control")
        command += ["-qmp", f"unix:{self._control},server=on,wait=off"]
        pairs = zip(networks.taps.items(), board.cards, strict=True)
        for number, ((name, tap), card) in enumerate(pairs, 1):
            command += ["-netdev", f"tap,id={name},fd={tap}"]
            command += ["-device", f"{card},netdev={name},mac=52:54:00:77:{number:02x}:02"]
        # What is written to the root is the emulator's to forget: not every disk can be read-only.
        for name, path, forget in (("root", firmware.root, "on"), ("flash", flash, "off")):
            drive = f"file={path},format=raw,if=none,snapshot={forget},id={name}"
            command += ["-drive", drive, "-device", f"{board.disk},drive={name}"]
        self.text = ""
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(networks.taps.values()),
        )
        self._mark = 0

    def wait(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """Read the console until `pattern` is there; return the match."""
        deadline = time.monotonic() + timeout_s
        assert self.process.stdout
        while True:
            found = re.search(pattern, self.text)
            if found:
                return found
            left = deadline - time.monotonic()
            ready = select.select([self.process.stdout], [], [], max(0.0, min(left, 1.0)))[0]
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            self.text += data.decode(errors="replace").replace("\r", "")
            if left <= 0 or (ready and not data):
                raise Failure(f"no {pattern!r} within {timeout_s} s:\n{self.text[-3000:]}")

    def shell(self, command: str, timeout_s: float = 60.0) -> str:
        """Run a command on the router's console; return what it prints."""
        assert self.process.stdin
        self._mark += 1
        # The echo of what is typed shows $((...)), its output the number.
        end = f"END{self._mark * 7919}"
        typed = f"{command}; echo E'ND'$(({self._mark}*7919))\n"
        before = len(self.text)
        self.process.stdin.write(typed.encode())
        self.process.stdin.flush()
        self.wait(rf"(?s).{{{before}}}.*{end}", timeout_s)
        out = self.text[before:].partition(end)[0]
        return out.partition("7919))\n")[2] if "7919))\n" in out else out

    def plug(self, network: str, connected: bool) -> None:
        """Put a network's cable in or pull it out, as the card sees it."""
        calls = {"qmp_capabilities": {}, "set_link": {"name": network, "up": connected}}
        with socket.socket(socket.AF_UNIX) as channel, channel.makefile("rwb") as lines:
            channel.settimeout(30)
            channel.connect(str(self._control))
            lines.readline()
            for name, values in calls.items():
                call = {"execute": name, "arguments": values}
                lines.write(json.dumps(call).encode() + b"\n")
                lines.flush()
                answer: dict[str, object] = {}
                while "return" not in answer:
                    answer = json.loads(lines.readline())
                    if "error" in answer:
                        raise Failure(f"{name}: {answer['error']}")

    def cut_power(self) -> None:
        """Stop it at once, as a plug that is pulled."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.cut_power()
