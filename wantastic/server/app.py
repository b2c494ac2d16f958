"""One server process: opens what it needs, serves, and drains when it is told to stop.

Start: key file, database (migrated), authority, directory (follows changes), gateway
keeper, listeners; then it is ready. Stop (SIGTERM, SIGINT): health says NOT_SERVING,
streams and long polls are let go with a spread retry_after, running calls get `drain_s`,
reports are written, and everything closes in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import signal
import ssl
import sys
import time
from pathlib import Path

from wantastic.server.authority import Authority
from wantastic.server.database import Database
from wantastic.server.directory import Directory, Worker
from wantastic.server.gateways import Gateway, Keeper
from wantastic.server.keyring import Keyring
from wantastic.server.metrics import CONTENT_TYPE, Metrics
from wantastic.server.rpc import RpcServer
from wantastic.server.service import Service
from wantastic.server.settings import (
    KEY_FILE,
    ROOT_CERTIFICATE_FILE,
    Settings,
)
from wantastic.server.tls import CHECK_S, CertificateSource
from wantastic.server.web.device_flow import DeviceFlow
from wantastic.server.web.http import BadRequest, HttpServer, Request, Response
from wantastic.server.wgcommand import WgCommandGateway
from wantastic.version import VERSION

log = logging.getLogger(__name__)

DATABASE_THREADS = 4
KEEP_CHANGES_S = 7 * 86_400
PRUNE_S = 3600.0


def open_state(folder: Path) -> Keyring:
    """Make the state folder if need be, private, and open the key file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Keyring.open(folder / KEY_FILE)


