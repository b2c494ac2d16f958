"""Joins a netstack to Linux by a TUN device in real time and moves streams both ways.

python -m tests.support.netstack_tun OPTIONS

Runs inside a network namespace of its own as root; makes the device and its addresses.
OPTIONS is a JSON object of the fields of Options. Every stream carries so many bytes each
way, then either side closes its half. Prints one JSON object: what each side received,
what was wrong with it, and what the path did to packets.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import json
import multiprocessing
import os
import pathlib
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from cext.netstack.testing import Stack
from tests.support.packet_path import Impairment, Path

TUNSETIFF, IFF_TUN_NO_PI = 0x400454CA, 0x1001
LINUX = {4: "10.77.0.1", 6: "fd77::1"}
NETSTACK = {4: "10.77.0.2", 6: "fd77::2"}
PORT = 7000
POOLS = ("blocks", "tcp", "syn", "time_wait", "table", "timers", "answers", "reassemblies")


def pattern(size: int) -> bytes:
    """The stream that the native applications send and expect."""
    state, period = 88172645463325252, bytearray()
    for _ in range(65521):
        state ^= state << 13 & (1 << 64) - 1
        state ^= state >> 7
        state ^= state << 17 & (1 << 64) - 1
        period.append(state >> 32 & 0xFF)
    return (bytes(period) * (size // 65521 + 1))[:size]


def open_device(initcwnd: int) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"ns0", IFF_TUN_NO_PI))
    for command in (
        f"addr add {LINUX[4]}/24 dev ns0",
        f"addr add {LINUX[6]}/64 dev ns0 nodad",
        "link set ns0 mtu 1420 up",
        *(
            f"{route} dev ns0 initcwnd {initcwnd}"
            for route in ("route replace 10.77.0.0/24", "-6 route replace fd77::/64 metric 256")
            if initcwnd
        ),
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return fd


@dataclass(frozen=True)
class Options:
    """What happens. `listener` is "netstack" or "linux".

    `pause_s` is how long Linux waits before it reads, `hold_s` how long before it closes
    its half; `streams` are open at once, of `total`; Linux begins with `initcwnd` segments
    (0: as many as it likes).
    """

    listener: str = "netstack"
    version: int = 4
    streams: int = 1
    size: int = 1_000_000
    total: int = 0
    pause_s: float = 0.0
    hold_s: float = 0.0
    initcwnd: int = 0
    urgent: bool = False
    seed: int = 1
    timeout_s: float = 60
    path: dict[str, float] = field(default_factory=dict)


class Crossings:
    """Connections whose ends both sent a FIN before they knew of the other's."""

    def __init__(self) -> None:
        self.ports: set[int] = set()
        self._ends: dict[tuple[int, bool], int] = {}

    def look(self, packet: bytes, from_linux: bool) -> None:
        head = 20 if packet[0] >> 4 == 4 else 40
        if (packet[9] if head == 20 else packet[6]) != 6 or not packet[head + 13] & 1:
            return
        source, target, seq, ack = struct.unpack_from("!HHII", packet, head)
        port = source if source != PORT else target
        length = len(packet) - head - (packet[head + 12] >> 4) * 4
        self._ends.setdefault((port, from_linux), (seq + length + 1) % 2**32)
        other = self._ends.get((port, not from_linux))
        if other is not None and ack != other:
            self.ports.add(port)


class Pump:
    """Carries packets between the device and the stack, and calls its timers."""

    def __init__(self, stack: Stack, fd: int, options: Options) -> None:
        self.stack, self.fd, self.options = stack, fd, options
        self.done = threading.Event()
        self.crossings = Crossings()
        path = Path(**options.path) if options.path else None
        self.ways = [Impairment(path, options.seed + i) for i in range(2)] if path else []
        self._dialled = 0

    def dial(self) -> None:
        """Keep as many connections of the stack's open as there may be."""
        options = self.options
        total = options.total or options.streams
        while self._dialled < total and self.stack.app_status()["open"] < options.streams:
            self.stack.app_connect((LINUX[options.version], PORT), options.size)
            self._dialled += 1

    def arrive(self, now_ns: int) -> None:
        for _ in range(256):
            try:
                packet = os.read(self.fd, 2048)
            except BlockingIOError:
                break
            if not self.ways:
                self.stack.input(packet, now_ns=time.monotonic_ns())
                continue
            self.crossings.look(packet, from_linux=True)
            self.ways[0].put(packet, now_ns)
        for packet in self.ways[0].take(now_ns) if self.ways else ():
            self.stack.input(packet, now_ns=time.monotonic_ns())

    def leave(self, now_ns: int) -> None:
        while packets := self.stack.packets():
            for packet in packets:
                if not self.ways:
                    os.write(self.fd, packet)
                    continue
                self.crossings.look(packet, from_linux=False)
                self.ways[1].put(packet, now_ns)
            self.stack.app_serve()
        for packet in self.ways[1].take(now_ns) if self.ways else ():
            os.write(self.fd, packet)

    def run(self) -> None:
        while not self.done.is_set():
            if self.options.listener == "linux":
                self.dial()
            self.arrive(time.monotonic_ns())
            self.stack.poll(time.monotonic_ns())
            self.stack.app_serve()
            self.leave(time.monotonic_ns())
            due = [self.stack.poll_at(), *(way.next_at() for way in self.ways)]
            at = min((d for d in due if d is not None), default=None)
            wait_ms = 50.0 if at is None else (at - time.monotonic_ns()) / 1e6
            select.select([self.fd], [], [], min(50.0, max(0.0, wait_ms)) / 1000)


