"""Network namespaces for tests and benchmarks: made, joined by veth, always removed.

A Lab owns its namespaces. Names carry the process id, so that two runs do not meet;
everything a Lab started in them is ended by pid before they go.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

_serial = itertools.count()


def available() -> bool:
    """Return whether this process may make network namespaces and TUN devices."""
    return os.geteuid() == 0 and Path("/dev/net/tun").exists() and shutil.which("ip") is not None


def sh(*args: str, check: bool = True, timeout: float = 60) -> str:
    """Run a command, return its standard output; on failure raise with its errors."""
    done = subprocess.run(args, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Namespace:
    """One network namespace, and the processes started inside it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._running: list[subprocess.Popen[bytes]] = []
        sh("ip", "netns", "add", name)
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *args: str) -> list[str]:
        """Return the argv that runs `args` inside."""
        return ["ip", "netns", "exec", self.name, *args]

    def run(self, *args: str, check: bool = True, timeout: float = 60) -> str:
        """Run a command inside to its end and return its standard output."""
        return sh(*self.command(*args), check=check, timeout=timeout)

    def start(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        stdout: int | None = subprocess.DEVNULL,
        stderr: int | None = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a program inside. `ip netns exec` becomes it, so its pid is the program's."""
        process = subprocess.Popen(
            self.command(*args),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
        self._running.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes], timeout: float = 5) -> None:
        """End a program by SIGTERM, by SIGKILL if it does not listen."""
        if process in self._running:
            self._running.remove(process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def close(self) -> None:
        for process in list(self._running):
            self.stop(process)
        sh("ip", "netns", "del", self.name, check=False)


class Lab:
    """A handful of namespaces that live as long as the `with` block."""

    def __init__(self, prefix: str = "wt") -> None:
        self._prefix = f"{prefix}{os.getpid()}x{next(_serial)}"
        self._spaces: list[Namespace] = []

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for space in self._spaces:
            with contextlib.suppress(RuntimeError):
                space.close()

    def namespace(self, label: str) -> Namespace:
        space = Namespace(f"{self._prefix}{label}")
        self._spaces.append(space)
        return space

    def join(
        self,
        left: Namespace,
        right: Namespace,
        addresses: Sequence[tuple[str, str]],
        names: tuple[str, str] = ("eth0", "eth0"),
    ) -> None:
        """Join two namespaces by a veth pair; addresses are (left, right) with prefix."""
        sh(
            *("ip", "link", "add", names[0], "netns", left.name),
            *("type", "veth", "peer", "name", names[1], "netns", right.name),
        )
        for space, name, side in ((left, names[0], 0), (right, names[1], 1)):
            for pair in addresses:
                nodad = ("nodad",) if ":" in pair[side] else ()
                space.run("ip", "addr", "add", pair[side], "dev", name, *nodad)
            space.run("ip", "link", "set", name, "up")


@contextlib.contextmanager
def pair(prefix: str = "wt") -> Iterator[tuple[Lab, Namespace, Namespace]]:
    """Two namespaces joined by veth: 192.168.77.1 and .2, fd77::1 and ::2."""
    with Lab(prefix) as lab:
        left, right = lab.namespace("a"), lab.namespace("b")
        lab.join(
            left,
            right,
            [("192.168.77.1/24", "192.168.77.2/24"), ("fd77::1/64", "fd77::2/64")],
        )
        yield lab, left, right
