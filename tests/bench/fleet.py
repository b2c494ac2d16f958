"""A fleet of simulated devices against real server processes: registering, refreshing, polling.

For SQLite and PostgreSQL, with one and two server processes:

  register   every device, a few at a time
  fetch      every device's first configuration
  refresh    tokens, for a while
  poll max   "not modified" polls as fast as answers come
  poll paced the same at a fixed rate (a million devices every five minutes are 3,333 a
             second). A call's time counts from when it was due, not from when it was
             sent, so that a stall of server or generator shows in every call it holds up;
             what failed or was never answered counts as endless. How late the generator
             itself sent is printed beside it. Meanwhile an operator changes single devices
             and whole tenants, each of which is read once by each process that is asked.

Afterwards every device asks once more, through every process: each has to have the
version that the database says, addresses have to differ, and the database has to hold
exactly the devices that were acknowledged. Else an update was lost, and the exit status
is 1.

Times are those of the client, in the same machine; CPU is of the server processes alone
(/proc/PID/task/*/schedstat), so "RPC/s a core" is what one busy core would carry.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import random
import ssl
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import uvloop

from tests.bench.http2_calls import Connection, connect, header_block
from tests.support import postgres
from tests.support import server as support
from wantastic.control import auth_pb2 as pb
from wantastic.server import devices, tenants
from wantastic.server.configuration import version_of
from wantastic.server.database import Database

TARGET_PER_S = 3333
CONNECTIONS = 16
REGISTERING = 32
IN_FLIGHT = 48
TICK_S = 0.002
UNANSWERED_S = 10.0
TARGET_P99_S = 0.050
CHANGES_PER_S = 5


@dataclass(slots=True)
class Phase:
    """What one phase measured."""

    name: str
    seconds: float = 0.0
    times_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    failed: int = 0
    cpu_s: float = 0.0

    def line(self) -> str:
        """Return one line of the table."""
        count = len(self.times_s) - self.failed
        p50, p99 = percentile(self.times_s, 50), percentile(self.times_s, 99)
        cost_us = self.cpu_s / count * 1e6 if count else 0
        per_core = count / self.cpu_s if self.cpu_s else 0
        return (
            f"  {self.name:11} {count / self.seconds:8.0f} RPC/s   p50 {p50 * 1e3:7.1f} ms   "
            f"p99 {p99 * 1e3:7.1f} ms   {cost_us:6.0f} us CPU/RPC   {per_core:6.0f} RPC/s a core"
            + (f"   {self.failed} FAILED" if self.failed else "")
        )


def percentile(values: list[float], part: int) -> float:
    """Return the value that `part` percent do not exceed."""
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) - 1, len(ordered) * part // 100)]


@dataclass(slots=True)
class SimulatedDevice:
    """What a device remembers."""

    name: str
    headers: bytes = b""
    refresh: bytes = b""
    etag: str = ""
    version: int = 0
    address: str = ""
    poll: bytes = b""


class Fleet:
    """All devices, and connections to all servers."""

    def __init__(self, count: int, ports: Sequence[int], tls: ssl.SSLContext | None) -> None:
        self.devices = [SimulatedDevice(f"device-{n}") for n in range(count)]
        self._ports = ports
        self._tls = tls
        self._connections: list[Connection] = []

    async def open(self) -> None:
        """Connect, spread over the servers."""
        for number in range(CONNECTIONS):
            port = self._ports[number % len(self._ports)]
            self._connections.append(await connect("localhost", port, self._tls))

    def close(self) -> None:
        """Drop all connections."""
        for connection in self._connections:
            connection.close()

    def turn(self) -> None:
        """Let every device ask the next server: connections alternate between them."""
        self.devices.append(self.devices.pop(0))

    def _headers(self, method: str, token: str) -> bytes:
        return header_block(f"/AuthService/{method}", "localhost", token, secure=bool(self._tls))

    async def _call(self, number: int, headers: bytes, message: bytes) -> bytes | None:
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def done(reply: bytes | None) -> None:
            if not future.done():
                future.set_result(reply)

        self._connections[number % CONNECTIONS].call(headers, message, done)
        return await future

    async def register(self, token: str, phase: Phase) -> None:
        """Register every device."""
        headers = self._headers("RegisterDevice", token)

        async def one(device: SimulatedDevice, number: int) -> None:
            request = pb.RegisterDeviceRequest(device_id=device.name, public_key=support.key())
            reply = await self._call(number, headers, request.SerializeToString())
            if reply is None:
                raise RuntimeError(f"{device.name} was refused")
            answer = pb.RegisterDeviceResponse.FromString(reply)
            device.headers = self._headers("GetConfiguration", answer.token)
            device.refresh = self._headers("RefreshToken", answer.token)

        await self._each(one, phase)

    async def fetch(self, phase: Phase) -> None:
        """Fetch every device's configuration as it is now."""

        async def one(device: SimulatedDevice, number: int) -> None:
            reply = await self._call(number, device.headers, b"")
            if reply is None:
                raise RuntimeError(f"{device.name} gets no configuration")
            self._take(device, pb.GetConfigurationResponse.FromString(reply))

        await self._each(one, phase)

    def _take(self, device: SimulatedDevice, answer: pb.GetConfigurationResponse) -> None:
        device.etag, device.version = answer.etag, answer.version
        device.address = answer.configuration.addresses.addresses[0]
        device.poll = pb.GetConfigurationRequest(known_etag=answer.etag).SerializeToString()

    async def _each(self, work: Callable[[SimulatedDevice, int], object], phase: Phase) -> None:
        pending = iter(enumerate(self.devices))

        async def worker() -> None:
            for number, device in pending:
                began = time.perf_counter()
                await work(device, number)  # type: ignore[misc]
                phase.times_s.append(time.perf_counter() - began)

        await asyncio.gather(*(worker() for _ in range(REGISTERING)))

    async def refresh(self, phase: Phase, seconds: float) -> None:
        """Refresh tokens of random devices as fast as answers come."""
        await self._closed_loop(phase, seconds, lambda d: (d.refresh, b""), self._refreshed)

    async def poll(self, phase: Phase, seconds: float) -> None:
        """Poll for random devices as fast as answers come."""
        await self._closed_loop(phase, seconds, lambda d: (d.headers, d.poll), self._polled)

    def _refreshed(self, device: SimulatedDevice, reply: bytes) -> None:
        token = pb.RefreshTokenResponse.FromString(reply).token
        device.headers = self._headers("GetConfiguration", token)
        device.refresh = self._headers("RefreshToken", token)

    def _polled(self, device: SimulatedDevice, reply: bytes) -> None:
        answer = pb.GetConfigurationResponse.FromString(reply)
        # Answers may overtake each other: an older one is not taken.
        if not answer.not_modified and answer.version >= device.version:
            self._take(device, answer)

    async def _closed_loop(
        self,
        phase: Phase,
        seconds: float,
        request: Callable[[SimulatedDevice], tuple[bytes, bytes]],
        take: Callable[[SimulatedDevice, bytes], None],
    ) -> None:
        end_s = time.perf_counter() + seconds

        async def worker(number: int) -> None:
            while (began := time.perf_counter()) < end_s:
                device = random.choice(self.devices)
                reply = await self._call(number, *request(device))
                phase.times_s.append(math.inf if reply is None else time.perf_counter() - began)
                if reply is None:
                    phase.failed += 1
                else:
                    take(device, reply)

        await asyncio.gather(*(worker(n) for n in range(IN_FLIGHT)))

    async def poll_paced(self, phase: Phase, seconds: float, per_s: float) -> None:
        """Poll at a fixed rate, whether answers come or not."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        sent = 0

        def send(due_s: float) -> None:
            device = random.choice(self.devices)

            def done(reply: bytes | None) -> None:
                if reply is None:
                    phase.failed += 1
                    phase.times_s.append(math.inf)
                else:
                    phase.times_s.append(time.perf_counter() - due_s)
                    self._polled(device, reply)

            phase.late_s.append(time.perf_counter() - due_s)
            connection = random.choice(self._connections)
            connection.call(device.headers, device.poll, done)

        while (now := time.perf_counter()) < began + seconds:
            while sent < (now - began) * per_s:
                send(began + sent / per_s)
                sent += 1
            await asyncio.sleep(TICK_S)
        end = loop.time() + UNANSWERED_S
        while len(phase.times_s) < sent and loop.time() < end:
            await asyncio.sleep(TICK_S)
        unanswered = sent - len(phase.times_s)
        phase.failed += unanswered
        phase.times_s += [math.inf] * unanswered


class Machine:
    """Server processes on one database."""

    def __init__(self, servers: Sequence[support.ServerProcess], state: Path, url: str) -> None:
        self.servers = servers
        self.state = state
        self.url = url or str(state / "server.db")
        self.given_url = url

    def cpu_s(self) -> float:
        """Return the CPU time of all server processes so far."""
        total_ns = 0
        for server in self.servers:
            for task in Path(f"/proc/{server.process.pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total_ns += int((task / "schedstat").read_text().split()[0])
        return total_ns / 1e9

    def reads(self) -> float:
        """Return how often any server read a device from the database for a poll."""
        total = 0.0
        for server in self.servers:
            url = f"http://127.0.0.1:{server.ports['metrics']}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith("wantastic_server_directory_reads "):
                        total += float(line.split()[1])
        return total

    def operate(self, *arguments: str) -> None:
        """Run an operator's command."""
        support.operate(self.state, *arguments, database=self.given_url)


