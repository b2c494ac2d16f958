"""The agent as a process: the device's service, with the control plane joined to it.

    run(command, override, log) -> exit status

The tunnel starts first, from the file and the cached configuration; the control plane is
imported afterwards. SIGTERM and SIGINT end the agent cleanly, SIGHUP reads the file
again and applies the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Protocol

from wantastic.agent.conductor import Conductor, Flash
from wantastic.config.errors import ConfigError
from wantastic.config.load import load_config
from wantastic.config.model import Config, HostPort
from wantastic.config.parse import Parsed
from wantastic.control.configuration import NOT_REGISTERED, Received
from wantastic.control.credentials import Credentials
from wantastic.control.enrol import token_argument
from wantastic.control.errors import ControlError, LocalError
from wantastic.control.rotation import Journal
from wantastic.device.device import StartError
from wantastic.device.service import Plan, Service, World, real_world
from wantastic.store.record import Record, StoreError
from wantastic.store.store import Store
from wantastic.telemetry.log import Log
from wantastic.version import BUILD_UNIX_NS

if TYPE_CHECKING:
    import ssl

    from wantastic.agent.uplink import Uplink
    from wantastic.device.userspace import TunnelNet
    from wantastic.proxy.access import LocalAccess

DEFAULT_SERVER: Final = HostPort("auth.wantastic.app", 443)
TICK_S: Final = 1.0
UPLINK_AGAIN_S: Final = 60.0
STDIN_PATH: Final = "/dev/stdin"
"""What the command line makes of `-token -`."""
MAX_NUDGED: Final = 16

# Kept equal to wantastic.cli.exits, which this room must not import.
EXIT_STATUS: Final[dict[type[BaseException], int]] = {
    ConfigError: 3,
    ControlError: 3,
    StartError: 4,
    PermissionError: 4,
    StoreError: 8,
}


class Command(Protocol):
    """The part of the command line that matters here; wantastic.cli.args.Run is one."""

    @property
    def config_path(self) -> str: ...
    @property
    def auth_url(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def token_file(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A command line whose token has been read from standard input."""

    config_path: str
    auth_url: str
    token: str = field(repr=False)
    token_file: str = ""


def with_stdin(command: Command, read: Callable[[int], bytes]) -> Command:
    """Return the command with the token from standard input, read while nothing runs yet."""
    if command.token_file != STDIN_PATH:
        return command
    token = token_argument("-", read)
    return Asked(command.config_path, command.auth_url, token)


class DeviceTunnel:
    """The device as the conductor sees it."""

    def __init__(self, service: AgentService) -> None:
        self._service = service
        self.last_handshake_s: float | None = None

    def apply(self, config: Config, private_key: bytes) -> int:
        return self._service.apply_now(config, private_key)

    def handshake_age_s(self) -> float | None:
        if self.last_handshake_s is None:
            return None
        return time.monotonic() - self.last_handshake_s

    def initiate_handshakes(self) -> bool:
        device = self._service.device
        dialled = [p.public_key for p in device.engine.status().peers if p.endpoint]
        for public_key in dialled[:MAX_NUDGED]:
            device.engine.initiate_handshake(public_key)
        return any(peer.endpoint for peer in self._service.config.all_peers)


class KeptInFile:
    """The place of a key that the configuration file holds: it is not ours to write."""

    def write(self, payload: bytes) -> bool:
        return False


