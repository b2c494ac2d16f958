"""Joins a netstack to Linux by a TUN device in real time and moves streams both ways.

python -m tests.support.netstack_tun ROLE VERSION STREAMS BYTES PAUSE_S

Runs inside a network namespace of its own as root; makes the device and its addresses.
ROLE says who listens: "netstack" or "linux". Every stream carries BYTES each way, then
either side closes its half. PAUSE_S is how long Linux waits before it reads. Prints one
JSON object: what each side received and what was wrong with it.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

from cext.netstack.testing import Stack

TUNSETIFF, IFF_TUN_NO_PI = 0x400454CA, 0x1001
LINUX = {4: "10.77.0.1", 6: "fd77::1"}
NETSTACK = {4: "10.77.0.2", 6: "fd77::2"}
PORT = 7000
TIMEOUT_S = 25


def pattern(size: int) -> bytes:
    """The stream that the native applications send and expect."""
    state, period = 88172645463325252, bytearray()
    for _ in range(65521):
        state ^= state << 13 & (1 << 64) - 1
        state ^= state >> 7
        state ^= state << 17 & (1 << 64) - 1
        period.append(state >> 32 & 0xFF)
    return (bytes(period) * (size // 65521 + 1))[:size]


def open_device() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"ns0", IFF_TUN_NO_PI))
    for command in (
        f"addr add {LINUX[4]}/24 dev ns0",
        f"addr add {LINUX[6]}/64 dev ns0 nodad",
        "link set ns0 mtu 1420 up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return fd


def pump(stack: Stack, fd: int, done: threading.Event) -> None:
    """Carry packets between the device and the stack, and call its timers."""
    while not done.is_set():
        for _ in range(256):
            try:
                stack.input(os.read(fd, 2048), now_ns=time.monotonic_ns())
            except BlockingIOError:
                break
        stack.poll(time.monotonic_ns())
        stack.app_serve()
        while packets := stack.packets():
            for packet in packets:
                os.write(fd, packet)
            stack.app_serve()
        at = stack.poll_at()
        wait_ms = 50.0 if at is None else (at - time.monotonic_ns()) / 1e6
        select.select([fd], [], [], min(50.0, max(0.0, wait_ms)) / 1000)


def exchange(connection: socket.socket, data: bytes, pause_s: float) -> bool:
    """Send `data` and close that half; whether the same came back, up to the end."""

    def send() -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    with connection, concurrent.futures.ThreadPoolExecutor(1) as pool:
        connection.settimeout(TIMEOUT_S)
        sending = pool.submit(send)
        time.sleep(pause_s)
        got = bytearray()
        while part := connection.recv(1 << 18):
            got += part
        sending.result()
        return bytes(got) == data


def main(role: str, version: int, streams: int, size: int, pause_s: float) -> None:
    data = pattern(size)
    stack = Stack(
        addresses=tuple(NETSTACK.values()), native=True, now_ns=time.monotonic_ns(),
        ram_bytes=1 << 28, seed=time.monotonic_ns(),
    )  # fmt: skip
    stack.app_set(server_bytes=size)
    fd, done = open_device(), threading.Event()
    if role == "netstack":
        stack.listen(PORT, space=1 << 20)
    pumping = threading.Thread(target=pump, args=(stack, fd, done))

    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    server = socket.create_server((LINUX[version], PORT), family=family, backlog=streams)
    server.settimeout(TIMEOUT_S)
    if role == "linux":
        for _ in range(streams):
            stack.app_connect((LINUX[version], PORT), size)
    pumping.start()
    started = time.monotonic()

    def one(_: int) -> bool:
        if role == "linux":
            connection = server.accept()[0]
        else:
            connection = socket.create_connection((NETSTACK[version], PORT), TIMEOUT_S)
        return exchange(connection, data, pause_s)

    try:
        with concurrent.futures.ThreadPoolExecutor(streams) as pool:
            right = sum(pool.map(one, range(streams)))
        took_s = time.monotonic() - started
        while stack.app_status()["open"] and time.monotonic() < started + TIMEOUT_S:
            time.sleep(0.01)
    finally:
        done.set()
        pumping.join()
    print(json.dumps({
        "right": right, "took_s": took_s, "broken": stack.check(),
        **stack.app_status(), **stack.statistics(),
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
