"""A server restarted under connected agents: how they come back, over real connections.

Each agent is the agent's own control client (plane, follower, backoff) with a connection of
its own over TLS, all in this process. They enrol, open their streams, and then the server is
restarted on the same port: drained by SIGTERM, or killed. What is measured is when each
connection is tried and when each agent has its stream back:

  restart    how the server went
  attempts   connections tried; the busiest tenth of the window in which they are due
  back       when the first, the median and the last agent had their answers again

A storm is a tenth of the window that sees more than STORM_FACTOR times its share. The window
is RECONNECT's first ceiling (30 s), or --window for a shorter run with the same shape; when
the server says when to come back (it does when drained), its own spread is added.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tests.support import server as support
from tests.support.fake_control import Lines, Listening, MemoryRecord, NoMemory
from wantastic.config.keys import generate_private_key, public_key_of
from wantastic.config.model import HostPort
from wantastic.control import backoff, follow, plane
from wantastic.control.client import AuthClient, Server
from wantastic.control.errors import ControlError
from wantastic.control.resolve import Resolver
from wantastic.control.transport import Address, Connect, Limits, Tls, Transport, load

STORM_FACTOR = 3.0
PARTS = 10
TIMEOUT_S = 300.0
AT_ONCE = 25


@dataclass
class Arrivals:
    """When connections were tried and agents came back, since the server went."""

    gone_at_s: float = 0.0
    tried_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)

    def now_s(self) -> float:
        return time.monotonic() - self.gone_at_s


def busiest(times_s: Sequence[float], part_s: float) -> int:
    """Return how many of some moments lie within any span of that length."""
    ordered, most, first = sorted(times_s), 0, 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] > part_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def is_storm(times_s: Sequence[float], count: int, window_s: float) -> bool:
    """Return whether some tenth of the window sees far more than a tenth of the agents.

    Few agents bunch by chance: four standard deviations of that are let pass.
    """
    share = count / PARTS
    return busiest(times_s, window_s / PARTS) > STORM_FACTOR * share + 4 * share**0.5


class Told(Listening):
    """An agent's listener that notes when it is well again."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals
        self.is_away = True
        self.came = asyncio.Event()

    def trouble(self, error: ControlError) -> None:
        self.is_away = True
        self.came.clear()

    def fine(self) -> None:
        if self.is_away:
            self._arrivals.back_s.append(self._arrivals.now_s())
        self.is_away = False
        self.came.set()


class Agents:
    """All agents of this process."""

    def __init__(
        self,
        count: int,
        at: HostPort,
        roots_pem: bytes,
        transport: Any,
        draw: Callable[[], float],
    ) -> None:
        self.arrivals = Arrivals()
        self._draw = draw
        self._at, self._roots = at, roots_pem
        self._connect = load(transport)
        self._told = [Told(self.arrivals) for _ in range(count)]
        self._tasks: list[asyncio.Task[None]] = []

    async def _counted(
        self, address: Address, authority: str, tls: Tls | None, limits: Limits
    ) -> Transport:
        self.arrivals.tried_s.append(self.arrivals.now_s())
        return await self._connect(address, authority, tls, limits)

    def _plane(self, token: str, told: Told) -> plane.ControlPlane:
        key = public_key_of(generate_private_key(os.urandom))
        server = Server(self._at, self._roots)
        return plane.ControlPlane(
            plane.Options(server=str(self._at), enrolment_token=token, certificate=False),
            AuthClient(server, cast(Connect, self._counted), Resolver(NoMemory())),
            MemoryRecord(),
            told,
            Lines(),
            public_key=lambda: key,
            random=self._draw,
            unix=time.time,
            entropy=os.urandom,
        )

    async def enrol(self, token: str) -> None:
        """Start all of them, a few at a time, and wait until each has its stream."""
        for first in range(0, len(self._told), AT_ONCE):
            some = self._told[first : first + AT_ONCE]
            for told in some:
                run = self._plane(token, told).run()
                self._tasks.append(asyncio.ensure_future(run))
            await asyncio.wait_for(asyncio.gather(*(t.came.wait() for t in some)), TIMEOUT_S)
        # Their first reports, which follow the first answer, are through.
        await asyncio.sleep(1.0)

    async def watch_restart(self, restart: Any, timeout_s: float) -> Arrivals:
        """Restart the server and wait until every agent is back, or so long."""
        self.arrivals.gone_at_s = time.monotonic()
        self.arrivals.tried_s.clear()
        self.arrivals.back_s.clear()
        await asyncio.to_thread(restart)
        end = time.monotonic() + timeout_s
        while len(self.arrivals.back_s) < len(self._told) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        return self.arrivals

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Restarted:
    """A server on one port, which goes and comes back."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state"
        support.set_gateway(self._state)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._stack = contextlib.ExitStack()
        self._count = 0
        self._server = self._start()

    def _start(self) -> support.ServerProcess:
        self._count += 1
        options = ("--host", "127.0.0.1", "--drain", "2", "--log-level", "warning")
        return self._stack.enter_context(
            support.serving(
                self._state,
                *options,
                *("--listen", f"127.0.0.1:{self.port}"),
                name=f"server-{self._count}",
            )
        )

    @property
    def roots_pem(self) -> bytes:
        return (self._state / "ca.pem").read_bytes()

    def token(self) -> str:
        return support.new_token(self._state, "--reusable")

    def drain(self) -> None:
        """SIGTERM, then a new process."""
        self._server.stop()
        self._server = self._start()

    def kill(self) -> None:
        """SIGKILL, then a new process."""
        self._server.process.kill()
        self._server.process.wait()
        self._server = self._start()

    def fault(self) -> str:
        """Say that the server ended by itself, if it did."""
        status = self._server.process.poll()
        return "" if status is None else f"; THE SERVER ENDED WITH {status}"

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def paced(window_s: float) -> Iterator[None]:
    """Let agents come back over another window than RECONNECT's."""
    before = follow.RECONNECT
    follow.RECONNECT = (window_s, backoff.RECONNECT[1])  # type: ignore[misc]
    try:
        yield
    finally:
        follow.RECONNECT = before  # type: ignore[misc]