class IdentityRecord:
    """The identity on flash; two copies, since it can never be made again."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def write(self, payload: bytes) -> bool:
        changed = self._record.write(payload)
        if changed:
            self._record.keep_copy()
        return changed


class AgentService(Service):
    """A device's service that follows a control server."""

    def __init__(
        self,
        command: Command,
        override: Callable[[Config], Config],
        log: Log,
        world: World,
    ) -> None:
        path = command.config_path
        plan = Plan(
            config_path=path,
            config=None if path else Config(),
            override=override,
            control_built_in=True,
        )
        super().__init__(plan, log, world)
        self._command = command
        self._file = Config()
        self._conductor: Conductor | None = None
        self._tunnel = DeviceTunnel(self)
        self._held: Received | None = None
        self._uplink: Uplink | None = None
        self._access: LocalAccess | None = None
        self._access_task: asyncio.Task[None] | None = None
        self._uplink_task: asyncio.Task[None] | None = None
        self._unix_s = lambda: world.unix_ns() / 1e9

    # -- Life -------------------------------------------------------------------------

    async def start(self) -> None:
        await super().start()
        self.device.shook_hands = self._handshake
        self._follow_access()
        if self._access_task:
            await self._access_task
        asyncio.get_running_loop().call_later(TICK_S, self._tick_agent)
        self._start_uplink()

    def _new_access(self, net: TunnelNet) -> LocalAccess | None:
        """Return what keeps proxies and forwards; None where this build has none."""
        if not find_spec("wantastic.proxy"):
            if self.config.wants_access:
                reason = "proxy or forwards are configured, and this build has none"
                remedy = "Use an executable that was built with them."
                self.conditions.set("access_missing", "warning", reason, remedy, "access")
            return None
        from wantastic.proxy.access import LocalAccess

        return LocalAccess(net, self.conditions, self.log, dns_context)

    def _load(self) -> bytes | None:
        """Read the file, the identity and the cache; return the private key to start with."""
        self._file = self._read_file()
        store = self.store = Store(self._file.state_dir)
        journal = self._journal(store)
        credentials = self._credentials(store)
        cached = store.record("configuration").read() if self._server() else None
        self._held = Received.parse(cached) if cached else None
        flash = Flash(
            store.record("configuration"),
            KeptInFile() if self._file.private_key else IdentityRecord(store.record("identity")),
        )
        self._conductor = Conductor(
            self._file,
            journal,
            self._tunnel,
            flash,
            self.conditions,
            self.log,
            now=time.monotonic,
            unix=self._unix_s,
            random=random.random,
            entropy=os.urandom,
        )
        registration = credentials.registration if credentials else NOT_REGISTERED
        self.config, key = self._conductor.start(self._held, registration)
        if self._conductor.received is None:
            self._held = None
        for notice in store.notices:
            self.log.warning("state", notice=notice)
        store.notices.clear()
        return key

    def _read_file(self) -> Config:
        parsed = Parsed(Config(), ())
        if self._command.config_path:
            parsed = load_config(self._command.config_path)
        config = self.plan.override(parsed.config)
        self.log.configure(config.log)
        self.log.hide(config.auth.token, self._command.token)
        for warning in parsed.warnings:
            self.log.warning("configuration", field=warning.path, warning=warning.text)
        return config

    def _journal(self, store: Store) -> Journal:
        if self._file.private_key:
            return Journal(self._file.private_key)
        record = store.record("identity")
        data = record.read()
        found = Journal.parse(data) if data else None
        if data and found is None:
            # Its key is good; the rest, perhaps a second key, must outlive the next write.
            record.keep_unreadable()
        return found or Journal(store.make_identity())

    def _credentials(self, store: Store) -> Credentials | None:
        """Return the stored credentials when they are for the server that is wanted."""
        server = self._server()
        data = store.record("credentials").read() if server else None
        found = Credentials.parse(data) if data else None
        return found if found and found.server == str(server) else None

    def _server(self) -> HostPort | None:
        """Return the control server; None when nothing asks for one."""
        if self._file.auth.server_url:
            return self._file.auth.server_url
        command = self._command
        enrols = command.auth_url or command.token or command.token_file
        asks = self._file.auth.auth_url or self._file.auth.token or self._file.auth.token_file
        return DEFAULT_SERVER if enrols or asks else None

    async def close(self) -> None:
        if self._uplink_task:
            self._uplink_task.cancel()
            await asyncio.gather(self._uplink_task, return_exceptions=True)
        if self._conductor:
            self._conductor.stop()
        if self._access_task:
            await asyncio.gather(self._access_task, return_exceptions=True)
        if self._access:
            await self._access.close()
        await super().close()

    # -- The control plane ------------------------------------------------------------

    def _start_uplink(self) -> None:
        if self._server() is not None:
            self._uplink_task = asyncio.ensure_future(self._keep_uplink())

    async def _keep_uplink(self) -> None:
        """Run the control plane; a fault in it is told, never ends the tunnel, and is tried again.

        Of its exception only kind and place are told, for its text may hold anything.
        """
        while True:
            try:
                return await self._run_uplink()
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                what = error.msg if isinstance(error, ImportError) else type(error).__name__
                at = f"{Path(place.filename).name} {place.lineno}"
                reason = f"the control plane ended: {what} ({at})"
                remedy = f"It starts again every {UPLINK_AGAIN_S:.0f} s; please report this."
                self.conditions.set("control_ended", "error", reason, remedy, "control")
                self._uplink = None
            await asyncio.sleep(UPLINK_AGAIN_S)
            self.conditions.clear("control_ended", "control")

    async def _run_uplink(self) -> None:
        """Import the control plane off the loop, and run it."""
        server, conductor, store = self._server(), self._conductor, self.store
        assert server is not None
        assert conductor is not None
        assert store is not None
        uplink = await asyncio.to_thread(_import_uplink)
        auth, command = self._file.auth, self._command
        flagged = command.auth_url or command.token or command.token_file
        self._uplink = uplink.Uplink(
            self._file,
            uplink.Enrolment(
                server,
                auth_url=command.auth_url if flagged else auth.auth_url,
                token=command.token if flagged else auth.token,
                token_file=command.token_file if flagged else auth.token_file,
            ),
            conductor,
            store,
            self.log,
            held=self._held,
            random=random.random,
            unix=self._unix_s,
            clock_floor_unix_s=BUILD_UNIX_NS / 1e9,
            outside=uplink.Outside(self._outer_mark, self._world.resolver.resolve),
        )
        conductor.server = self._uplink
        await self._uplink.run()

    def _outer_mark(self) -> int:
        """Return the mark that keeps packets out of the tunnel; 0: none is needed."""
        return self.device.engine.status().fwmark

    # -- What happens -----------------------------------------------------------------

    def _handshake(self, public_key: bytes) -> None:
        self._tunnel.last_handshake_s = time.monotonic()
        if self._conductor:
            self._conductor.handshake(public_key)

    def _tick_agent(self) -> None:
        if self._stop.is_set() or self._conductor is None:
            return
        self._conductor.tick()
        if self._uplink:
            self._uplink.tick()
        asyncio.get_running_loop().call_later(TICK_S, self._tick_agent)

    def apply_now(self, config: Config, private_key: bytes) -> int:
        """Run another configuration with a key."""
        # What happened until now says nothing of what is applied now.
        self._events()
        self.config = config
        done = self.device.apply(config, private_key)
        self._follow_access()
        return done

    def _follow_access(self) -> None:
        """Bring proxies and forwards to the configuration in force."""
        net = self.device.net if hasattr(self, "device") else None
        if net is None:
            return
        if self._access is None:
            self._access = self._new_access(net)
        if self._access is None:
            return
        before, access, config = self._access_task, self._access, self.config

        async def follow() -> None:
            if before:
                await asyncio.gather(before, return_exceptions=True)
            await access.apply(config)

        self._access_task = asyncio.get_running_loop().create_task(follow())

    def reload(self) -> None:
        """Read the file again and do what differs; a wrong file changes nothing."""
        before = self._file
        try:
            self._file = self._read_file()
        except (ConfigError, OSError) as error:
            self._file = before
            remedy = "Correct it and send SIGHUP again; what ran goes on."
            self.conditions.set("reload_failed", "error", str(error), remedy)
            return
        self.conditions.clear("reload_failed")
        assert self._conductor is not None
        self.device.on_reload()
        changes = self._conductor.reload(self._file)
        self._judge_features()
        self.log.info("configuration read again", changes=changes)
        if before.auth != self._file.auth:
            self._restart_uplink()
        elif self._uplink:
            self._uplink.read_token_again()

    def _restart_uplink(self) -> None:
        """The control server or the way to it changed."""
        if self._uplink_task:
            self._uplink_task.cancel()
        self._uplink = None
        if self._conductor:
            self._held = self._conductor.received
        self._start_uplink()

    def more_status(self) -> dict[str, object]:
        more: dict[str, object] = {}
        if self._conductor:
            more["agent"] = self._conductor.status()
        if self._uplink:
            more["control"] = self._uplink.status()
        return more


