"""Builds the control plane for one device and keeps it running.

Imported late, in a thread, because gRPC and protobuf take seconds to load on a small
router, and the tunnel runs from the cache by then. Whatever goes wrong here is told to the
conductor and tried again; nothing ends the agent.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wantastic.agent.conductor import Conductor, describe
from wantastic.config.model import Config, HostPort
from wantastic.control import methods
from wantastic.control.backoff import RECONNECT, Backoff
from wantastic.control.client import AuthClient, Server
from wantastic.control.configuration import Received, clean
from wantastic.control.device_flow import DeviceFlow, Prompt, sign_in
from wantastic.control.dial import no_mark
from wantastic.control.enrol import read_token_file
from wantastic.control.errors import ControlError, LocalError
from wantastic.control.https import HttpsClient
from wantastic.control.plane import ControlPlane, Facts, Options, SignIn
from wantastic.control.prompt import render_prompt
from wantastic.control.report import ApplyReport
from wantastic.control.resolve import Resolver, host_lookup
from wantastic.control.tls import read_roots
from wantastic.control.transport import load
from wantastic.store.store import Store
from wantastic.telemetry.log import Log
from wantastic.version import VERSION

MODEL_FILES: Final = (
    "/proc/device-tree/model",
    "/tmp/sysinfo/model",
    "/sys/class/dmi/id/product_name",
)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What flags and file say about registering."""

    server: HostPort
    auth_url: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""


@dataclass(frozen=True, slots=True)
class Outside:
    """How to stay outside the tunnel."""

    mark: Callable[[], int] = no_mark
    """What packets need to be kept out of the tunnel just now; 0: nothing."""
    resolve: Callable[[str, int], Awaitable[tuple[str, ...]]] | None = None
    """Name lookup that carries a mark."""

    async def lookup(self, name: str) -> list[str]:
        """Ask the host's resolver, or around it when it would ask inside the tunnel. OSError."""
        mark = self.mark()
        if not mark or self.resolve is None:
            return await host_lookup(name)
        return list(await self.resolve(name, mark))


