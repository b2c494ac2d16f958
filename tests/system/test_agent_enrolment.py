"""The agent's own client against the reference server over TLS: sign-in, enrolment, refresh.

No tunnel and no root: the control plane alone, with both transports.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import server as support
from tests.support.fake_control import Lines, Listening, MemoryRecord, NoMemory
from tests.support.server import ServerProcess, operate
from wantastic.config.keys import generate_private_key, public_key_of
from wantastic.config.model import HostPort
from wantastic.control.client import AuthClient, Server
from wantastic.control.device_flow import DeviceFlow, Prompt, sign_in
from wantastic.control.errors import ControlError
from wantastic.control.https import HttpsClient
from wantastic.control.plane import ControlPlane, Options
from wantastic.control.report import ApplyReport
from wantastic.control.resolve import Resolver
from wantastic.control.transport import TransportName, load
from wantastic.server import grants, tenants
from wantastic.server.database import Database

both = pytest.mark.parametrize("transport", ["grpcio", "grpclib"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    state = tmp_path_factory.mktemp("enrolment") / "state"
    support.set_gateway(state)
    operate(state, "tenant", "create", "default", "--ipv4", "10.9.0.0/16")
    options = ("--host", "127.0.0.1", "--http-listen", "127.0.0.1:0")
    with support.serving(state, *options) as server:
        yield server


@dataclass
class Device:
    """One device's control plane on the real network."""

    plane: ControlPlane
    listening: Listening
    record: MemoryRecord
    log: Lines
    client: AuthClient

    @classmethod
    def make(cls, server: ServerProcess, transport: Any, **more: Any) -> Device:
        rng = random.Random(os.urandom(8))
        key = public_key_of(generate_private_key(rng.randbytes))
        at = HostPort("127.0.0.1", server.ports["grpc"])
        record = more.pop("record", None) or MemoryRecord()
        planes: list[ControlPlane] = []
        name: TransportName = transport
        client = AuthClient(
            Server(at, (server.state / "ca.pem").read_bytes()),
            load(name),
            Resolver(NoMemory()),
            identity=lambda: planes[0].identity(),
        )
        listening, log = Listening(), Lines()
        plane = ControlPlane(
            Options(server=str(at), enrolment_token=more.pop("token", "")),
            client,
            record,
            listening,
            log,
            public_key=lambda: key,
            random=rng.random,
            unix=time.time,
            entropy=os.urandom,
            **more,
        )
        planes.append(plane)
        return cls(plane, listening, record, log, client)

    async def until(self, *names: str, timeout_s: float = 30.0) -> asyncio.Task[None]:
        """Start running and wait until the listener was told all of these."""
        task = asyncio.ensure_future(self.plane.run())
        end = time.monotonic() + timeout_s
        while not set(names) <= set(self.listening.names()) and time.monotonic() < end:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.05)
        assert set(names) <= set(self.listening.names()), self.log.lines
        return task


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@both
def test_enrol_with_mutual_tls_refresh_and_report(server: ServerProcess, transport: str) -> None:
    async def main() -> None:
        device = Device.make(server, transport, token=support.new_token(server.state))
        task = await device.until("registered", "configuration")
        received = device.listening.of("configuration")[0]
        assert received.statement["peers"]
        assert received.statement["addresses"][0].startswith("10.9.")
        first = device.plane.credentials
        assert first.certificate is not None
        assert len(first.certificate.chain) >= 1
        assert device.plane.status()["clock_offset_s"] is not None
        device.plane._refresh_now.set()
        device.plane.report(ApplyReport(received.version))
        # (Within one second the server gives the same token again.)
        for _ in range(200):
            if any("token refreshed" in line for line in device.log.lines):
                break
            await asyncio.sleep(0.05)
        assert any("token refreshed" in line for line in device.log.lines)
        assert not [line for line in device.log.lines if first.token in line]
        assert device.listening.of("trouble") == []
        await stop(task)
        # Again, from what is stored, without a token.
        again = Device.make(server, transport, record=device.record)
        await stop(await again.until("registered", "configuration"))
        assert "registering" not in again.listening.names()

    asyncio.run(main())


@both
def test_sign_in_is_approved_and_enrols(server: ServerProcess, transport: str) -> None:
    url = f"https://127.0.0.1:{server.ports['http']}/auth/device"
    prompts: list[Prompt] = []

    def approve(prompt: Prompt) -> None:
        prompts.append(prompt)
        database = Database.open(str(server.state / "server.db"))
        try:
            with database.write() as transaction:
                tenant = tenants.find(transaction, "default").id
                grants.decide(transaction, prompt.user_code, tenant_id=tenant, decided_by="test")
        finally:
            database.close()

    async def main() -> None:
        http = HttpsClient((server.state / "ca.pem").read_bytes(), Resolver(NoMemory()))

        async def ask() -> str:
            return await sign_in(DeviceFlow(url, model="test router"), http, approve)

        device = Device.make(server, transport, sign_in=ask)
        await stop(await device.until("registered", "configuration", timeout_s=60))
        assert len(prompts) == 1
        assert prompts[0].link_with_code.startswith("https://")

    asyncio.run(main())


def test_sign_in_that_is_denied(server: ServerProcess) -> None:
    url = f"https://127.0.0.1:{server.ports['http']}/auth/device"

    def deny(prompt: Prompt) -> None:
        database = Database.open(str(server.state / "server.db"))
        try:
            with database.write() as transaction:
                grants.decide(transaction, prompt.user_code, tenant_id=None, decided_by="test")
        finally:
            database.close()

    async def main() -> None:
        http = HttpsClient((server.state / "ca.pem").read_bytes(), Resolver(NoMemory()))
        with pytest.raises(ControlError) as caught:
            await sign_in(DeviceFlow(url), http, deny)
        assert caught.value.code == "access_denied"

    asyncio.run(main())


@both
def test_refusals_come_with_the_servers_words(
    server: ServerProcess, transport: str, tmp_path: Path
) -> None:
    async def main() -> None:
        device = Device.make(server, transport, token="no-such-token-as-this")
        await stop(await device.until("trouble"))
        assert device.listening.of("trouble")[0] in ("token_invalid", "invalid_request")
        assert not [line for line in device.log.lines if "no-such-token" in line]

    asyncio.run(main())
