"""A device as a running process: loop, sockets, signals, reload, and a clean end.

    run(Plan) -> exit status

With a configuration it is the agent's tunnel; without one it is what `wg-quick` starts
in wireguard-go's place. Everything that can go wrong before the tunnel is up raises
StartError or StoreError; afterwards it is a condition.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cext.engine.engine import Engine, EngineStopped
from cext.engine.memory import keep_memory, release_program
from wantastic.config.errors import ConfigError
from wantastic.config.load import load_config
from wantastic.config.model import Config
from wantastic.config.parse import Parsed
from wantastic.device import netlink as nl
from wantastic.device.device import TICK_S, Device, StartError
from wantastic.device.host import Host, LinuxHost
from wantastic.device.resolver import Resolver, SystemResolver
from wantastic.device.uapi_server import UapiServer
from wantastic.device.view import view
from wantastic.store.record import StoreError
from wantastic.store.store import Store
from wantastic.telemetry.conditions import Conditions, Severity
from wantastic.telemetry.log import Log
from wantastic.telemetry.socket import StatusServer, socket_folder
from wantastic.telemetry.status import Status, render_status

if TYPE_CHECKING:
    from cext.engine.engine import Event

# A burst of notices (a WAN going down and up) is acted on once.
SETTLE_S = 0.3
# Starting, and importing the control plane, touch much of the program that running does not.
RELEASE_AT_S = (3.0, 60.0)
SOCKET_CHECK_S = 2.0
# How long a link may be up in another namespace before we notice.
LINK_CHECK_S = 0.2


def as_is(config: Config) -> Config:
    """Return a configuration that no flag changes."""
    return config


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: a file, a configuration without one, or a bare interface for `wg`.

    `override` makes the configuration in force out of the file's (or `config`), at the
    start and at each reload: flags, and what the control server gave.
    """

    interface: str = ""
    config_path: str = ""
    config: Config | None = None
    tun_fd: int = -1
    uapi_fd: int = -1
    # What the caller does beside the tunnel.
    control_built_in: bool = False
    exit_node_built_in: bool = False
    override: Callable[[Config], Config] = as_is

    @property
    def is_bare(self) -> bool:
        """Whether `wg` configures the interface, and nobody else."""
        return not self.config_path and self.config is None


@dataclass(slots=True)
class World:
    """What is outside; tests put their own here."""

    engine: Callable[[Config], Engine]
    host: Callable[[], Host]
    resolver: Resolver
    unix_ns: Callable[[], int]


def make_engine(config: Config) -> Engine:
    """Return a native engine sized as configured."""
    try:
        return Engine(
            memory_limit_bytes=config.memory_limit_bytes,
            threads=config.threads,
            mtu=config.interface.mtu_bytes,
        )
    except (ValueError, MemoryError, OSError) as error:
        reason = f"the data plane cannot be made: {error}"
        remedy = "Check memory_limit, threads and interface.mtu."
        raise StartError("engine_failed", reason, remedy) from error


def real_world() -> World:
    """Return this machine. Keys will lie in this process: it leaves no core file from here on."""
    keep_memory()
    return World(make_engine, LinuxHost, SystemResolver(), time.time_ns)