async def measure(machine: Machine, options: argparse.Namespace) -> bool:
    """Run all phases; True when nothing was lost."""
    tls = None
    if options.tls:
        tls = ssl.create_default_context(cafile=str(machine.state / "ca.pem"))
        tls.set_alpn_protocols(["h2"])
    ports = [int(server.ports["grpc"]) for server in machine.servers]
    fleet = Fleet(options.devices, ports, tls)
    await fleet.open()
    token = support.new_token(machine.state, "--reusable", database=machine.given_url)
    try:
        await _phase(machine, Phase("register"), lambda p: fleet.register(token, p))
        await _phase(machine, Phase("fetch"), fleet.fetch)
        # Every process has read every device once, as after an hour of real polling.
        warm = Phase("warm")
        for _ in machine.servers:
            await fleet.fetch(warm)
            fleet.turn()
        await _phase(machine, Phase("refresh"), lambda p: fleet.refresh(p, options.seconds / 2))
        reads = machine.reads()
        await _phase(machine, Phase("poll max"), lambda p: fleet.poll(p, options.seconds))
        sys.stdout.write(
            f"  {'':11} {machine.reads() - reads:8.0f} database reads by these polls\n"
        )
        with ProcessPoolExecutor(1, get_context("spawn")) as operators:
            # The operator has started and imported everything before time counts.
            operators.submit(change, machine.url, options.devices, 0.0).result()
            await asyncio.sleep(1.0)
            changes = operators.submit(change, machine.url, options.devices, options.seconds)
            paced = Phase(f"poll {options.rate}/s")
            await _phase(
                machine, paced, lambda p: fleet.poll_paced(p, options.seconds, options.rate)
            )
            made = await asyncio.wrap_future(changes)
        p99_s = percentile(paced.times_s, 99)
        sys.stdout.write(
            f"  {'':11} p99 {'below' if p99_s < TARGET_P99_S else 'NOT below'} "
            f"{TARGET_P99_S * 1e3:.0f} ms; the generator sent p50 "
            f"{percentile(paced.late_s, 50) * 1e3:.1f} ms, p99 "
            f"{percentile(paced.late_s, 99) * 1e3:.1f} ms late\n"
        )
        await asyncio.sleep(1.0)
        lost = await verify(machine, fleet)
    finally:
        fleet.close()
    text = "; ".join(lost) or "none"
    sys.stdout.write(f"  {made} changes made during the paced polls; lost updates: {text}\n")
    return not lost