def report(name: str, arrivals: Arrivals, count: int, window_s: float, fault: str) -> bool:
    """Print a line; True when all came back to a server that lives and there was no storm."""
    part_s = window_s / PARTS
    back = sorted(arrivals.back_s) or [0.0]
    storm = is_storm(arrivals.tried_s, count, window_s)
    lost = count - len(arrivals.back_s)
    sys.stdout.write(
        f"  {name:6} {len(arrivals.tried_s):5} attempts, the busiest {part_s:.1f} s saw "
        f"{busiest(arrivals.tried_s, part_s)} (an even share is {count / PARTS:.0f}); back after "
        f"{back[0]:.1f} s, median {back[len(back) // 2]:.1f} s, last {back[-1]:.1f} s"
        f"{'; A STORM' if storm else ''}{f'; {lost} NOT BACK' if lost else ''}{fault}\n"
    )
    sys.stdout.flush()
    return not (storm or lost or fault)


async def measure(
    restarted: Restarted, options: argparse.Namespace, draw: Callable[[], float]
) -> bool:
    """Enrol, then restart in each way."""
    at = HostPort("127.0.0.1", restarted.port)
    agents = Agents(options.agents, at, restarted.roots_pem, options.transport, draw)
    good = True
    try:
        began = time.monotonic()
        await agents.enrol(restarted.token())
        sys.stdout.write(
            f"{options.agents} agents with a stream each over TLS ({options.transport}), enrolled "
            f"in {time.monotonic() - began:.0f} s; they come back over {options.window:g} s\n"
        )
        for name, restart in (("drain", restarted.drain), ("kill", restarted.kill)):
            arrivals = await agents.watch_restart(restart, options.timeout)
            fault = restarted.fault()
            good = report(name, arrivals, options.agents, options.window, fault) and good
    finally:
        await agents.close()
    return good


def run(arguments: Sequence[str] | None = None, draw: Callable[[], float] = random.random) -> int:
    """Run with the agents' source of chance, between 0 and 1; return the exit status."""
    parser = argparse.ArgumentParser(description="Restart a server under connected agents.")
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--window", type=float, default=backoff.RECONNECT[0], metavar="SECONDS")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    parser.add_argument("--transport", choices=("grpcio", "grpclib"), default="grpcio")
    options = parser.parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        tempfile.TemporaryDirectory(prefix="wantastic-storm-") as folder,
        contextlib.closing(Restarted(Path(folder))) as restarted,
        paced(options.window),
    ):
        return 0 if asyncio.run(measure(restarted, options, draw)) else 1


if __name__ == "__main__":
    sys.exit(run())