def exchange(connection: socket.socket, data: bytes, options: Options) -> bool:
    """Send `data` and close that half; whether the same came back, up to the end."""

    def send() -> None:
        if options.urgent:
            # The pointer is ignored (RFC 6093): the byte stays where it is in the stream.
            middle = len(data) // 2
            connection.sendall(data[:middle])
            connection.send(data[middle : middle + 1], socket.MSG_OOB)
            connection.sendall(data[middle + 1 :])
        else:
            connection.sendall(data)
        time.sleep(options.hold_s)
        connection.shutdown(socket.SHUT_WR)

    with connection, concurrent.futures.ThreadPoolExecutor(1) as pool:
        connection.settimeout(options.timeout_s)
        sending = pool.submit(send)
        time.sleep(options.pause_s)
        got = bytearray()
        while part := connection.recv(1 << 16):
            got += part
        sending.result()
        return bytes(got) == data


def exchange_all(options: Options, pipe: Connection) -> None:
    """Be Linux's applications, in a process whose heap is not the stack's.

    Says that it listens, waits for a word, and says how many exchanges were right.
    """
    data = pattern(options.size)
    family = socket.AF_INET6 if options.version == 6 else socket.AF_INET
    address = (LINUX[options.version], PORT)
    with socket.create_server(address, family=family, backlog=options.streams) as server:
        server.settimeout(options.timeout_s)
        pipe.send(None)
        pipe.recv()

        def one(_: int) -> bool:
            if options.listener == "linux":
                connection = server.accept()[0]
            else:
                connection = socket.create_connection(
                    (NETSTACK[options.version], PORT), options.timeout_s
                )
            return exchange(connection, data, options)

        with concurrent.futures.ThreadPoolExecutor(options.streams) as pool:
            pipe.send(sum(pool.map(one, range(options.total or options.streams))))


def resident_bytes() -> int:
    words = pathlib.Path("/proc/self/statm").read_text().split()
    return int(words[1]) * os.sysconf("SC_PAGESIZE")


def main(options: Options) -> None:
    total = options.total or options.streams
    fd = open_device(options.initcwnd)
    pipe, far = multiprocessing.Pipe()
    linux = multiprocessing.get_context("fork").Process(target=exchange_all, args=(options, far))
    linux.start()
    far.close()
    stack = Stack(
        addresses=tuple(NETSTACK.values()), native=True, now_ns=time.monotonic_ns(),
        ram_bytes=1 << 28, seed=time.monotonic_ns(), time_wait_ms=3000,
    )  # fmt: skip
    stack.app_set(server_bytes=options.size)
    if options.listener == "netstack":
        stack.listen(PORT, space=1 << 20)
    pump = Pump(stack, fd, options)
    pumping = threading.Thread(target=pump.run)
    empty = stack.usage()
    resident: list[int] = []
    pipe.recv()
    pumping.start()
    pipe.send(None)
    started = time.monotonic()
    try:
        while not pipe.poll(0.05):
            # After the first fifth, and what it is at the end.
            if stack.statistics()["opened"] >= total // 5:
                resident[1:] = [resident_bytes()]
        right = pipe.recv()
        took_s = time.monotonic() - started
        linux.join()
        deadline = time.monotonic() + options.timeout_s
        while stack.app_status()["open"] and time.monotonic() < deadline:
            time.sleep(0.01)
        # The last ones are in TIME_WAIT for three seconds.
        deadline = time.monotonic() + 10
        while stack.usage()["table"] > empty["table"] and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        pump.done.set()
        pumping.join()
    left = {name: stack.usage()[name] for name in POOLS if stack.usage()[name] != empty[name]}
    print(json.dumps({
        "right": right, "took_s": took_s, "broken": stack.check(), "left": left,
        "grown_bytes": resident[-1] - resident[0] if resident else 0,
        "crossed": len(pump.crossings.ports),
        "lost": sum(w.lost + w.overflown for w in pump.ways),
        "late": sum(w.late for w in pump.ways), "doubled": sum(w.doubled for w in pump.ways),
        **stack.app_status(), **stack.statistics(),
    }))  # fmt: skip


if __name__ == "__main__":
    main(Options(**json.loads(sys.argv[1])))