async def _phase(machine: Machine, phase: Phase, run: Callable[[Phase], object]) -> None:
    cpu_s, began = machine.cpu_s(), time.perf_counter()
    await run(phase)  # type: ignore[misc]
    phase.seconds = time.perf_counter() - began
    phase.cpu_s = machine.cpu_s() - cpu_s
    sys.stdout.write(phase.line() + "\n")
    sys.stdout.flush()


def change(url: str, count: int, seconds: float) -> int:
    """Change single devices for a while, and the whole tenant once; return how often."""
    database = Database.open(url)
    made = 0
    end_s = time.monotonic() + seconds / 2
    while time.monotonic() < end_s:
        with database.write() as transaction:
            device = devices.find(transaction, f"device-{random.randrange(count)}")
            devices.order_rekey(transaction, device, made)
        made += 1
        time.sleep(1 / CHANGES_PER_S)
    with database.write() as transaction:
        tenants.touch_all(transaction)
    database.close()
    return made + 1


async def verify(machine: Machine, fleet: Fleet) -> list[str]:
    """Compare what devices have with what the database holds."""
    database = Database.open(machine.url)
    with database.read() as transaction:
        revision = {t.id: t.revision for t in tenants.list_all(transaction)}
        stored = {
            d.device_id: (version_of(d.revision, revision[d.tenant_id]), f"{d.ipv4}/32")
            for d in devices.iterate(transaction)
        }
    database.close()
    lost = []
    if set(stored) != {device.name for device in fleet.devices}:
        lost.append(f"{len(stored)} devices stored of {len(fleet.devices)} acknowledged")
    if len({address for _, address in stored.values()}) != len(stored):
        lost.append("two devices have one address")
    for number, _ in enumerate(machine.servers):
        for device in fleet.devices:
            device.version = 0
        fleet.turn()
        await fleet.fetch(Phase("verify"))
        wrong = [d.name for d in fleet.devices if stored[d.name] != (d.version, d.address)]
        if wrong:
            lost.append(f"{len(wrong)} devices out of date in round {number + 1}")
    return lost