class StoreMemory:
    """The addresses that worked, in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def last_good(self, name: str) -> tuple[str, ...]:
        return tuple(self._store.state().last_good.get(name, ()))

    def remember(self, name: str, addresses: tuple[str, ...]) -> None:
        self._store.remember_addresses(name, addresses)


class Uplink:
    """The control plane of one device; what the conductor calls its server."""

    def __init__(
        self,
        config: Config,
        enrolment: Enrolment,
        conductor: Conductor,
        store: Store,
        log: Log,
        *,
        held: Received | None,
        random: Callable[[], float],
        unix: Callable[[], float],
        clock_floor_unix_s: float,
        outside: Outside,
    ) -> None:
        self._config = config
        self._enrolment = enrolment
        self._conductor = conductor
        self._store = store
        self._log = log
        self._held = held
        self._random = random
        self._unix = unix
        self._clock_floor_unix_s = clock_floor_unix_s
        self._outside = outside
        self._client: AuthClient | None = None
        self._plane: ControlPlane | None = None
        self._report: ApplyReport | None = None
        self._token_stamp: tuple[int, int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- What the conductor asks for --------------------------------------------------

    def report(self, report: ApplyReport) -> None:
        self._report = report
        if self._plane:
            self._plane.report(report)

    def register_key(self, current: bytes, coming: bytes) -> None:
        self._spawn(self._register_key(current, coming))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _register_key(self, current: bytes, coming: bytes) -> None:
        try:
            if self._plane is None or not self._plane.is_registered:
                raise LocalError("no_token", "The device is not registered")
            await self._plane.register_key(current, coming)
        except Exception as error:
            # Whatever it was: a rotation that is never answered would never end.
            self._conductor.key_refused(describe(error))
        else:
            self._conductor.key_registered()

    def read_token_again(self) -> None:
        """The operator may have given another enrolment token."""
        token = self._token()
        self._log.hide(token)
        if self._plane:
            self._plane.use_token(token)

    def status(self) -> dict[str, object]:
        """Return what `-status` shows of the control plane."""
        if self._plane is None:
            return {"server": str(self._enrolment.server), "phase": "starting"}
        return self._plane.status()

    def tick(self) -> None:
        """Look after what nobody calls out."""
        if self._plane is None:
            return
        self._conductor.clock_offset(self._plane.clock_offset_s)
        if self._client:
            self._spawn(self._client.follow_mark())
        if not self._plane.is_registered and self._token_file_changed():
            self.read_token_again()

    def _token_file_changed(self) -> bool:
        """Return whether the token's file appeared or became another one since it was read."""
        return bool(self._enrolment.token_file) and self._stamp() not in (None, self._token_stamp)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            info = Path(self._enrolment.token_file).stat()
        except OSError:
            return None
        return info.st_mtime_ns, info.st_size

    # -- The run ----------------------------------------------------------------------

    async def run(self) -> None:
        """Run the control plane until cancelled."""
        backoff = Backoff(RECONNECT, self._random)
        while True:
            try:
                self._plane = self._build()
                if self._report:
                    self._plane.report(self._report)
                await self._plane.run()
            except ControlError as error:
                self._conductor.trouble(error)
            except Exception as error:
                self._conductor.trouble(describe(error))
                where = error.__traceback__
                while where is not None and where.tb_next is not None:
                    where = where.tb_next
                at = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
                self._log.error("the control plane failed", kind=type(error).__name__, at=at)
            await asyncio.sleep(backoff.next_s())

    def _build(self) -> ControlPlane:
        """Return a control plane made of what is on disk now. ControlError."""
        auth = self._config.auth
        roots = b"" if auth.insecure else read_roots(auth.ca_file)
        pair = self._pair()
        plane: ControlPlane | None = None

        def identity() -> tuple[bytes, bytes]:
            return pair if pair[0] or plane is None else plane.identity()

        def clock_is_wrong() -> bool:
            return plane is not None and plane.clock_is_wrong()

        resolver = Resolver(StoreMemory(self._store), self._outside.lookup)
        client = self._client = AuthClient(
            Server(self._enrolment.server, roots, auth.server_name, auth.insecure),
            load(auth.transport, self._outside.mark),
            resolver,
            identity=identity,
            clock_is_wrong=clock_is_wrong,
            mark=self._outside.mark,
        )
        token = self._token()
        self._log.hide(token)
        plane = ControlPlane(
            Options(
                server=str(self._enrolment.server),
                device_id=self._config.device_id,
                tenant_id=self._config.tenant_id,
                enrolment_token=token,
                refresh_time_s=auth.refresh_time_ns / 1e9,
                certificate=not auth.insecure and not pair[0],
                facts=facts(self._config),
                clock_floor_unix_s=self._clock_floor_unix_s,
            ),
            client,
            self._store.record("credentials"),
            self._conductor,
            self._log,
            public_key=lambda: self._conductor.public_key,
            held=self._held,
            sign_in=self._sign_in(roots, resolver, clock_is_wrong),
            random=self._random,
            unix=self._unix,
            entropy=os.urandom,
        )
        return plane

    def _token(self) -> str:
        if self._enrolment.token:
            return self._enrolment.token
        path = self._enrolment.token_file
        if not path:
            return ""
        self._token_stamp = self._stamp()
        try:
            return read_token_file(path)
        except LocalError as error:
            # A registered device does not need it; one that is not will say so.
            self._log.warning(error.reason, code=error.code, remedy=error.remedy)
            return ""

    def _pair(self) -> tuple[bytes, bytes]:
        """Return the client certificate and key that the file names, if it does."""
        auth = self._config.auth
        if not auth.client_cert_file:
            return b"", b""
        try:
            chain = Path(auth.client_cert_file).read_bytes()
            return chain, Path(auth.client_key_file or auth.client_cert_file).read_bytes()
        except OSError as error:
            text = f"The client certificate cannot be read: {error.strerror}"
            raise LocalError("client_certificate", text) from None

    def _sign_in(
        self, roots: bytes, resolver: Resolver, clock_is_wrong: Callable[[], bool]
    ) -> SignIn | None:
        if not self._enrolment.auth_url:
            return None
        insecure = self._config.auth.insecure
        # What the gRPC server is verified against may not be what a web server is.
        web_roots = roots or (b"" if insecure else read_roots(""))
        http = HttpsClient(
            web_roots, resolver, clock_is_wrong=clock_is_wrong, mark=self._outside.mark
        )

        async def ask() -> str:
            plane = self._plane
            device_id = plane.credentials.device_id if plane else ""
            flow = DeviceFlow(self._enrolment.auth_url, device_id=device_id, model=read_model())
            return await sign_in(flow, http, show, insecure=insecure)

        return ask


def show(prompt: Prompt) -> None:
    """Print the sign-in prompt for whoever started the agent."""
    terminal = sys.stderr.isatty()
    columns = os.get_terminal_size(sys.stderr.fileno()).columns if terminal else 80
    sys.stderr.write(render_prompt(prompt, terminal=terminal, columns=columns))
    sys.stderr.flush()


def read_model(paths: tuple[str, ...] = MODEL_FILES) -> str:
    """Return the name of the board, "" when the kernel does not tell."""
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                found = clean(file.read(200).decode("utf-8", "replace").strip("\0 \n"), 80)
        except OSError:
            continue
        if found:
            return found
    return ""


def facts(config: Config) -> Facts:
    """Return what the agent says about itself."""
    system = os.uname()
    extra = [methods.CAPABILITY_TUN] if config.interface.mode != "userspace" else []
    if config.exit_node.enabled:
        extra.append(methods.CAPABILITY_EXIT_NODE)
    return Facts(
        version=VERSION,
        os=f"{system.sysname} {system.release}"[:80],
        arch=platform.machine()[:40],
        model=read_model(),
        hostname=clean(system.nodename, 64),
        capabilities=(*Facts().capabilities, *extra),
    )