def dns_context() -> ssl.SSLContext:
    """Return a context for DNS over TLS; ValueError when there are no roots to trust."""
    from wantastic.control.tls import client_context, read_roots
    from wantastic.control.transport import Tls

    try:
        return client_context(Tls("", read_roots("")), alpn="dot")
    except LocalError as error:
        raise ValueError(error.reason) from None


def _import_uplink() -> ModuleType:
    from wantastic.agent import uplink

    return uplink


async def serve(service: AgentService, ready: Callable[[], None]) -> None:
    """Run an agent until a signal or the host ends it."""
    await service.start()
    try:
        ready()
        await service.run()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await service.close()


def run(command: Command, override: Callable[[Config], Config], log: Log) -> int:
    """Run the agent; return the exit status."""

    async def main() -> None:
        await serve(AgentService(command, override, log, real_world()), ready=lambda: None)

    try:
        command = with_stdin(command, sys.stdin.buffer.read)
        log.hide(command.token)
        asyncio.run(main())
    except tuple(EXIT_STATUS) as error:
        remedy = f". {error.remedy}" if isinstance(error, ControlError) else ""
        log.say_end(f"wantasticd: {error}{remedy}")
        return next(code for kind, code in EXIT_STATUS.items() if isinstance(error, kind))
    return 0