@contextlib.contextmanager
def machine(
    kind: str, processes: int, folder: Path, options: argparse.Namespace
) -> Iterator[Machine]:
    """Start a database and server processes on it."""
    with contextlib.ExitStack() as stack:
        url = ""
        state = folder / f"{kind}-{processes}" / "state"
        state.parent.mkdir()
        if kind == "postgresql":
            url = stack.enter_context(postgres.running()).new_database()
            Database.open(url).migrate()
        support.set_gateway(state, url)
        more = ["--metrics-listen", "127.0.0.1:0", "--log-level", "warning"]
        more += ["--host", "localhost"] if options.tls else ["--insecure"]
        servers = [
            stack.enter_context(support.serving(state, *more, database=url, name=f"server-{n}"))
            for n in range(processes)
        ]
        yield Machine(servers, state, url)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit status."""
    parser = argparse.ArgumentParser(description="Load the reference server with devices.")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each polling phase")
    parser.add_argument("--rate", type=int, default=TARGET_PER_S, help="paced polls a second")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--processes", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args(arguments)
    sys.stdout.write(
        f"{os.cpu_count()} processors for servers, generator and database together; load average "
        f"{os.getloadavg()[0]:.1f} before the start\n"
    )
    kinds = ("sqlite", "postgresql") if options.database == "both" else (options.database,)
    good = True
    with tempfile.TemporaryDirectory(prefix="wantastic-fleet-") as folder:
        for kind in kinds:
            for processes in options.processes or (1, 2):
                sys.stdout.write(
                    f"{kind}, {processes} server process{'es' if processes > 1 else ''}, "
                    f"{options.devices} devices{', TLS' if options.tls else ''}\n"
                )
                with (
                    machine(kind, processes, Path(folder), options) as running,
                    asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
                ):
                    good = runner.run(measure(running, options)) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(run())