class App:
    """The parts of a running server."""

    def __init__(self, settings: Settings) -> None:
        settings.check()
        self._settings = settings
        self._keyring = open_state(settings.state)
        self._database = Database.open(settings.database)
        self._database.migrate()
        with self._database.write() as transaction:
            self._authority = Authority.open(transaction, self._keyring)
        _write_root(settings.state / ROOT_CERTIFICATE_FILE, self._authority.root_pem)
        self._certificate = self._open_certificate()
        self._metrics = Metrics()
        self._worker = Worker(DATABASE_THREADS)
        self._directory = Directory(self._database, self._worker)
        self._contexts: list[ssl.SSLContext] = []
        self._https: list[HttpServer] = []
        self._keeper: Keeper | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ports: dict[str, int] = {}

    async def run(self, *, announce: bool) -> None:
        """Serve until a signal comes. `announce`: one line of JSON with the ports when ready."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        rpc, service = await self._start()
        log.info("ready", extra={"ports": self._ports, "database": self._database.shown_url})
        if announce:
            sys.stdout.write(json.dumps({"ready": True, **self._ports}) + "\n")
            sys.stdout.flush()
        await stopping.wait()
        log.info("draining", extra={"waiters": self._directory.waiters})
        await rpc.stop(self._settings.drain_s)
        await self._stop(service)
        log.info("stopped")

    async def _start(self) -> tuple[RpcServer, Service]:
        settings = self._settings
        service = Service(
            self._database,
            self._directory,
            self._worker,
            self._keyring,
            self._authority,
            settings.terms,
            VERSION,
        )
        await self._directory.start()
        gateway = self._gateway()
        if gateway is not None:
            self._keeper = Keeper(
                gateway,
                self._database,
                self._directory,
                self._worker,
                self._keyring,
                self._metrics,
            )
            await self._keeper.start()
            service.tell_gateway = self._keeper.sync
        self._observe()
        rpc = RpcServer(service, self._metrics, certificates=settings.mtls_listen is not None)
        plain = self._certificate is None
        credentials = None if self._certificate is None else self._certificate.credentials(None)
        self._ports["grpc"] = rpc.listen(settings.listen.text, credentials)
        if settings.mtls_listen is not None:
            assert self._certificate is not None
            self._ports["mtls"] = rpc.listen(
                settings.mtls_listen.text, self._certificate.credentials(self._authority.root_pem)
            )
        await self._start_pages(plain)
        await rpc.start()
        self._tasks = [
            asyncio.create_task(service.run(), name="reports"),
            asyncio.create_task(self._keep_house(), name="housekeeping"),
        ]
        return rpc, service

    async def _start_pages(self, plain: bool) -> None:
        settings = self._settings
        if settings.http_listen is not None:
            flow = DeviceFlow(
                self._database,
                self._worker,
                self._keyring,
                self._metrics,
                settings.public_url,
            )
            server = HttpServer(flow.handle)
            context = None
            if self._certificate is not None and not plain:
                context = self._certificate.context()
                self._contexts.append(context)
            address = settings.http_listen
            port = await server.listen(address.host, address.port, context)
            self._ports["http"] = port
            self._https.append(server)
            if not flow.public_url:
                scheme = "http" if plain else "https"
                flow.set_public_url(f"{scheme}://{settings.hosts[0]}:{port}")
        if settings.metrics_listen is not None:
            server = HttpServer(self._metrics_page)
            address = settings.metrics_listen
            self._ports["metrics"] = await server.listen(address.host, address.port, None)
            self._https.append(server)

    async def _stop(self, service: Service) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await service.flush()
        for server in self._https:
            await server.stop()
        if self._keeper is not None:
            await self._keeper.stop()
        await self._directory.stop()
        self._worker.close()
        self._database.close()

    def _open_certificate(self) -> CertificateSource | None:
        settings = self._settings
        if settings.insecure:
            return None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            return CertificateSource.from_files(settings.tls_certificate, settings.tls_key)
        return CertificateSource.from_authority(self._authority, settings.hosts)

    def _gateway(self) -> Gateway | None:
        settings = self._settings
        if settings.gateway.startswith("wg:"):
            return WgCommandGateway(settings.gateway[3:], settings.gateway_host)
        if settings.gateway == "device":
            # Imported here: the native engine is needed by this kind of gateway only.
            module = importlib.import_module("wantastic.server.devicegateway")
            gateway: Gateway = module.open_gateway(settings, self._database, self._keyring)
            return gateway
        return None

    def _observe(self) -> None:
        directory, worker = self._directory, self._worker
        for name, text, read in (
            ("directory_entries", "Devices known without a read.", lambda: directory.entries),
            ("directory_reads", "Devices read since the start.", lambda: directory.reads),
            ("waiters", "Streams and long polls that wait.", lambda: directory.waiters),
            ("hears_changes", "1 when changes are heard of.", lambda: directory.hears),
            ("database_queue", "Calls that wait for the database.", lambda: worker.queued),
        ):
            self._metrics.observe(name, text, lambda read=read: float(read()))  # type: ignore[misc]

    async def _metrics_page(self, request: Request) -> Response:
        if request.method != "GET":
            raise BadRequest(405, "only GET")
        if request.path == "/metrics":
            return Response(200, self._metrics.render(), CONTENT_TYPE)
        if request.path == "/healthz":
            good = self._directory.hears and (self._keeper is None or self._keeper.in_step)
            text = b"ok\n" if good else b"degraded\n"
            return Response(200 if good else 503, text, "text/plain; charset=utf-8")
        raise BadRequest(404, "only /metrics and /healthz")

    async def _keep_house(self) -> None:
        slept_s = PRUNE_S
        while True:
            if slept_s >= PRUNE_S:
                slept_s = 0.0
                with contextlib.suppress(Exception):
                    await self._worker.run(self._prune)
            await asyncio.sleep(CHECK_S)
            slept_s += CHECK_S
            if self._certificate is not None and self._certificate.refresh():
                for context in self._contexts:
                    self._certificate.load(context)
                log.info("certificate renewed")

    def _prune(self) -> None:
        self._database.prune_changes(int(time.time()) - KEEP_CHANGES_S)


def _write_root(path: Path, pem: bytes) -> None:
    """Put the root certificate where an operator finds it; it is public."""
    if path.exists() and path.read_bytes() == pem:
        return
    temporary = path.with_suffix(".new")
    temporary.write_bytes(pem)
    temporary.replace(path)
