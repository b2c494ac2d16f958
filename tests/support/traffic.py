"""TCP applications of benchmarks: a server, and clients that send, receive or sit idle.

python -m tests.support.traffic serve HOST PORT
python -m tests.support.traffic up|down HOST PORT SECONDS [STREAMS]
python -m tests.support.traffic hold HOST PORT COUNT

The server prints a line when it listens, and one JSON object for each stream that it
received; `up` and `down` print one for theirs: bytes within SECONDS of the first one,
as the receiver counts them. `hold` opens COUNT connections, sends a byte over each and
waits for it to come back; it prints "idle", and for each line of its standard input has
every connection carry EXCHANGE_BYTES both ways at once and prints "done".
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import struct
import sys
import threading
import time

CHUNK = 512 * 1024
EXCHANGE_BYTES = 16 * 1024
TIMEOUT_S = 60
SINK, SOURCE, ECHO = b"S", b"R", b"E"
# Some machines default to another; where it is missing the default stays.
CONGESTION_CONTROL = b"cubic"


def receive(connection: socket.socket, seconds: float) -> dict[str, float]:
    """Count what comes within `seconds` of the first byte, or until the end."""
    buffer = bytearray(CHUNK)
    total = connection.recv_into(buffer)
    began = now = time.monotonic()
    while now < began + seconds:
        connection.settimeout(max(0.001, began + seconds - now))
        try:
            got = connection.recv_into(buffer)
        except TimeoutError:
            got = -1
        now = time.monotonic()
        if got == 0:
            break
        total += max(0, got)
    return {"bytes": total, "seconds": now - began}


def send(connection: socket.socket, seconds: float) -> None:
    """Send until the other side has had enough; that takes no longer than it said."""
    data = bytes(CHUNK)
    connection.settimeout(seconds + TIMEOUT_S)
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(data)


def reset(connection: socket.socket) -> None:
    """Close so that what is still under way is thrown away."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def tell(found: dict[str, float]) -> None:
    """Say it as one line; print() would write the line's end apart, and threads mix there."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def serve_stream(connection: socket.socket, kind: bytes) -> None:
    connection.setblocking(True)
    (seconds,) = struct.unpack("!d", connection.recv(8, socket.MSG_WAITALL))
    if kind == SINK:
        tell(receive(connection, seconds))
        reset(connection)
    else:
        send(connection, seconds)
        connection.close()


def prepare(made: socket.socket) -> socket.socket:
    """Set what all connections here have; accepted ones inherit it of their listener."""
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL)
    return made


class Server:
    """One selector for connections that mostly wait, a thread for each stream."""

    def __init__(self, host: str, port: int) -> None:
        self._ready = selectors.DefaultSelector()
        self._listener = prepare(socket.create_server((host, port), backlog=4096))
        self._ready.register(self._listener, selectors.EVENT_READ, None)

    def run(self) -> None:
        while True:
            for key, _ in self._ready.select():
                if key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    self._ready.register(connection, selectors.EVENT_READ, b"")
                elif isinstance(key.fileobj, socket.socket):
                    with contextlib.suppress(OSError):
                        self._serve(key.fileobj, key.data)

    def _serve(self, connection: socket.socket, kind: bytes) -> None:
        if not kind:
            kind = connection.recv(1)
            if kind in (SINK, SOURCE):
                self._ready.unregister(connection)
                threading.Thread(target=serve_stream, args=(connection, kind), daemon=True).start()
                return
            self._ready.modify(connection, selectors.EVENT_READ, ECHO)
        data = connection.recv(CHUNK) if kind == ECHO else b""
        if data:
            connection.setblocking(True)
            connection.sendall(data)
        else:
            self._ready.unregister(connection)
            connection.close()


def stream(kind: str, host: str, port: int, seconds: float) -> None:
    """Run one stream against the server; print what a receiver counted."""
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        prepare(connection)
        connection.sendall((SINK if kind == "up" else SOURCE) + struct.pack("!d", seconds))
        if kind == "up":
            send(connection, seconds)
        else:
            connection.settimeout(TIMEOUT_S)
            tell(receive(connection, seconds))
            reset(connection)


def exchange(connections: list[socket.socket], data: bytes) -> None:
    """Send over all connections, then wait until everything came back."""
    for connection in connections:
        connection.sendall(data)
    for connection in connections:
        got = 0
        while got < len(data):
            part = connection.recv(len(data) - got)
            if not part:
                raise ConnectionResetError("a connection ended early")
            got += len(part)


def hold(host: str, port: int, count: int) -> None:
    connections = []
    for _ in range(count):
        connection = prepare(socket.create_connection((host, port), TIMEOUT_S))
        connections.append(connection)
        # One after the other: a listener's backlog is not what is measured.
        connection.sendall(ECHO + b"x")
        if connection.recv(1) != b"x":
            raise ConnectionResetError("no echo")
    print("idle", flush=True)
    while sys.stdin.readline():
        exchange(connections, bytes(EXCHANGE_BYTES))
        print("done", flush=True)


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command, host, port, *rest = sys.argv[1:]
    if command == "serve":
        server = Server(host, int(port))
        print("listening", flush=True)
        server.run()
    elif command == "hold":
        hold(host, int(port), int(rest[0]))
    else:
        seconds, count = float(rest[0]), int(rest[1]) if len(rest) > 1 else 1
        threads = [
            threading.Thread(target=stream, args=(command, host, int(port), seconds))
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
