"""The real program with a configuration file, in a namespace, for system tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.netns import Namespace
from tests.support.peers import ROOT

PROGRAM = (
    (os.environ["WANTASTICD"],)
    if "WANTASTICD" in os.environ
    else (sys.executable, "-m", "wantastic.cli.main")
)
_count = iter(range(10**6))


def interface_name() -> str:
    """Return a name that no other run uses: the sockets of `wg` are the machine's."""
    return f"wd{os.getpid() % 100000}n{next(_count)}"


def wait_for(what: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"never so: {what}"
        time.sleep(0.02)


@dataclass
class Agent:
    """A running `wantasticd -config FILE`."""

    space: Namespace
    folder: Path
    config: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    limits: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.config["interface"]["name"])

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def write(self) -> Path:
        """Write the configuration file."""
        path = self.folder / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.config))
        return path

    def start(self, *flags: str, wait: bool = True) -> None:
        """Start, and wait until the tunnel is up."""
        command = (*self.limits, *PROGRAM, "-config", str(self.write()), *flags)
        environ = {"PYTHONPATH": str(ROOT), "WANTASTIC_RUN_DIR": str(self.folder / "run")}
        with (self.folder / "log").open("wb") as log:
            self.process = self.space.start(
                *command, env=environ | self.environ, stderr=log.fileno()
            )
        if wait:
            wait_for(lambda: "tunnel is up" in self.log or self.ended())
            assert not self.ended(), self.log

    def ended(self) -> bool:
        assert self.process
        return self.process.poll() is not None

    def reload(self) -> None:
        """Write the file, send SIGHUP, wait until it was read."""
        assert self.process
        before = self.log.count("configuration read again") + self.log.count("reload_failed")
        self.write()
        self.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: (
                self.log.count("configuration read again") + self.log.count("reload_failed")
                > before
            )
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; return its exit status."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(10)

    def status(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run -status beside it."""
        return self.program("-status", "-interface", self.name, *flags)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.status("--json").stdout)
        return found

    def program(self, *flags: str) -> subprocess.CompletedProcess[str]:
        environ = {"PYTHONPATH": str(ROOT), "WANTASTIC_RUN_DIR": str(self.folder / "run")}
        return subprocess.run(
            [*PROGRAM, *flags],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def host_state(space: Namespace) -> str:
    """Return everything of a namespace that an agent could leave behind."""
    links = sorted(
        line.split(":")[1].strip().split("@")[0]
        for line in space.run("ip", "-o", "link").splitlines()
    )
    views = [("-4", "route", "show", "table", "all"), ("-4", "rule"), ("-6", "rule")]
    mark = space.run("sysctl", "-n", "net.ipv4.conf.all.src_valid_mark")
    return "\n".join([*links, *(space.run("ip", *view) for view in views), mark])


@contextmanager
def agent(
    space: Namespace, folder: Path, server: dict[str, Any], **interface: Any
) -> Iterator[Agent]:
    """An agent that is not started yet; it is ended with the block."""
    config = {
        "server": server,
        "interface": {
            "name": interface_name(),
            "addresses": ["10.9.0.1/24", "fd09::1/64"],
            "listen_port": 51820,
        }
        | interface,
        "state_dir": str(folder / "state"),
    }
    found = Agent(space, folder, config)
    try:
        yield found
    finally:
        if found.process:
            space.stop(found.process)