class Service:
    """One interface of this process."""

    def __init__(self, plan: Plan, log: Log, world: World) -> None:
        self.plan = plan
        self.log = log
        self.config = Config()
        self.store: Store | None = None
        self.conditions = Conditions(log, world.unix_ns)
        self.failure: EngineStopped | None = None
        # Called with each event of the engine, after the device; for the agent.
        self.watchers: list[Callable[[Event], None]] = []
        self._world = world
        self._stop = asyncio.Event()
        self._settling: asyncio.TimerHandle | None = None
        self._wan_changed = False
        self._reopening: asyncio.Task[None] | None = None
        # Remembered: a stopped engine has none.
        self._event_fd = -1
        self._started_unix_ns = world.unix_ns()
        self._host: Host
        self.device: Device
        self._uapi: UapiServer
        self._status: StatusServer

    # -- life --

    async def start(self) -> None:
        """Bring everything up; on an error nothing is left behind."""
        # First of all: a signal while rules are being made must not leave them behind.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)
        key = None if self.plan.is_bare else self._load()
        self._judge_features()
        self._host = self._world.host()
        self.device = Device(
            self._world.engine(self.config),
            self._host,
            self._world.resolver,
            self.store,
            self.conditions,
            self.log,
            self._world.unix_ns,
        )
        self.device.closed_by_host = self.stop
        self._uapi = UapiServer(
            self.device.engine, self.log, lambda: self.device.book.listen_port, self.device.on_uapi
        )
        try:
            if self.plan.is_bare:
                self.device.start_bare(self.plan.interface, self.plan.tun_fd)
            else:
                self.device.start(self.config, key)
            await self._listen()
            self._follow()
        except BaseException:
            await self.close()
            raise
        self.log.info(
            "tunnel is up",
            interface=self.device.name,
            port=self.device.engine.status().listen_port,
        )
        # The executable starts without (buildroot/static/runtime/quick.py).
        gc.enable()
        for delay_s in RELEASE_AT_S:
            asyncio.get_running_loop().call_later(delay_s, release_program)

    def _judge_features(self) -> None:
        """Say what the configuration asks for and this process does not do."""
        if self.config.exit_node.enabled and not self.plan.exit_node_built_in:
            self.conditions.set(
                "exit_node_missing",
                "warning",
                "exit_node is enabled, and this build cannot forward traffic in userspace",
                "Set exit_node.enabled to false, or forward with the kernel (ip_forward).",
            )
        else:
            self.conditions.clear("exit_node_missing")
        if self.config.auth.server_url and not self.plan.control_built_in:
            self.log.info("this process talks to no control server; the file alone counts")

    def _load(self) -> bytes | None:
        """Read the configuration; return the private key to use."""
        parsed = Parsed(self.plan.config or Config(), ())
        if self.plan.config_path:
            parsed = load_config(self.plan.config_path)
        self.config = self.plan.override(parsed.config)
        self.log.configure(self.config.log)
        self.log.hide(self.config.auth.token)
        for warning in parsed.warnings:
            self.log.warning("configuration", field=warning.path, warning=warning.text)
        if self.store is None or str(self.store.folder) != self.config.state_dir:
            self.store = Store(self.config.state_dir)
        key = self.config.private_key or self.store.make_identity()
        for notice in self.store.notices:
            self.log.warning("state", notice=notice)
        self.store.notices.clear()
        return key

    async def _listen(self) -> None:
        """Open the sockets that `wg` and `-status` use."""
        await self._open_uapi(self.plan.uapi_fd)
        name = self.device.name
        self._status = StatusServer(
            socket_folder() / f"{name}.sock", {"status": lambda: render_status(self.status())}
        )
        try:
            await self._status.start()
        except OSError as error:
            reason = f"the status socket cannot be made: {error.strerror or error}"
            remedy = "Set WANTASTIC_RUN_DIR to a folder that can be written."
            self.conditions.set("status_failed", "warning", reason, remedy)

    async def _open_uapi(self, fd: int = -1) -> None:
        try:
            await self._uapi.start(self.device.name, fd)
        except OSError as error:
            reason = f"the socket for wg cannot be made: {error.strerror or error}"
            if self.plan.is_bare:
                remedy = "End the program that has this interface."
                raise StartError("uapi_failed", reason, remedy) from error
            remedy = "Make /var/run/wireguard writable if you want to use wg."
            # Without root and without a network interface nobody misses `wg`.
            severity: Severity = "info" if self.device.mode == "userspace" else "warning"
            self.conditions.set("uapi_failed", severity, reason, remedy)

    def _follow(self) -> None:
        """Watch the engine, the network, signals and time."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unforeseen)
        self._event_fd = self.device.engine.event_fd
        loop.add_reader(self._event_fd, self._events)
        self._host.watch(self._notice)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.call_later(TICK_S, self._tick)
        loop.call_later(SOCKET_CHECK_S, self._check_socket)

    async def run(self) -> None:
        """Wait until told to stop."""
        await self._stop.wait()
        if self.failure:
            raise self.failure

    def stop(self) -> None:
        """End run(). May be called from anywhere on the loop."""
        self._stop.set()

    async def close(self) -> None:
        """Take everything down."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
        if hasattr(self, "_status"):
            await self._status.close()
        await self._uapi.close()
        if self._event_fd >= 0:
            loop.remove_reader(self._event_fd)
        self.device.close()
        self._host.close()
        self.log.info("tunnel is down", interface=self.device.name)

    # -- what happens --

    def _unforeseen(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised: say it. A dead data plane ends the process, for its supervisor."""
        error = context.get("exception")
        self.log.error("unforeseen", what=context.get("message"), error=repr(error))
        if isinstance(error, EngineStopped):
            self.failure = error
            self.stop()

    def reload(self) -> None:
        """Read the configuration again and do what differs; a wrong file changes nothing."""
        if self.plan.is_bare:
            self.log.info("no configuration to read again")
            return
        before = self.config
        try:
            key = self._load()
        except (ConfigError, StoreError, OSError) as error:
            self.config = before
            remedy = "Correct it and send SIGHUP again; what ran goes on."
            self.conditions.set("reload_failed", "error", str(error), remedy)
            return
        self.conditions.clear("reload_failed")
        self._judge_features()
        self.device.on_reload()
        changes = self.device.apply(self.config, key)
        self.log.info("configuration read again", changes=changes)

    def apply(self, config: Config) -> int:
        """Use a configuration as it is, from the control server; return what changed."""
        self.config = config
        self._judge_features()
        key = config.private_key or (self.store.make_identity() if self.store else None)
        return self.device.apply(self.config, key)

    def status(self) -> Status:
        """Return the status document's values."""
        now = self._world.unix_ns()
        found = view(self.device, self.store, self.conditions, now, self._started_unix_ns)
        return replace(found, more=self.more_status())

    def more_status(self) -> dict[str, object]:
        """Return what others add to the status."""
        return {}

    def _events(self) -> None:
        for event in self.device.engine.events():
            self._event(event)

    def _event(self, event: Event) -> None:
        self.device.on_event(event)
        for watcher in self.watchers:
            watcher(event)

    def _notice(self, notice: nl.Body) -> None:
        ours = getattr(notice, "ifindex", 0) == self.device.ifindex
        if ours:
            if isinstance(notice, nl.LinkNotice):
                self.device.on_link(notice)
            return
        change = what_changed(notice, self.config.interface.bind_interface)
        if change is None:
            return
        self._wan_changed |= change
        if self._settling is None:
            loop = asyncio.get_running_loop()
            self._settling = loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._settling = None
        wan, self._wan_changed = self._wan_changed, False
        if not self._stop.is_set():
            self.device.on_network_change(wan)

    def _tick(self) -> None:
        if not self._stop.is_set():
            self.device.tick()
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _check_socket(self) -> None:
        """A removed socket file ends a bare interface, as with wireguard-go; an agent's
        tunnel is worth more than the file, which is made again."""
        if self._stop.is_set():
            return
        loop = asyncio.get_running_loop()
        self.device.look_at_link()
        if self._uapi.is_removed():
            if self.plan.is_bare:
                self.log.info("the socket for wg was removed: the interface goes too")
                self.stop()
                return
            self.log.warning("the socket for wg was removed: made again")
            self._reopening = loop.create_task(self._reopen_uapi())
        soon = self.device.awaits_link
        loop.call_later(LINK_CHECK_S if soon else SOCKET_CHECK_S, self._check_socket)

    async def _reopen_uapi(self) -> None:
        # A descriptor that was handed in went with the first socket; its number may be
        # somebody else's by now.
        await self._uapi.close()
        await self._open_uapi()


def what_changed(notice: nl.Body, bound_to: str) -> bool | None:
    """Return whether a notice is about the way out (True), another route, or nothing."""
    if isinstance(notice, nl.AddressNotice):
        return True
    if isinstance(notice, nl.RouteNotice):
        return notice.prefix_length == 0
    if isinstance(notice, nl.LinkNotice) and bound_to and notice.name == bound_to:
        return True
    return None


async def serve(
    plan: Plan, log: Log, ready: Callable[[], None], world: World | None = None
) -> None:
    """Run one interface until a signal, `wg` or the host ends it."""
    service = Service(plan, log, world or real_world())
    await service.start()
    try:
        ready()
        await service.run()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await service.close()
